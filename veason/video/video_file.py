"""A video file as a sequence of frames: nothing is written to the disk, and a bounded part of it is in memory.

The file is decoded once when it is opened, which finds every frame, its time and any damage. A frame is decoded again
when it is asked for, from the nearest key picture before it; the last frames stay in memory, so reading backward
decodes each group of pictures a few times, not once a frame.
"""

from __future__ import annotations

import math
import threading
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from veason.errors import DataError
from veason.progress_bar import Progress, no_progress

TIME_TOLERANCE = 1e-3  # seconds: some containers round times to milliseconds
MIN_DECODED = 0.95  # of the frames that the file says it has; an edit list may hide a few
CACHE_BYTES = 256 << 20  # decoded frames in memory, as the decoder gives them (1.5 bytes a pixel mostly)


@dataclass(frozen=True)
class FrameIndex:
    """Where the frames of a file are."""

    kept: list[int]  # the number of each frame of the sequence among those of the file
    times: list[float | None]  # seconds of each frame of the sequence since the file's first; None: it has no time
    numbers: dict[int, int]  # time stamp -> number; empty where some are missing or repeated, and nothing can be sought
    seekable: list[tuple[int, int]]  # (number, time stamp) of the pictures that decoding may start at, in order
    checksums: list[int]  # of each frame of the file, to be sure that a frame found by seeking is the right one


class VideoFile(Sequence[np.ndarray]):
    """The frames of a video file; frame t is decoded when it is indexed, uint8 [H, W, 3] RGB, as a player shows it.

    Threads may read side by side. Close it when the frames are no longer needed, or use it in a `with` statement.

    Args:
        path: any file that FFmpeg reads.
        fps: keep so many frames a second: the first one not before 0, 1/fps, 2/fps, ... seconds, one for all of these
            that lie in a gap between two frames. None keeps all.
        cache_bytes: decoded frames that are kept in memory, at least two.
        progress: shows how far the first decoding has come.

    Attributes:
        fps: frames a second of the sequence.
        shape: height, width and 3.

    Raises:
        DataError: the file is missing, no video, damaged, or holds no frame; the size of its frames changes; or its
            frames have no times and `fps` is given.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float | None = None,
        cache_bytes: int = CACHE_BYTES,
        progress: Progress = no_progress,
    ) -> None:
        self.path = Path(path)
        self.cache_bytes = cache_bytes
        self.cache: OrderedDict[int, Any] = OrderedDict()  # number in the file -> av.VideoFrame
        self.lock = threading.Lock()
        self.container: Any = None
        self.decoded: Iterator[tuple[int, Any]] = iter(())
        self.position = 0  # number of the next frame that `decoded` gives
        self.file_index, self.shape, self.fps = self._read_index(fps, progress)
        self.kept = frozenset(self.file_index.kept)

    @property
    def source_frames(self) -> list[int]:
        """The number of each frame of the sequence among those of the file, from 0."""
        return self.file_index.kept

    @property
    def source_seconds(self) -> list[float | None]:
        """The time of each frame of the sequence since the first of the file; None where the file gives none."""
        return self.file_index.times

    def __len__(self) -> int:
        return len(self.file_index.kept)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        number = self.file_index.kept[index]
        with self.lock:
            if number not in self.cache:
                self._find(number)
            self.cache.move_to_end(number)
            return to_picture(self.cache[number])

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the file and the frames in memory; a frame that is asked for later opens it again."""
        with self.lock:
            self.cache.clear()
            self._close_container()

    def _read_index(self, fps: float | None, progress: Progress) -> tuple[FrameIndex, tuple[int, int, int], float]:
        import av

        stamps: list[int | None] = []
        kept, times, checksums, keys, shape = [], [], [], set(), None
        with open_container(self.path) as container:
            stream = container.streams.video[0]
            declared, rate = stream.frames, float(stream.average_rate or stream.guessed_rate or 1)
            sampled = FrameRateSampler(fps)
            try:
                for number, frame in enumerate(progress(container.decode(stream), "decoding", frame_count(stream))):
                    shape = shape or shown_shape(frame)
                    if shown_shape(frame) != shape:
                        sizes = f"{shape[:2]} to {shown_shape(frame)[:2]}"
                        raise DataError(f"{self.path}: the size of the frames changes from {sizes}")
                    if fps is not None and frame.time is None:
                        raise DataError(f"{self.path}: a frame has no time, so fps cannot be used; leave it out")
                    stamps.append(frame.pts)
                    checksums.append(checksum(frame))
                    if frame.key_frame:
                        keys.add(number)
                    if sampled(frame.time):
                        kept.append(number)
                        times.append(frame.time)
            except av.FFmpegError as error:
                reason = f"{len(stamps)} frames can be decoded ({error.strerror})"
                raise DataError(f"{self.path} is damaged: {reason}") from error
        if shape is None:
            raise DataError(f"{self.path} holds no frames")
        if declared and len(stamps) < MIN_DECODED * declared:
            raise DataError(f"{self.path} is cut short or damaged: {len(stamps)} of {declared} frames can be decoded")
        numbers = {stamp: number for number, stamp in enumerate(stamps) if stamp is not None}
        if len(numbers) < len(stamps):
            numbers = {}
        seekable = [(number, stamp) for stamp, number in numbers.items() if number in keys]
        start = times[0]  # the first frame is always kept
        passed = [None if time is None or start is None else round(time - start, 6) for time in times]
        return FrameIndex(kept, passed, numbers, seekable, checksums), shape, min(fps or rate, rate)

    def _find(self, number: int) -> None:
        """Decode up to a frame of the file. Raises DataError when the file has changed."""
        import av

        try:
            self._decode_to(number)
        except av.FFmpegError as error:
            raise DataError(f"{self.path} has changed since it was opened ({error.strerror})") from error

    def _decode_to(self, number: int) -> None:
        """Decode up to a frame of the file, keeping in memory what comes before it as far as there is room."""
        key = bisect_right(self.file_index.seekable, number, key=lambda each: each[0]) - 1
        first = self.file_index.seekable[key][0] if key >= 0 else 0
        if self.container is None or not first <= self.position <= number:
            self._start_at(key)
        for found, frame in self.decoded:
            if found != self.position or self.file_index.checksums[found] != checksum(frame):
                break
            self.position = found + 1
            if found in self.kept:
                self._remember(found, frame)
            if found == number:
                return
        if not self.file_index.seekable:
            raise DataError(f"{self.path} has changed since it was opened: frame {number} is another one")
        # Some files cannot be decoded from within: from their start then, now and from here on.
        self.file_index.seekable.clear()
        self._start_at(-1)
        self._decode_to(number)

    def _start_at(self, key: int) -> None:
        """Continue decoding at a picture of `seekable`, or at the start of the file (-1)."""
        self._close_container()
        self.container = open_container(self.path)
        stream = self.container.streams.video[0]
        if key < 0:
            self.position = 0
            self.decoded = enumerate(self.container.decode(stream))
        else:
            self.position, stamp = self.file_index.seekable[key]
            self.container.seek(stamp, stream=stream)
            self.decoded = self._from(self.position, self.container.decode(stream))

    def _from(self, first: int, frames: Iterator[Any]) -> Iterator[tuple[int, Any]]:
        """The frames from `first` on, with their numbers; those before it may lack what they are predicted from."""
        for frame in frames:
            number = self.file_index.numbers.get(frame.pts, -1)
            if number >= first:
                yield number, frame

    def _remember(self, number: int, frame: Any) -> None:
        self.cache[number] = frame
        self.cache.move_to_end(number)
        size = sum(plane.buffer_size for plane in frame.planes)
        while len(self.cache) > max(2, self.cache_bytes // size):
            self.cache.popitem(last=False)

    def _close_container(self) -> None:
        if self.container is not None:
            self.container.close()
            self.container = None


class FrameRateSampler:
    """Decides which frames of a video are kept at `fps` frames a second, given their times in order; None keeps all."""

    def __init__(self, fps: float | None) -> None:
        self.fps, self.due = fps, 0.0
        self.start: float | None = None

    def __call__(self, time: float | None) -> bool:
        if self.fps is None:
            return True
        assert time is not None
        self.start = time if self.start is None else self.start
        passed = time - self.start + TIME_TOLERANCE
        if passed < self.due:
            return False
        self.due = (math.floor(passed * self.fps) + 1) / self.fps
        return True


def open_container(path: Path) -> Any:
    """The file, opened by FFmpeg. Raises DataError when it is missing or no video."""
    import av

    if not path.is_file():
        raise DataError(f"video is missing: {path}")
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise DataError(f"{path} cannot be read as a video ({error.strerror})") from error
    if not container.streams.video:
        container.close()
        raise DataError(f"{path} holds no video")
    container.streams.video[0].thread_type = "AUTO"
    return container


def frame_count(stream: Any) -> int | None:
    """How many frames a stream says that it has, or by its duration should have; None where it says neither."""
    if stream.frames:
        return stream.frames
    if stream.duration and stream.time_base and stream.average_rate:
        return round(stream.duration * stream.time_base * stream.average_rate) or None
    return None


def shown_shape(frame: Any) -> tuple[int, int, int]:
    """Height and width of a decoded frame as a player shows it, and 3."""
    lying = round(frame.rotation / 90) % 2
    return (frame.width, frame.height, 3) if lying else (frame.height, frame.width, 3)


def checksum(frame: Any) -> int:
    """Of a decoded frame's brightness."""
    return zlib.crc32(np.ascontiguousarray(frame.to_ndarray(format="gray")).data)


def to_picture(frame: Any) -> np.ndarray:
    """A decoded frame as uint8 [H, W, 3] RGB, turned as a player shows it."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
