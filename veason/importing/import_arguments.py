"""The options of `veason data import`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from veason.command_line import HelpFormatter, parse_arguments
from veason.importing import coco_format, jsonl_format, png_format
from veason.tracking import TRACKERS

READERS = {"coco": coco_format.read_coco, "png": png_format.read_png, "jsonl": jsonl_format.read_jsonl}


def read_options(arguments: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="veason data import", description=description, formatter_class=HelpFormatter)
    parser.add_argument("source", type=Path, help="a folder, or a file of JSON lines")
    add = parser.add_argument_group("source").add_argument
    add("--format", choices=list(READERS), help="of the annotation; detected by default")
    add("--videos", type=Path, help="folder of the videos, where it is not found in SOURCE")
    add("--annotations", type=Path, help="the COCO file or the folder of PNGs, where it is not found in SOURCE")
    add("--captions", type=Path, help="expressions: .json, .csv, .tsv or .txt; see docs/own_data.md")
    add("--category_expressions", action="store_true", help="COCO: also each category as an expression")

    add = parser.add_argument_group("frames and masks").add_argument
    add("--fps", type=float, help="frames per second to keep of video files; pictures are taken as they are")
    add("--first_frame", type=int, default=0, help="number of a video file's first frame in the masks (%(default)s)")
    add(
        "--numbering",
        choices=("source", "kept"),
        default="source",
        help="what masks of a video file are numbered by: all frames of the file, or those kept by --fps (%(default)s)",
    )
    add(
        "--unannotated",
        choices=("refuse", "drop"),
        default="refuse",
        help="what to do about frames without an annotation (%(default)s)",
    )
    add(
        "--boxes",
        choices=("refuse", "track"),
        default="refuse",
        help="objects with boxes and no masks: track makes masks of them, marked as such (%(default)s)",
    )
    add("--tracker", default="sam2", help=f"for --boxes track: {', '.join(TRACKERS)}, or package.module:name")
    add("--tracker_options", action="append", default=[], metavar="KEY=VALUE", help="may be given several times")
    add("--sam2", help="SAM 2 weights, such as sam2.1_hiera_large.pt")
    add("--sam2_config", default="configs/sam2.1/sam2.1_hiera_l.yaml", help="their configuration (%(default)s)")

    add = parser.add_argument_group("output").add_argument
    add("--output", type=Path, required=True, help="folder of the data set")
    add("--link", action="store_true", help="link JPEG frames instead of copying them")
    add("--val_ratio", type=float, default=0.1, help="share of the videos for validation (%(default)s)")
    add("--seed", type=int, default=0, help="of the split (%(default)s)")

    options = parse_arguments(parser, arguments)
    if options.fps is not None and not 0 < options.fps <= 1000:
        parser.error(f"--fps {options.fps:g}: between 0 and 1000 frames per second")
    if not 0 <= options.val_ratio < 1:
        parser.error(f"--val_ratio {options.val_ratio:g}: at least 0 and below 1")
    if options.numbering == "kept" and options.fps is None:
        parser.error("--numbering kept: needs --fps, which says what frames are kept")
    if options.first_frame < 0:
        parser.error(f"--first_frame {options.first_frame}: at least 0")
    return options
