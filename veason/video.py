"""Frames of a video as a sequence that holds a bounded part of it: a folder of pictures, or a video file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from veason.errors import DataError
from veason.frames import check_frame, frame_size, read_frame
from veason.natural_order import natural_key
from veason.progress import Progress, no_progress
from veason.video_file import VideoFile

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
FOLDER_FPS = 10.0  # at which a folder of frames is shown, whose rate is not known


class FrameFiles(Sequence[np.ndarray]):
    """Picture files in order; frame t is read when it is indexed, uint8 [H, W, 3] RGB.

    Args:
        fps: frames a second at which they are shown.
        size: height and width that each has to have; None: any.
    """

    def __init__(self, paths: Sequence[Path], fps: float = FOLDER_FPS, size: tuple[int, int] | None = None) -> None:
        self.paths, self.fps, self.size = list(paths), fps, size

    @property
    def names(self) -> list[str]:
        """The files' names without suffix."""
        return [path.stem for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        return read_frame(self.paths[index], self.size)


def open_video(path: str | Path, fps: float | None = None, progress: Progress = no_progress) -> FrameFiles | VideoFile:
    """The frames of a video file or of a folder of pictures, all of which are decoded once to be sure of them.

    Args:
        fps: frames a second to keep of a file (all by default); of a folder the rate at which it is shown.

    Raises:
        DataError: there is no such file or folder, a frame cannot be read, or the frames differ in size.
    """
    if not str(path).strip():
        raise DataError("the path of the video is empty")
    path = Path(path).expanduser()
    if not path.is_dir():
        return VideoFile(path, fps, progress=progress)
    frames = open_folder(path, fps or FOLDER_FPS)
    check_pictures(frames.paths, progress)
    return frames


def open_folder(folder: str | Path, fps: float = FOLDER_FPS) -> FrameFiles:
    """The pictures of a folder in natural order (2.jpg before 10.jpg), hidden files left out.

    Raises:
        DataError: there is none, or two have one name.
    """
    files = (path for path in Path(folder).iterdir() if not path.name.startswith("."))  # macOS writes ._NAME.jpg
    paths = sorted((path for path in files if path.suffix.lower() in PICTURES), key=lambda path: natural_key(path.name))
    stems = [path.stem for path in paths]
    if len(set(stems)) < len(stems):  # their masks would have one name
        raise DataError(f"{folder} holds two pictures called {next(s for s in stems if stems.count(s) > 1)}")
    if not paths:
        raise DataError(f"no pictures ({', '.join(PICTURES)}) in {folder}")
    return FrameFiles(paths, fps)


def check_pictures(paths: Sequence[Path], progress: Progress = no_progress) -> None:
    """Decode pictures to find one that is damaged or of another size than the first. Raises DataError with its name."""
    first: tuple[int, int] | None = None
    for path in progress(paths, "decoding", len(paths)):
        check_frame(path)
        size = frame_size(path)
        first = first or size
        if size != first:
            sizes = " and ".join("{1} x {0}".format(*each) for each in (first, size))
            raise DataError(f"frames of a video are of one size; {paths[0].name} and {path} have {sizes} pixels")
