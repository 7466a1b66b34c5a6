"""Segments any video: what one or several expressions mean, in a video file or a folder of frames.

    python -m veason.predict --video clip.mp4 --expression "the one that leaves first" --expression "the dog" \\
        --model CHECKPOINT --sam2 sam2.1_hiera_large.pt --out out

For each expression OUT/<number>/ holds masks/<frame>.png (0 or 255), result.json (answer, reasoning, keyframe, boxes,
masks as COCO RLE), keyframe.jpg with the boxes, and overlay.mp4. Frames are numbered from 0; the policy is told the
frame's number as its time in seconds, as in training, so `--fps 1` shows a video at the pace that it was trained on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from veason.errors import DataError
from veason.frames import check_side, evaluation_frames
from veason.masks import encode, read_mask
from veason.pictures import draw_boxes, overlay_masks, save_picture
from veason.pipeline import Frames, Reading, Segmenter
from veason.policy import FIT_POLICIES, Sampling, VLLMPolicy, check_checkpoint
from veason.video import decode_video, open_folder

HELD = 64  # frames whose features the tracker holds; several expressions share those of a video that is no longer
OVERLAY_FPS = 10  # of the overlay video of a folder of frames, whose pace is not known


def main(words: Sequence[str] | None = None) -> int:
    options = read_options(words)
    try:
        check_weights(options)
        check_side(options.size)
        out = Path(options.out)
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".frames_", dir=out) as scratch:  # /tmp may be memory
            frames, fps = read_input(options.video, options.fps, Path(scratch))
            predict(build_segmenter(options), frames, options.expression, out, fps)
    except DataError as error:
        print(f"veason.predict: {error}", file=sys.stderr)
        return 2
    return 0


def read_options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="veason.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--video", required=True, help="a video file, or a folder of frames sorted by name")
    parser.add_argument("--expression", required=True, action="append", help="may be given several times")
    parser.add_argument("--model", help="the policy's checkpoint folder")
    parser.add_argument("--sam2", help="SAM 2 weights, such as sam2.1_hiera_large.pt")
    parser.add_argument(
        "--sam2_config",
        default="configs/sam2.1/sam2.1_hiera_l.yaml",
        help="a YAML file, or one that the sam2 package ships",
    )
    parser.add_argument("--out", required=True)
    parser.add_argument("--fps", type=float, help="frames a second to keep of a video file; all by default")
    parser.add_argument("--sampled_frames", type=int, default=8, help="frames that the policy sees")
    parser.add_argument("--size", type=int, default=560, help="their side in pixels")
    parser.add_argument("--prompt_template", help="question with {expression}, as text or as a path to a text file")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--max_tokens", type=int, default=1024)
    options = parser.parse_args(words)
    if options.fps is not None and options.fps <= 0:
        parser.error(f"--fps must be above 0, not {options.fps}")
    return options


def check_weights(options: argparse.Namespace) -> None:
    """Refuse to start without both sets of weights, in one line that says which are fit and where they are."""
    if options.model is None:
        raise DataError(f"--model is not given: {FIT_POLICIES}")
    check_checkpoint(options.model)
    if options.sam2 is None or not Path(options.sam2).is_file():
        problem = "--sam2 is not given" if options.sam2 is None else f"no SAM 2 checkpoint at {options.sam2}"
        raise DataError(f"{problem}: fit is sam2.1_hiera_large.pt, from facebook/sam2.1-hiera-large on the hub")


def read_input(path: str, fps: float | None, scratch: Path) -> tuple[Frames, float]:
    """The frames, and the pace at which to show them again."""
    if Path(path).is_dir():
        return open_folder(path), fps or OVERLAY_FPS
    return decode_video(path, scratch / "frames", fps)


def build_segmenter(options: argparse.Namespace) -> Segmenter:
    import torch

    from veason.tracking.sam2.tracker import VideoTracker

    sampling = Sampling(options.temperature, max_tokens=options.max_tokens)
    policy = VLLMPolicy(options.model, sampling, max_images=options.sampled_frames)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tracker = VideoTracker.from_files(options.sam2_config, options.sam2, device, max_frames=HELD)
    return Segmenter(policy, tracker, options.sampled_frames, options.size, options.prompt_template)


def predict(segmenter: Segmenter, frames: Frames, expressions: Sequence[str], out: Path, fps: float) -> list[Reading]:
    """Segment and write everything; the policy answers all expressions at once. Memory does not grow with the video's
    length.
    """
    for old in out.glob("[0-9]*/result.json"):
        remove_result(old.parent)  # of an earlier call, which may have had more frames or expressions
    shape = (len(frames), *frames[0].shape[:2])
    answers = segmenter.policy.answers(segmenter.questions(frames, expressions))
    readings = [segmenter.read(answer, shape) for answer in answers]
    for number, (expression, reading, masks) in enumerate(
        zip(expressions, readings, segmenter.track_all(frames, readings))
    ):
        folder = out / f"{number:02d}"
        rles = write_masks(folder / "masks", masks)
        shown = evaluation_frames(len(frames), segmenter.sampled_frames)
        result: dict[str, Any] = {
            "expression": expression,
            "failure": reading.failure,
            "thinking": reading.thinking,
            "keyframe": reading.keyframe,
        }
        result |= {"boxes": reading.boxes, "answer": reading.text, "frames_shown": shown, "masks": rles}
        (folder / "result.json").write_text(json.dumps(result) + "\n", encoding="ascii")
        if reading.keyframe is not None and 0 <= reading.keyframe < len(frames):
            save_picture(folder / "keyframe.jpg", draw_boxes(frames[reading.keyframe], reading.boxes))
        write_overlay(folder, frames, fps)
        where = reading.failure or f"{len(reading.boxes)} boxes on frame {reading.keyframe}"
        print(f"{folder}: {expression!r}: {where}", flush=True)
    return readings


def remove_result(folder: Path) -> None:
    """Removes what `predict` wrote, and the folder where it holds nothing else."""
    shutil.rmtree(folder / "masks", ignore_errors=True)
    for name in ("result.json", "keyframe.jpg", "overlay.mp4"):
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def write_masks(folder: Path, masks: Iterable[tuple[int, np.ndarray]]) -> list[dict[str, Any]]:
    """Write every frame's PNG; returns the COCO RLEs in the video's order."""
    folder.mkdir(parents=True, exist_ok=True)
    rles = {}
    for index, mask in masks:
        if not cv2.imwrite(str(folder / f"{index:05d}.png"), mask.astype(np.uint8) * 255):
            raise DataError(f"mask cannot be written: {folder / f'{index:05d}.png'}")
        rle = encode(mask)
        rles[index] = {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
    return [rles[index] for index in sorted(rles)]


def write_overlay(folder: Path, frames: Frames, fps: float) -> None:
    """overlay.mp4 (H.264) of the frames under the masks that lie in `folder`."""
    import av

    height, width = (side // 2 * 2 for side in frames[0].shape[:2])  # H.264 wants even sides
    with av.open(str(folder / "overlay.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=round(fps) or 1)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(len(frames)):
            picture = overlay_masks(frames[index], read_mask(folder / "masks" / f"{index:05d}.png"))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    sys.exit(main())
