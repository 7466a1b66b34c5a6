"""The videos of a source: files, or folders of pictures, with their frames in natural order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from veason.errors import DataError
from veason.importing.kept_frames import frames_at_rate
from veason.video.natural_order import natural_key
from veason.video.sources import PICTURES
from veason.video.video_file import open_container, to_picture

VIDEO_FOLDERS = ("JPEGImages", "videos", "frames")  # folders of a source that hold its videos
VIDEOS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ogv", ".wmv", ".gif")


@dataclass(frozen=True)
class SourceClip:
    """One video of the source.

    Attributes:
        name: its path below the folder of the videos, without suffix; names it in the output.
        path: a video file, or a folder of pictures.
        pictures: the pictures of a folder, in natural order; () for a file.
        first_frame: number of a video file's first frame in the annotation, 0 or 1 mostly.
        kept_fps: where the annotation of a video file numbers the frames that are kept at so many frames a second, and
            not those of the file.
    """

    name: str
    path: Path
    pictures: tuple[Path, ...] = ()
    first_frame: int = 0
    kept_fps: float | None = None

    @cached_property
    def timestamps(self) -> tuple[list[int], float]:
        """Of a video file: the time stamps of all frames in the order shown, and the seconds of a unit."""
        return read_timestamps(self.path)

    @property
    def total(self) -> int:
        """Number of frames in the source."""
        return len(self.pictures) or len(self.timestamps[0])

    @property
    def times(self) -> list[float] | None:
        """Seconds of each frame from the first one on; None for pictures, which have none."""
        if self.pictures:
            return None
        timestamps, unit = self.timestamps
        return [(stamp - timestamps[0]) * unit for stamp in timestamps]

    @cached_property
    def kept(self) -> list[int]:
        """Of a video file: the positions that the numbers of the annotation stand for, where `kept_fps` is given."""
        assert self.times is not None and self.kept_fps is not None
        return frames_at_rate(self.times, self.kept_fps)

    def number(self, position: int) -> int:
        """The number by which an annotation names a frame of a video file."""
        return (position if self.kept_fps is None else self.kept.index(position)) + self.first_frame

    @property
    def numbers(self) -> str:
        """How the annotation has to number the frames of a video file, as text."""
        kept = "" if self.kept_fps is None else f"{len(self.kept)} kept of "
        return f"{kept}{self.total} frames, the first is number {self.first_frame}"

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {picture.stem: position for position, picture in enumerate(self.pictures)}

    def frame(self, name: str | int) -> int | None:
        """The position of a frame that an annotation names; None when there is none.

        Args:
            name: the name of a picture (without suffix), or the frame's number: in a folder its position, in a file
                counted from `first_frame`, among the kept frames with `kept_fps`; `frame_000012` is number 12.
        """
        if self.pictures and str(name) in self._positions:
            return self._positions[str(name)]
        digits = re.findall(r"\d+", str(name))
        if not digits:
            return None
        number = int(digits[-1]) - (0 if self.pictures else self.first_frame)
        if self.kept_fps is not None and not self.pictures:
            return self.kept[number] if 0 <= number < len(self.kept) else None
        return number if 0 <= number < self.total else None

    def state(self) -> list[Any]:
        """What changes when the video does: names, sizes and times of change of its files."""
        files = self.pictures or (self.path,)
        return [[file.name, (found := file.stat()).st_size, found.st_mtime_ns] for file in files]


def find_clips(
    folder: Path, first_frame: int = 0, leave_out: Sequence[Path] = (), kept_fps: float | None = None
) -> dict[str, SourceClip]:
    """All videos below a folder by name, in natural order.

    Args:
        first_frame, kept_fps: how the annotation numbers the frames of a video file (see `SourceClip`).
        leave_out: folders that hold no videos, such as those of PNG masks.

    Raises:
        DataError: the folder is missing or holds no video, or two videos have one name.
    """
    if not folder.is_dir():
        raise DataError(f"folder of videos is missing: {folder}")
    found: dict[str, SourceClip] = {}
    excluded = {path.resolve() for path in leave_out}
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = Path(parent)
        folders[:] = [name for name in folders if not name.startswith(".") and (here / name).resolve() not in excluded]
        paths = [here / name for name in files if not name.startswith(".")]  # macOS writes ._name beside each file
        clips = [
            SourceClip(path.relative_to(folder).with_suffix("").as_posix(), path, (), first_frame, kept_fps)
            for path in paths
            if path.suffix.lower() in VIDEOS
        ]
        if pictures := sorted((path for path in paths if path.suffix.lower() in PICTURES), key=natural_file_key):
            name = here.relative_to(folder).as_posix() if here != folder else folder.resolve().name
            clips.append(SourceClip(name, here, tuple(pictures)))
        for clip in clips:
            if clip.name in found:
                raise DataError(f"{clip.path} and {found[clip.name].path} would both be video {clip.name!r}")
            found[clip.name] = clip
    if not found:
        raise DataError(f"no video in {folder}: neither files ({', '.join(VIDEOS)}) nor folders of pictures")
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def natural_file_key(path: Path) -> Any:
    """Sorts the files of one folder in natural order."""
    return natural_key(path.name)


def read_timestamps(path: Path) -> tuple[list[int], float]:
    """The time stamps of a video file's frames in the order shown, without decoding, and the seconds of a unit.

    Raises:
        DataError: no video, or frames without times.
    """
    import av

    try:
        with open_container(path) as container:
            stream = container.streams.video[0]
            timestamps = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
            unit = float(stream.time_base or 0)
    except av.FFmpegError as error:
        raise DataError(f"{path} cannot be read as a video ({error.strerror})") from error
    if not timestamps:
        raise DataError(f"{path} holds no frames")
    known = sorted(stamp for stamp in timestamps if stamp is not None)
    if len(known) < len(timestamps) or len(set(known)) < len(known) or not unit:
        raise DataError(f"{path}: its frames have no times; convert it, for example by ffmpeg -i {path.name} clip.mp4")
    return known, unit


def decode_frames(clip: SourceClip, wanted: Sequence[int]) -> Iterator[np.ndarray]:
    """The frames of a video file at these positions, uint8 [H, W, 3] RGB, turned as a player shows them.

    Args:
        wanted: increasing.

    Raises:
        DataError: the file is damaged or cut short before one of them.
    """
    import av

    timestamps, _ = clip.timestamps
    due = {timestamps[position]: position for position in wanted}
    given = 0
    try:
        with open_container(clip.path) as container:
            for frame in container.decode(container.streams.video[0]):
                if frame.pts is None or due.pop(frame.pts, None) is None:
                    continue
                yield to_picture(frame)
                given += 1
                if not due:
                    return
    except av.FFmpegError as error:
        raise DataError(f"{clip.path} is damaged after {given} frames ({error.strerror})") from error
    raise DataError(f"{clip.path} is cut short: frame {min(due.values())} cannot be decoded")
