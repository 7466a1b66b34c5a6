"""Segments your own videos: what one or several expressions refer to, in video files or folders of frames.

    veason predict                                                     # the toy models on the toy clip
    veason predict clip.mp4 "the dog that is chased" "the one in front" --model CHECKPOINT \\
        --sam2 sam2.1_hiera_large.pt --out result
    veason predict --clips clips.jsonl --out results                  # {"video": ..., "expressions": [...]} a line

For each expression OUT/<number>/ holds index.html (a page that holds all of it), overlay.mp4, keyframe.jpg,
masks/<frame>.png (0 or 255), objects/<frame>.png (object numbers, where there are several), result.json (answer,
reasoning, keyframe, boxes, masks as COCO RLE, coverage, and of a video file the number and time of each frame in it),
masks_coco.json and masks.zip. Earlier results stay: the numbers go on. Frames are numbered from 0; the policy is
given the frame's index as its timestamp in seconds, as in training, so `--fps 1` shows a video at the rate of the
training data. The masks of a folder's frames are named as the frames. Without --model the toy models of the repository
are used, which know drawn shapes only.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from veason.answer_parsers import ANSWER_PARSERS
from veason.command_line import HelpFormatter, OneLineErrorParser, parse_arguments
from veason.errors import DataError
from veason.frames import TIMESTAMP_MODES
from veason.inference.model_options import ModelOptions
from veason.inference.segmenter import Segmenter
from veason.library_output import quiet_libraries
from veason.model_info import SETTINGS_FILE
from veason.predict.clips import (
    ClipRequest,
    check_output_folder,
    check_videos,
    estimate_bytes,
    make_output_folder,
    output_folders,
    read_clips,
)
from veason.progress_bar import ConsoleProgress, Progress, no_progress
from veason.results.segmentation import Frames
from veason.toy_assets import TOY_NOTICE
from veason.tracking import DEFAULT, TRACKERS
from veason.video.sources import open_video

DEFAULT_OUT = Path("outputs/predict")
LIBRARY_LOG = "libraries.log"  # what vLLM and others print


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        options = read_options(arguments)
        run(options)
    except DataError as error:
        print(f"veason predict: {error}", file=sys.stderr)
        return 2
    return 0


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises DataError in one line."""
    parser = OneLineErrorParser(prog="veason predict", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("clip", nargs="?", metavar="VIDEO", help="a video file, or a folder of frames in natural order")
    parser.add_argument("find", nargs="*", metavar="EXPRESSION", help="what to find")
    parser.add_argument("--video", action="append", default=[], help="a further video; may be given several times")
    parser.add_argument("--expression", action="append", default=[], help="may be given several times")
    parser.add_argument("--clips", help="a file with a path a line, or JSONL with video and expressions")
    add_model_options(parser)
    parser.add_argument("--out", help=f"the folder of the results; {DEFAULT_OUT}/<name of the clip> by default")
    parser.add_argument("--fps", type=float, help="frames per second to keep of a video file; all by default")
    options = parse_arguments(parser, arguments)
    if options.fps is not None and not 0 < options.fps <= 1000:
        raise DataError(f"--fps {options.fps} is not above 0 and at most 1000")
    options.video = ([] if options.clip is None else [options.clip]) + options.video
    options.expression = options.find + options.expression
    if len(options.find) > 1 and not any(" " in each for each in options.find):
        quoted = ", ".join(f"'{each}'" for each in options.find)
        print(f"veason predict: {len(options.find)} expressions: {quoted}; quote one of several words", file=sys.stderr)
    return options


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options of `ModelOptions`."""
    parser.add_argument(
        "--model",
        help="the policy's checkpoint: a folder, or a name on the hub; the toy policy of the repository by default",
    )
    parser.add_argument("--tracker", default=DEFAULT, help=f"{', '.join(TRACKERS)}, or package.module:name")
    parser.add_argument(
        "--tracker_options", action="append", default=[], metavar="KEY=VALUE", help="may be given several times"
    )
    parser.add_argument("--sam2", help="SAM 2 weights, such as sam2.1_hiera_large.pt")
    parser.add_argument(
        "--sam2_config", help="a YAML file, or one that the sam2 package ships; told from the weights by default"
    )
    own = f"default: the checkpoint's {SETTINGS_FILE}, or"
    parser.add_argument("--settings", help=f"a {SETTINGS_FILE} in place of the checkpoint's")
    parser.add_argument("--sampled_frames", type=int, help=f"frames that the policy sees; {own} 8")
    parser.add_argument("--size", type=int, help=f"their side in pixels; {own} 560")
    parser.add_argument(
        "--prompt_template", help=f"question with {{expression}}, as text or as a path to a text file; {own} ours"
    )
    parser.add_argument(
        "--timestamp_mode",
        "--frame_index",
        choices=TIMESTAMP_MODES,
        help=f"what a frame's timestamp is; {own} absolute",
    )
    parser.add_argument("--answer_parser", choices=ANSWER_PARSERS, help=f"the format of answers; {own} strict")
    parser.add_argument("--repetition_penalty", type=float, help=f"of the sampling; {own} 1.0")
    parser.add_argument("--temperature", type=float, default=0.0, help="of sampling; 0 is greedy")
    parser.add_argument("--max_tokens", type=int, help="of an answer (1024; the toy policy 384)")


def read_model_options(options: argparse.Namespace, program: str = "veason predict") -> ModelOptions:
    """The models that a command line asks for, checked; warnings begin with the program's name. Raises DataError."""
    try:
        own: dict[str, Any] = dict(OmegaConf.from_dotlist(options.tracker_options))  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        raise DataError(f"--tracker_options {' '.join(options.tracker_options)}: {error}") from error
    if wrong := [each for each in options.tracker_options if "=" not in each]:
        raise DataError(f"--tracker_options {wrong[0]} is not KEY=VALUE")
    named = {"config": options.sam2_config, "checkpoint": options.sam2}
    named = {name: value for name, value in named.items() if value is not None}
    if named and options.tracker != DEFAULT:
        raise DataError(f"--sam2 and --sam2_config are options of the tracker {DEFAULT}, not of {options.tracker}")
    if "checkpoint" in named and not Path(named["checkpoint"]).is_file():
        raise DataError(f"--sam2 {named['checkpoint']} is no file")
    model_options = ModelOptions(
        options.model,
        options.tracker,
        named | own,
        options.size,
        options.sampled_frames,
        options.prompt_template,
        options.temperature,
        options.max_tokens,
        timestamp_mode=options.timestamp_mode,
        answer_parser=options.answer_parser,
        repetition_penalty=options.repetition_penalty,
        settings=options.settings,
    )
    model_options.check()
    for warning in model_options.warnings:
        print(f"{program}: {warning}", file=sys.stderr, flush=True)
    return model_options


def run(options: argparse.Namespace) -> list[Path]:
    """Check everything, load the models, and segment all clips; returns the pages. Raises DataError."""
    clips = read_clips(options.video, options.expression, options.clips)
    out = Path(options.out).expanduser() if options.out else DEFAULT_OUT / (clips[0].name if len(clips) == 1 else "")
    model_options = read_model_options(options)
    check_output_folder(out, 0)
    check_videos(clips, options.clips)
    progress = ConsoleProgress()
    started = time.perf_counter()
    videos = [open_video(clip.video, options.fps, progress) for clip in clips]
    decoding = (time.perf_counter() - started) / len(clips)
    needed = sum(
        estimate_bytes(len(frames), frames[0].shape, len(clip.expressions)) for frames, clip in zip(videos, clips)
    )
    check_output_folder(out, needed)
    make_output_folder(out)
    if model_options.is_toy:
        print(f"veason predict: {TOY_NOTICE}", file=sys.stderr, flush=True)
    pages: list[Path] = []
    with quiet_libraries(out / LIBRARY_LOG) as console:
        progress.stream = console
        for _ in progress(["models"], "loading the models"):
            models = model_options.load_policy(), model_options.load_tracker()
            segmenter = Segmenter(*models, **model_options.segmenter_options)
        policy = short_path(model_options.policy_path) if model_options.needs_policy else "none: the tracker takes text"
        facts = {"policy": policy, "tracker": describe_tracker(model_options)}
        for clip, frames, folder in zip(clips, videos, output_folders(clips, out)):
            written = predict_clip(segmenter, frames, clip, folder, facts, {"decoding": decoding}, progress)
            for page, outcome in written:
                print(f"{page}: {outcome}", file=console, flush=True)
            pages += [page for page, _ in written]
    return pages


def predict_clip(
    segmenter: Segmenter,
    frames: Frames,
    clip: ClipRequest,
    out: Path,
    facts: dict[str, str] | None = None,
    seconds: dict[str, float] | None = None,
    progress: Progress = no_progress,
) -> list[tuple[Path, str]]:
    """Segment all expressions of a clip and write everything; memory does not grow with the video's length.

    The results of earlier calls stay: a new one gets the number after the highest.

    Returns:
        The page of each expression, and what was found.
    """
    first = next_number(out)
    started = time.perf_counter()
    answers = segmenter.generate_answers(frames, clip.expressions, progress)
    took = {**(seconds or {}), "thinking": time.perf_counter() - started}
    found = segmenter.track_answers(frames, clip.expressions, answers, took, progress)
    written = []
    for number, result in enumerate(found, start=first):
        described = replace(result, facts={"file": os.path.basename(clip.video), **(facts or {})})
        page = described.save(out / f"{number:02d}", progress)
        warning = f". {result.warning}" if result.warning else ""
        written.append((page, f"{result.expression!r}: {result.outcome}{warning}"))
    return written


def next_number(out: Path) -> int:
    """The number of the next result in a folder: one more than the highest that is there."""
    numbers = [int(path.name) for path in out.glob("[0-9]*") if path.name.isdecimal()]
    return max(numbers, default=-1) + 1


def describe_tracker(model_options: ModelOptions) -> str:
    """The tracker's name and weights."""
    checkpoint = model_options.tracker_options.get("checkpoint")
    return f"{model_options.tracker} {short_path(checkpoint)}" if checkpoint else model_options.tracker


def short_path(path: str | Path) -> str:
    """A path, relative to the working folder where it lies within."""
    absolute, here = Path(path).absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else path)


if __name__ == "__main__":
    sys.exit(main())
