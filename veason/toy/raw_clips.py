"""Draws clips as somebody has them who starts: video files, PNG masks, expressions in a CSV; for docs/own_data.md.

    python -m veason.toy.raw_clips --output clips
    python -m veason.toy.raw_clips --output clips --clips 20 --seed 1

CLIPS/videos/<clip>.mp4 has a frame a second, CLIPS/Annotations/<clip>/<frame>.png the number of the object of each
pixel. `scenes.json` is for the toy teacher alone.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from veason.command_line import HelpFormatter, parse_arguments
from veason.importing.annotations import EXPRESSION_TYPES
from veason.toy.toy_video import ToyVideo, scene_meta, write_clip, write_masks, write_scenes
from veason.toy.world import make_videos

FPS = 1  # in the toy world a frame is a second


def write_raw_clips(root: Path, videos: Sequence[ToyVideo]) -> None:
    """Write clips, masks, expressions and the teacher's facts."""
    (root / "videos").mkdir(parents=True)
    for video in videos:
        write_clip(root / "videos" / f"{video.name}.mp4", video.frames, FPS)
        write_masks(root / "Annotations" / video.name, video.frame_names, object_numbers(video))
    with open(root / "captions.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("video", "object", "expression", "type"))
        names = {number: name for name, number in EXPRESSION_TYPES.items()}
        for video in videos:
            for query in video.queries:
                objects = " ".join(str(shape + 1) for shape in query.targets)
                rows.writerow((video.name, objects, query.text, names[query.type_id]))
    write_scenes(root, {video.name: scene_meta(video) for video in videos}, "train")


def object_numbers(video: ToyVideo) -> np.ndarray:
    """The number of each pixel's object, from 1, uint8 [T, H, W]; 0 is none."""
    numbers = np.zeros(video.frames.shape[:3], np.uint8)
    for shape in range(len(video.facts)):
        numbers[video.union([shape])] = shape + 1
    return numbers


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--clips", type=int, default=10, help="how many")
    parser.add_argument("--frames", type=int, default=16, help="of a clip, about")
    parser.add_argument("--queries", type=int, default=4, help="expressions of a clip, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes")
    options = parse_arguments(parser, arguments)
    if options.output.exists():
        parser.error(f"--output {options.output} is there already")
    write_raw_clips(options.output, make_videos("clip", options.clips, options.seed, options.frames, options.queries))
    print(f"{options.output}: {options.clips} clips with masks and captions.csv")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
