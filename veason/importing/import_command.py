"""Brings videos with masks into the form that everything else here reads (that of ReVOS).

    veason data import dogs --output data/dogs                               PNG masks, videos as folders of pictures
    veason data import coco --output data/coco --fps 1 --captions texts.csv  COCO masks, video files

SOURCE is (a) a folder with videos and a COCO file, (b) a folder with PNG masks in the manner of DAVIS and YouTube-VOS,
Annotations/<video>/<frame>.png, or (c) a file of JSON lines {video, expression, masks or boxes}. The same command
continues an import that was stopped, and imports what is new or has changed. docs/own_data.md has each form.

A frame's index is its timestamp in seconds, so video files need --fps. A frame without an annotation is not a frame
without the object: such frames are refused, or left out with --unannotated drop.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from tqdm import tqdm

from veason.audit.command import audit, write_report
from veason.data.base import VideoBenchmark
from veason.data.revos import ReVOS
from veason.data.revos_objects import ReVOSObjects
from veason.data.sample import read_json
from veason.errors import DataError, describe
from veason.files import write_json
from veason.hub.data_card import CARD_FILE, write_card
from veason.importing import coco_format, png_format
from veason.importing.annotations import AnnotatedVideo, SourceFiles
from veason.importing.captions import read_captions
from veason.importing.import_arguments import READERS, read_options
from veason.importing.import_summary import next_command, summary_lines
from veason.importing.masks_from_boxes import MasksFromBoxes
from veason.importing.revos_writer import collect_expressions, write_annotation_files
from veason.importing.video_import import (
    IMPORT_FOLDER,
    ImportedVideo,
    ImportOptions,
    find_imported_video,
    import_video,
    needed_bytes,
    without_masks,
)
from veason.tracking import build_tracker, check_takes_boxes, check_tracker

REFUSED = "refused"  # key of import/options.json: the source was refused, so other options may be tried
SPARE_BYTES = 1 << 28  # of the disk that are left free


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 0, or 2 when the source cannot be imported."""
    args = read_options(arguments, __doc__)
    try:
        run_import(args)
    except (DataError, OSError) as error:
        print(f"veason data import: {describe(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped: the same command continues", file=sys.stderr)
        return 130
    return 0


def run_import(args: argparse.Namespace) -> None:
    """Import everything, write the annotation files, audit them and print a summary."""
    options, form = import_options(args), source_format(args)
    videos = read_source(args, form)
    record = check_output(args.output, args.source, options)
    recorded = {**options.recorded(), "format": form}
    write_json(record, recorded)
    try:
        imported = import_all(videos, args.output, options)
        given = {video.name: video.expressions for video in videos}
        texts = {
            name: collect_expressions(video, given[name], args.category_expressions) for name, video in imported.items()
        }
    except DataError:
        write_json(record, {**recorded, REFUSED: True})
        raise
    splits = write_annotation_files(args.output, imported, texts, args.val_ratio, args.seed)
    excluded = run_audit(args.output, splits, texts)
    written = write_card(args.output)
    print("\n".join(summary_lines(args.output, imported, texts, splits)))
    print(f"data card: {args.output / CARD_FILE}" + ("" if written else " is your own, and stays as it is"))
    if (args.output / "describe" / "journal.jsonl").is_file():
        print("the expressions of `veason data describe` are no longer in: run it again, no request is repeated")
    print(next_command(args.output, sum(map(len, texts.values())), excluded))


def import_options(args: argparse.Namespace) -> ImportOptions:
    """Raises DataError for a tracker that cannot be built."""
    tracker_options: dict[str, Any] = {}
    if args.boxes == "track":
        published = {"sam2_config": args.sam2_config, "sam2_checkpoint": args.sam2}
        own = OmegaConf.to_container(OmegaConf.from_dotlist(args.tracker_options))
        assert isinstance(own, dict)
        tracker_options = {**published, **{str(key): value for key, value in own.items()}}
        if args.tracker == "sam2" and not tracker_options["sam2_checkpoint"]:
            raise DataError("--boxes track needs --sam2: the weights of SAM 2, such as sam2.1_hiera_large.pt")
        check_takes_boxes(args.tracker, "--boxes track gives it the boxes")
        check_tracker(args.tracker, tracker_options)
    return ImportOptions(
        args.fps,
        args.unannotated,
        args.boxes,
        args.link,
        args.first_frame,
        args.numbering,
        args.tracker,
        tracker_options,
    )


def source_format(args: argparse.Namespace) -> str:
    """The format of the source, given or detected.

    Raises:
        DataError: the source is missing, or of no known format.
    """
    source: Path = args.source
    if not source.exists():
        raise DataError(f"SOURCE is missing: {source}")
    for path, name in ((args.videos, "--videos"), (args.annotations, "--annotations")):
        if path is not None and not path.exists():
            raise DataError(f"{name} is missing: {path}")
    kind = args.format or detect_format(source, args.annotations)
    if (kind == "jsonl") != source.is_file():
        raise DataError(f"{source}: --format {kind} takes a {'file' if kind == 'jsonl' else 'folder'}")
    return kind


def read_source(args: argparse.Namespace, form: str) -> list[AnnotatedVideo]:
    """The videos of the source. Raises DataError."""
    captions = read_captions(args.captions) if args.captions else {}
    kept_fps = args.fps if args.numbering == "kept" else None
    videos = READERS[form](SourceFiles(args.source, args.videos, args.annotations, args.first_frame, kept_fps))
    if unknown := set(captions) - {video.name for video in videos}:
        annotated = args.annotations or args.source
        raise DataError(f"captions: video {sorted(unknown)[0]!r} has no masks or boxes in {annotated}")
    for video in videos:
        video.expressions += captions.get(video.name, ())
    return videos


def detect_format(source: Path, annotations: Path | None) -> str:
    """The format of a source. Raises DataError when it has none or several."""
    if source.is_file():
        return "jsonl"
    if annotations is not None:
        return "png" if annotations.is_dir() else "coco"
    found = [
        kind
        for kind, matches in (("png", png_format.matches(source)), ("coco", coco_format.find_annotation(source)))
        if matches
    ]
    if len(found) != 1:
        holds = "both PNG masks and a COCO file" if found else "neither a folder Annotations of PNGs nor a COCO file"
        raise DataError(f"{source} holds {holds}: give --format, or --annotations")
    return found[0]


def check_output(output: Path, source: Path, options: ImportOptions) -> Path:
    """Refuse a folder that holds other things, or an import with other options. Returns the file of the options.

    Other options may be used where nothing was finished: no video, or the source was refused before all videos were.

    Raises:
        DataError: in one line.
    """
    inside = source.resolve() if source.is_dir() else source.resolve().parent
    if output.resolve() == inside:
        raise DataError(f"--output {output} is the source itself: choose another folder")
    record = output / IMPORT_FOLDER / "options.json"
    if output.exists() and not output.is_dir():
        raise DataError(f"--output {output} is a file")
    if not record.is_file() and output.is_dir() and any(output.iterdir()):
        raise DataError(f"--output {output} holds files that no import made: choose an empty folder")
    recorded = options.recorded()
    known = read_json(record) if record.is_file() else dict(recorded)
    known.pop("format", None)
    refused = known.pop(REFUSED, False) or not any(path != record for path in record.parent.rglob("*.json"))
    finished = (output / "mask_dict.json").is_file()
    if known != recorded and (finished or not refused):
        changed = [key for key in {**known, **recorded} if known.get(key) != recorded.get(key)]
        shown = ", ".join(f"{key} {known.get(key)} -> {recorded.get(key)}" for key in changed)
        remedy = "choose another folder, or delete this one"
        raise DataError(f"--output {output} was imported with other options ({shown}): {remedy}")
    return record


def import_all(videos: Sequence[AnnotatedVideo], output: Path, options: ImportOptions) -> dict[str, ImportedVideo]:
    """Import what is not yet. Returns the records of all videos, without masks, in the source's order."""
    finished = {video.name: find_imported_video(output, video, options) for video in videos}
    todo = [video for video in videos if finished[video.name] is None]
    needed, free = needed_bytes(todo, options) + SPARE_BYTES, shutil.disk_usage(output).free
    if todo and needed > free:
        raise DataError(f"{output}: the frames take about {needed >> 20} MiB, the disk has {free >> 20} MiB left")
    track = None
    if options.boxes == "track" and any(each.mask is None for video in todo for each in video.objects.values()):
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        track = MasksFromBoxes(build_tracker(options.tracker, device, **options.tracker_options), options.tracker)
    if len(todo) < len(videos):
        print(f"{len(videos) - len(todo)} of {len(videos)} videos were imported before", flush=True)
    for video in tqdm(todo, "importing", unit="video", mininterval=1):
        finished[video.name] = import_video(video, output, options, track)
    return {name: without_masks(record) for name, record in finished.items() if record is not None}


def run_audit(output: Path, splits: Mapping[str, Sequence[str]], texts: Mapping[str, Sequence[Any]]) -> int:
    """Audit what was written, objects where there are no expressions; returns how many samples are to be left out."""
    benchmarks: list[VideoBenchmark] = []
    for split, names in splits.items():
        if names:
            cls = ReVOS if any(texts[name] for name in names) else ReVOSObjects
            benchmarks.append(cls(output, split))
    findings = [finding for benchmark in benchmarks for finding in audit(benchmark)]
    return len(write_report(output / "audit", benchmarks, findings, pictures=4))


if __name__ == "__main__":
    sys.exit(main())
