"""Frames of a video as a sequence that holds one frame at a time: a folder of pictures, or a video file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from veason.errors import DataError
from veason.frames import read_frame
from veason.names import natural_key

TIME_TOLERANCE = 1e-3  # seconds: some containers round times to milliseconds
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class FrameFiles(Sequence[np.ndarray]):
    """Picture files in order; frame t is read when it is indexed, uint8 [H, W, 3] RGB.

    Args:
        size: height and width that each has to have; None: any.
    """

    def __init__(self, paths: Sequence[Path], size: tuple[int, int] | None = None) -> None:
        self.paths, self.size = list(paths), size

    @property
    def names(self) -> list[str]:
        """The files' names without suffix, by which their masks are called."""
        return [path.stem for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        return read_frame(self.paths[index], self.size)


def open_folder(folder: str | Path) -> FrameFiles:
    """The pictures of a folder in natural order, frame2 before frame10. Raises DataError when there are none."""
    paths = [path for path in Path(folder).iterdir() if path.suffix.lower() in PICTURES]
    paths.sort(key=lambda path: natural_key(path.name))
    stems = [path.stem for path in paths]
    if len(set(stems)) < len(stems):  # their masks would have one name
        raise DataError(f"{folder} holds two pictures called {next(s for s in stems if stems.count(s) > 1)}")
    if not paths:
        raise DataError(f"no pictures ({', '.join(PICTURES)}) in {folder}")
    return FrameFiles(paths)


class RawFrames(Sequence[np.ndarray]):
    """Decoded frames in one file; frame t is read when it is indexed, uint8 [H, W, 3] RGB."""

    def __init__(self, path: str | Path, total: int, shape: tuple[int, ...]) -> None:
        self.path, self.total, self.shape = path, total, shape

    @property
    def names(self) -> list[str]:
        """Five digits or more, counted from 0."""
        return [f"{index:05d}" for index in range(self.total)]

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        position, size = range(self.total)[index], math.prod(self.shape)
        return np.fromfile(self.path, np.uint8, size, offset=position * size).reshape(self.shape)


def decode_video(path: str | Path, scratch: str | Path, fps: float | None = None) -> tuple[RawFrames, float]:
    """Decode a video file into the file `scratch` (3 bytes per pixel), so that its frames need not be in memory.

    Args:
        fps: keep so many frames per second: the first one not before 0, 1/fps, 2/fps, ... seconds, one for all of these
            that lie in a gap between two frames. None keeps all.

    Returns:
        The frames and their rate per second.

    Raises:
        DataError: the file is missing, is no video, or holds no frame; or its frames have no times and `fps` is given.
    """
    import av

    if not Path(path).is_file():
        raise DataError(f"video is missing: {path}")
    total, shape, due, kept_fps = 0, None, 0.0, 0.0
    try:
        with av.open(str(path)) as container, open(scratch, "wb") as file:
            if not container.streams.video:
                raise DataError(f"{path} holds no video")
            rate = float(container.streams.video[0].average_rate or 1)
            kept_fps = min(fps or rate, rate)
            start = None
            for frame in container.decode(video=0):
                if fps is not None:
                    if frame.time is None:
                        raise DataError(f"{path}: a frame has no time, so it cannot be sampled by fps; leave fps out")
                    start = frame.time if start is None else start
                    passed = frame.time - start + TIME_TOLERANCE
                    if passed < due:
                        continue
                    due = (math.floor(passed * fps) + 1) / fps
                picture = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))  # as a player shows it
                shape = shape or picture.shape
                if picture.shape != shape:
                    raise DataError(f"{path}: the size of the frames changes from {shape[:2]} to {picture.shape[:2]}")
                file.write(picture.tobytes())
                total += 1
    except av.FFmpegError as error:
        raise DataError(f"{path} cannot be read as a video ({error})") from error
    if shape is None:
        raise DataError(f"{path} holds no frames")
    return RawFrames(scratch, total, shape), kept_fps
