"""Segments any video: what one or several expressions refer to, in a video file or a folder of frames.

    python -m veason.predict --video frames --expression "the dog" --model CHECKPOINT --sam2 SAM2 --out result
    python -m veason.predict --video clip.mp4 --expression "the one that leaves first" --expression "the dog" \\
        --model CHECKPOINT --sam2 sam2.1_hiera_large.pt --out out

For each expression OUT/<number>/ holds masks/<frame>.png (0 or 255; named as the frames of a folder, which are taken
in natural order), result.json (answer, reasoning, keyframe, boxes, masks as COCO RLE), keyframe.jpg with the boxes, and
overlay.mp4. Frames are numbered from 0; the policy is given the frame's number as its time in seconds, as in training,
so `--fps 1` shows a video at the rate of the training data.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from omegaconf import OmegaConf

from veason.answers import READINGS
from veason.checkpoints import USABLE_CHECKPOINTS, resolve_model
from veason.command_line import HelpFormatter, parse_arguments
from veason.errors import DataError
from veason.files import write_json
from veason.frames import FRAME_INDICES, check_frame_tokens, check_side, evaluation_frames
from veason.masks import encode, read_mask
from veason.model_info import read_model_info
from veason.pictures import draw_boxes, overlay_masks, save_picture
from veason.pipeline import Frames, Prediction, Segmenter
from veason.policy import Sampling, VLLMPolicy
from veason.prompts import load_template
from veason.settings import FILE, Settings, read_settings
from veason.tracking import DEFAULT, TRACKERS, build_tracker, check_tracker
from veason.video import decode_video, open_folder

MAX_FRAMES = 64  # of a video that the tracker encodes once for all expressions; a longer one is streamed for each
OVERLAY_FPS = 10  # of the overlay video of a folder of frames, whose frame rate is not known


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(arguments)
    try:
        check_options(options)
        out = Path(options.out)
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".frames_", dir=out) as scratch:  # /tmp may be memory
            frames, fps = read_input(options.video, options.fps, Path(scratch))
            multiple = read_model_info(options.model).pixel_multiple
            shown = min(options.sampled_frames, len(frames))
            check_frame_tokens(shown, options.size, multiple, options.max_prompt_length)
            predict(build_segmenter(options), frames, options.expression, out, fps)
    except DataError as error:
        print(f"veason.predict: {error}", file=sys.stderr)
        return 2
    return 0


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="veason.predict", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--video", required=True, help="a video file, or a folder of frames sorted by name")
    parser.add_argument("--expression", required=True, action="append", help="may be given several times")
    parser.add_argument("--model", help="the policy's checkpoint: a folder, or a name on the hub")
    parser.add_argument("--tracker", default=DEFAULT, help=f"{', '.join(TRACKERS)}, or package.module:name")
    parser.add_argument(
        "--tracker_options", action="append", default=[], metavar="KEY=VALUE", help="may be given several times"
    )
    parser.add_argument("--sam2", help="SAM 2 weights, such as sam2.1_hiera_large.pt")
    parser.add_argument(
        "--sam2_config",
        default="configs/sam2.1/sam2.1_hiera_l.yaml",
        help="a YAML file, or one that the sam2 package ships",
    )
    parser.add_argument("--out", required=True, help="folder of the results")
    parser.add_argument("--fps", type=float, help="frames per second to keep of a video file; all by default")
    own = f"default: the checkpoint's {FILE}, or"
    parser.add_argument("--settings", help=f"a {FILE} in place of the checkpoint's")
    parser.add_argument("--sampled_frames", type=int, help=f"frames that the policy sees; {own} 8")
    parser.add_argument("--size", type=int, help=f"their side in pixels; {own} 560")
    parser.add_argument(
        "--prompt_template", help=f"question with {{expression}}, as text or as a path to a text file; {own} ours"
    )
    parser.add_argument("--frame_index", choices=FRAME_INDICES, help=f"what stands for a frame's time; {own} absolute")
    parser.add_argument("--reading", choices=READINGS, help=f"of the answers; {own} strict")
    parser.add_argument("--repetition_penalty", type=float, help=f"of the sampling; {own} 1.0")
    parser.add_argument("--max_prompt_length", type=int, default=7100, help="tokens; a longer prompt is refused")
    parser.add_argument("--temperature", type=float, default=0.0, help="of sampling; 0 is greedy")
    parser.add_argument("--max_tokens", type=int, default=1024, help="most tokens of an answer")
    options = parse_arguments(parser, arguments)
    if options.fps is not None and options.fps <= 0:
        parser.error(f"--fps must be above 0, not {options.fps}")
    published = {"sam2_config": options.sam2_config, "sam2_checkpoint": options.sam2}
    options.tracker_options = {**published, **OmegaConf.from_dotlist(options.tracker_options)}
    return options


def check_options(options: argparse.Namespace) -> None:
    """Complete the options, and refuse to start without a policy and a tracker, or with a frame size that the policy
    would not see.

    Raises:
        DataError: in one line that says what to give.
    """
    if options.model is None:
        raise DataError(f"--model is not given: {USABLE_CHECKPOINTS}")
    options.model = resolve_model(options.model)
    fill_in(options)
    if options.tracker == "sam2" and not options.tracker_options["sam2_checkpoint"]:
        raise DataError(
            "--sam2 is not given: fit is sam2.1_hiera_large.pt, from facebook/sam2.1-hiera-large on the hub"
        )
    check_tracker(options.tracker, options.tracker_options)
    check_side(options.size, read_model_info(options.model).pixel_multiple)


def fill_in(options: argparse.Namespace) -> None:
    """Take what is not given from the checkpoint's settings, and say what is given otherwise.

    Raises:
        DataError: the settings or the template cannot be read.
    """
    given = _given(options)
    settings = read_settings(options.settings or options.model)
    for line in settings.differences(**given) if settings else ():
        print(line, flush=True)
    used = (settings or Settings()).with_given(**given)
    options.size = used.keyframe_resize
    for key in ("sampled_frames", "prompt_template", "frame_index", "reading", "repetition_penalty"):
        setattr(options, key, getattr(used, key))


def _given(options: argparse.Namespace) -> dict[str, Any]:
    template = options.prompt_template
    return {
        "keyframe_resize": options.size,
        "sampled_frames": options.sampled_frames,
        "prompt_template": None if template is None else load_template(template),
        "frame_index": options.frame_index,
        "reading": options.reading,
        "repetition_penalty": options.repetition_penalty,
    }


def read_input(path: str, fps: float | None, scratch: Path) -> tuple[Frames, float]:
    """The frames of a folder or a video file, and the frame rate at which to show them."""
    if Path(path).is_dir():
        return open_folder(path), fps or OVERLAY_FPS
    return decode_video(path, scratch / "frames", fps)


def build_segmenter(options: argparse.Namespace) -> Segmenter:
    import torch

    used = Settings().with_given(**_given(options))
    sampling = Sampling(options.temperature, repetition_penalty=used.repetition_penalty, max_tokens=options.max_tokens)
    policy = VLLMPolicy(
        options.model, sampling, max_prompt_tokens=options.max_prompt_length, max_images=used.sampled_frames
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tracker = build_tracker(options.tracker, device, MAX_FRAMES, **options.tracker_options)
    return Segmenter(
        policy,
        tracker,
        used.sampled_frames,
        used.keyframe_resize,
        used.prompt_template,
        used.reading,
        used.frame_index,
    )


def predict(
    segmenter: Segmenter, frames: Frames, expressions: Sequence[str], out: Path, fps: float
) -> list[Prediction]:
    """Segment all expressions and write everything; memory does not grow with the video's length."""
    for old in out.glob("[0-9]*/result.json"):
        remove_result(old.parent)  # of an earlier call, which may have had more frames or expressions
    shape = (len(frames), *frames[0].shape[:2])
    names = getattr(frames, "names", None) or [f"{index:05d}" for index in range(len(frames))]
    answers = segmenter.policy.generate(segmenter.questions(frames, expressions))
    predictions = [segmenter.parse(answer, shape) for answer in answers]
    results = zip(expressions, predictions, segmenter.track_all(frames, predictions))
    for number, (expression, prediction, masks) in enumerate(results):
        folder = out / f"{number:02d}"
        rles = write_masks(folder / "masks", masks, names)
        result: dict[str, Any] = {
            "expression": expression,
            "failure": prediction.failure,
            "thinking": prediction.thinking,
            "keyframe": prediction.keyframe,
            "boxes": prediction.boxes,
            "answer": prediction.text,
            "frames_shown": evaluation_frames(len(frames), segmenter.sampled_frames),
            "frames": names,
            "masks": rles,
        }
        write_json(folder / "result.json", result, indent=None)
        if prediction.keyframe is not None and 0 <= prediction.keyframe < len(frames):
            save_picture(folder / "keyframe.jpg", draw_boxes(frames[prediction.keyframe], prediction.boxes))
        write_overlay(folder, frames, names, fps)
        outcome = prediction.failure or f"{len(prediction.boxes)} boxes on frame {prediction.keyframe}"
        print(f"{folder}: {expression!r}: {outcome}", flush=True)
    return predictions


def remove_result(folder: Path) -> None:
    """Removes what `predict` wrote, and the folder where it holds nothing else."""
    shutil.rmtree(folder / "masks", ignore_errors=True)
    for name in ("result.json", "keyframe.jpg", "overlay.mp4"):
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def write_masks(folder: Path, masks: Iterable[tuple[int, np.ndarray]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Write every frame's PNG under the frame's name; returns the COCO RLEs in the video's order."""
    folder.mkdir(parents=True, exist_ok=True)
    rles = {}
    for index, mask in masks:
        path = folder / f"{names[index]}.png"
        if not cv2.imwrite(str(path), mask.astype(np.uint8) * 255):
            raise DataError(f"mask cannot be written: {path}")
        rle = encode(mask)
        rles[index] = {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
    return [rles[index] for index in sorted(rles)]


def write_overlay(folder: Path, frames: Frames, names: Sequence[str], fps: float) -> None:
    """overlay.mp4 (H.264) of the frames under the masks in `folder`."""
    import av

    height, width = (side // 2 * 2 for side in frames[0].shape[:2])  # H.264 needs even sides
    with av.open(str(folder / "overlay.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=round(fps) or 1)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(len(frames)):
            picture = overlay_masks(frames[index], read_mask(folder / "masks" / f"{names[index]}.png"))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    sys.exit(main())
