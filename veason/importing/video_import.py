"""Imports one video: its frames as JPEGs, and the masks of its objects on them.

A video is done when its record, `import/<video>.json` in the output folder, is written; a run that was killed begins
with the first one that is not.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from veason import masks
from veason.data.sample import read_json
from veason.errors import DataError
from veason.files import write_json
from veason.frames import frame_size
from veason.importing.annotations import AnnotatedVideo
from veason.importing.kept_frames import KeptFrames, choose_frames, frames_at_rate
from veason.importing.masks_from_boxes import MasksFromBoxes
from veason.importing.picture_files import is_upright_jpeg
from veason.importing.source_clips import SourceClip, decode_frames

JPEG = {"quality": 95, "subsampling": 0}
IMPORT_FOLDER = "import"  # folder of the records, below the output folder

ImportedVideo = dict[str, Any]  # the record of a video, see `import_video`


@dataclass(frozen=True)
class ImportOptions:
    """What decides about the frames and masks of an import; recorded in it, and the same for all its videos.

    Attributes:
        fps: frames per second to keep of video files.
        unannotated: "refuse", or "drop" for frames without an annotation.
        boxes: "refuse", or "track" for objects that have boxes and no masks.
        link: pictures are linked instead of copied, where they are JPEGs.
        first_frame: number of a video file's first frame.
        numbering: "source", or "kept" where the annotation numbers the kept frames of a video file.
        tracker, tracker_options: for boxes.
    """

    fps: float | None = None
    unannotated: str = "refuse"
    boxes: str = "refuse"
    link: bool = False
    first_frame: int = 0
    numbering: str = "source"
    tracker: str = "sam2"
    tracker_options: dict[str, Any] = field(default_factory=dict)

    def recorded(self) -> dict[str, Any]:
        """As JSON; the tracker and another numbering only where they are used."""
        content = asdict(self)
        if self.numbering == "source":
            del content["numbering"]
        if self.boxes != "track":
            del content["tracker"], content["tracker_options"]
        return content


def record_path(output: Path, name: str) -> Path:
    return output / IMPORT_FOLDER / f"{name}.json"


def find_imported_video(output: Path, video: AnnotatedVideo, options: ImportOptions) -> ImportedVideo | None:
    """The record of a video that has been imported as it is now; None when it has to be imported."""
    path = record_path(output, video.name)
    if not path.is_file():
        return None
    record = read_json(path)
    frames = output / "JPEGImages" / video.name
    whole = record.get("state") == video.state(options.recorded()) and frames.is_dir()
    return record if whole else None


def import_video(
    video: AnnotatedVideo, output: Path, options: ImportOptions, track: MasksFromBoxes | None
) -> ImportedVideo:
    """Write the frames and the record of a video.

    Args:
        track: for objects that have boxes alone; None refuses them.

    Raises:
        DataError: a frame or mask cannot be read or does not fit, or frames have no annotation; names the video.
    """
    boxed = [name for name, each in video.objects.items() if each.mask is None]
    if boxed and track is None:
        raise DataError(
            f"video {video.name}: object {boxed[0]} has boxes and no masks: --boxes track makes masks of them"
        )
    frames = _choose(video, options)
    final = output / "JPEGImages" / video.name
    partial = final.with_name(f".{final.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        height, width = write_frames(video.clip, frames.kept, partial, options.link)
        video.check_frame_size(height, width)
        objects = {
            name: {
                "anno_id": f"{video.name}/{name}",
                "category": each.category,
                "masks_from": "annotation",
                "masks": [masks.as_json(each.mask(position, height, width)) for position in frames.kept],
            }
            for name, each in video.objects.items()
            if each.mask is not None
        }
        for name in boxed:
            assert track is not None
            tracked = track(video.name, name, video.objects[name].boxes, partial, frames.kept)
            objects[name] = {"anno_id": f"{video.name}/{name}", "category": video.objects[name].category, **tracked}
        if final.exists():
            shutil.rmtree(final)
        os.replace(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    record = {
        "video": video.name,
        "state": video.state(options.recorded()),
        "source": str(video.clip.path),
        "source_frames": frames.kept,
        "unannotated": len(frames.unannotated),
        "frames": len(frames.kept),
        "height": height,
        "width": width,
        "objects": objects,
    }
    write_json(record_path(output, video.name), record, indent=None)
    return record


def _choose(video: AnnotatedVideo, options: ImportOptions) -> KeptFrames:
    clip, objects = video.clip, video.objects.values()
    if not clip.pictures and options.fps is None:
        raise DataError(f"{clip.path} is a video file: give --fps, since a frame's index is its timestamp in seconds")
    annotated: set[int] | None = None  # boxes are tracked through every frame
    for each in objects:
        if each.mask is not None:
            annotated = set(each.annotated) if annotated is None else annotated & each.annotated
    frames = choose_frames(clip, options.fps, annotated)
    if frames.unannotated and options.unannotated == "refuse":
        total, first = len(frames.kept) + len(frames.unannotated), frames.unannotated[0]
        shown = clip.pictures[first].name if clip.pictures else f"number {clip.number(first)}"
        raise DataError(
            f"video {video.name}: {len(frames.unannotated)} of {total} frames have no annotation, first {shown}; they "
            f"are not taken as frames without the object: {_advice(clip, options, annotated or set())}"
        )
    if not frames.kept:
        raise DataError(f"video {video.name}: no frame is annotated for all its objects")
    return frames


def _advice(clip: SourceClip, options: ImportOptions, annotated: set[int]) -> str:
    """What to do about frames without an annotation; masks that seem to be numbered by kept frame are told of."""
    drop = "--unannotated drop leaves them out"
    if clip.times is None or options.fps is None or options.numbering == "kept":
        return drop
    expected, numbers = frames_at_rate(clip.times, options.fps), sorted(annotated)
    consecutive = len(numbers) > 1 and numbers[-1] - numbers[0] == len(numbers) - 1
    if not consecutive or len(numbers) > len(expected) or clip.total == len(expected):
        return drop
    first, *_, last = (number + clip.first_frame for number in numbers)
    wanted = ", ".join(str(position + clip.first_frame) for position in expected[:4])
    return (
        f"the masks are {first} to {last}, consecutive: are they numbered by kept frame? Then --numbering kept. "
        f"A mask has the frame's number in the source video: at --fps {options.fps:g} these are about {wanted}"
        f"{', ...' if len(expected) > 4 else ''}. Otherwise {drop}"
    )


def write_frames(clip: SourceClip, kept: Sequence[int], folder: Path, link: bool) -> tuple[int, int]:
    """Write the frames of a video as 00000.jpg, 00001.jpg, ... Returns their height and width in pixels.

    JPEGs are copied, or linked; everything else is encoded.

    Raises:
        DataError: a frame cannot be read, or frames differ in size.
    """
    size: tuple[int, int] | None = None
    frames: Iterable[Path | np.ndarray] = (
        (clip.pictures[position] for position in kept) if clip.pictures else decode_frames(clip, kept)
    )
    for number, source in enumerate(frames):
        target = folder / f"{number:05d}.jpg"
        if isinstance(source, np.ndarray):
            Image.fromarray(source).save(target, **JPEG)
        elif not is_upright_jpeg(source):
            _convert(source, target)
        elif link:
            target.symlink_to(source.resolve())
        else:
            shutil.copyfile(source, target)
        found = frame_size(target)
        size = size or found
        if found != size:
            shown, first = ("x".join(map(str, each)) for each in (found, size))
            raise DataError(f"video {clip.path}: frame {kept[number]} is {shown}, the first is {first}")
    assert size is not None
    return size


def _convert(source: Path, target: Path) -> None:
    try:
        with Image.open(source) as picture:
            ImageOps.exif_transpose(picture).convert("RGB").save(target, **JPEG)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"frame cannot be read: {source} ({error})") from error


def needed_bytes(videos: Sequence[AnnotatedVideo], options: ImportOptions) -> int:
    """About how many bytes the frames of these videos will take."""
    written = [video.clip for video in videos if not (video.clip.pictures and options.link)]
    return sum(path.stat().st_size for clip in written for path in clip.pictures or (clip.path,))


def without_masks(record: ImportedVideo) -> ImportedVideo:
    """A record as it is kept in memory; `read_masks` has the rest."""
    objects = {
        name: {key: value for key, value in each.items() if key != "masks"} for name, each in record["objects"].items()
    }
    return {**record, "objects": objects}


def read_masks(output: Path, name: str) -> dict[str, list[dict[str, Any] | None]]:
    """Object id -> its masks, of an imported video."""
    return {object_id: each["masks"] for object_id, each in read_json(record_path(output, name))["objects"].items()}
