"""A video as one sequence of frames that is checked before anything is computed: a file, a folder, arrays, an iterator.

Of a file or a folder a bounded part is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from veason.errors import DataError
from veason.frames import check_frame, frame_size, read_frame
from veason.progress_bar import Progress, no_progress
from veason.video.natural_order import natural_key
from veason.video.video_file import VideoFile

Video = Any  # a path, pictures, arrays, a tensor, or an iterator of frames
WANTED = "give a path, a list of PIL images or paths, uint8 [T, H, W, 3], or an iterator of uint8 [H, W, 3] frames"
MIN_SIDE = 2  # pixels
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
    """The pictures of a folder in natural order, hidden files left out. Raises DataError: none, or two of one name."""
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


def as_frames(video: Video, fps: float | None = None, progress: Progress = no_progress) -> Any:
    """A video as a sequence of uint8 [H, W, 3] RGB frames of one size.

    Args:
        video: a path of a file or of a folder of pictures; a list of PIL images, of paths or of arrays; an array or a
            torch tensor [T, H, W, 3] (a tensor may be [T, 3, H, W] too), uint8; an iterator of frames, which are held
            in memory; or a sequence that reads its frames when they are indexed, of which the first is checked.
        fps: as for `open_video`; for a path only.

    Raises:
        DataError: anything else; the message says what was given.
    """
    if isinstance(video, str | Path):
        return open_video(video, fps, progress)
    if fps is not None:
        raise DataError("fps is for a path; of frames in memory give every n-th: frames[::n]")
    if isinstance(video, Image.Image):
        raise DataError(f"video is one image, of mode {video.mode} and {video.width} x {video.height}: give [image]")
    if _is_array(video):
        return _check_array(video)
    if isinstance(video, list | tuple):
        return _check_list(video)
    if isinstance(video, Sequence) and not isinstance(video, bytes):  # one that reads lazily
        if not len(video):
            raise DataError("video has no frames")
        _check_frame(video[0], "frame 0")
        return video
    if isinstance(video, Iterable) and not isinstance(video, bytes | dict | set):
        return _check_list(list(video))
    raise DataError(f"video is {_describe(video)}: {WANTED}")


def _check_list(items: Sequence[Any]) -> Sequence[np.ndarray]:
    """Frames of a list, of one size; paths are read when they are indexed."""
    if not items:
        raise DataError("video has no frames")
    if all(isinstance(item, str | Path) for item in items):
        paths = [Path(item) for item in items]
        check_pictures(paths)
        return FrameFiles(paths)
    frames = [_check_frame(item, f"frame {number}") for number, item in enumerate(items)]
    for number, frame in enumerate(frames):
        if frame.shape != frames[0].shape:
            first, other = (f"{each.shape[1]} x {each.shape[0]}" for each in (frames[0], frame))
            raise DataError(f"frames of a video are of one size; frame 0 is {first}, frame {number} is {other} pixels")
    return frames


def _check_array(video: Any) -> np.ndarray:
    """An array or tensor of frames as [T, H, W, 3]."""
    array = _to_numpy(video, "video")
    if array.ndim == 3 and array.shape[-1] == 3:
        raise DataError(f"video is one frame, {_describe(video)}: give frame[None], [1, H, W, 3]")
    if array.ndim == 4 and array.shape[-1] != 3 and array.shape[1] == 3 and not isinstance(video, np.ndarray):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[-1] != 3 or min(array.shape[1:3]) < MIN_SIDE:
        raise DataError(f"video is {_describe(video)}: {WANTED}")
    if not len(array):
        raise DataError("video has no frames")
    return array


def _check_frame(frame: Any, name: str) -> np.ndarray:
    """One frame as uint8 [H, W, 3]."""
    if isinstance(frame, Image.Image):
        array = np.asarray(frame.convert("RGB"))
    elif _is_array(frame):
        array = _to_numpy(frame, name)
    else:
        raise DataError(f"{name} of the video is {_describe(frame)}: {WANTED}")
    if array.ndim != 3 or array.shape[-1] != 3 or min(array.shape[:2]) < MIN_SIDE:
        raise DataError(f"{name} of the video is {_describe(frame)}: {WANTED}")
    return array


def _is_array(value: Any) -> bool:
    """Whether it is a numpy array or a torch tensor, without importing torch."""
    return isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "cpu"))


def _to_numpy(value: Any, name: str) -> np.ndarray:
    array = value if isinstance(value, np.ndarray) else value.detach().cpu()
    if str(array.dtype).removeprefix("torch.") != "uint8":
        raise DataError(
            f"{name} is {_describe(value)}: frames are uint8, 0 to 255; floats from 0 to 1 become so by "
            "(255 * frames).round(), then the dtype"
        )
    return np.asarray(array)


def _describe(value: Any) -> str:
    """A value's kind, dtype and shape."""
    if _is_array(value):
        kind = "an array" if isinstance(value, np.ndarray) else "a tensor"
        return f"{kind} {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if value is None:
        return "None"
    if isinstance(value, Image.Image):
        return f"an image of {value.width} x {value.height} pixels"
    return f"of type {type(value).__name__}"
