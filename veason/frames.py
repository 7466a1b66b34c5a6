"""Which frames of a video the policy sees, and at which size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from os import PathLike

import numpy as np
from PIL import Image

from veason.errors import DataError
from veason.files import check_file

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # of frames and masks; Pillow's other readers see nothing of a data set
MAX_SIDE, MAX_PIXELS = 32_768, 1 << 26  # of a picture; a frame of 8K video has 33 million pixels
ANCHOR_FRAMES = ("largest", "first")  # how the frame with the target is chosen that a prompt always shows
TIMESTAMP_MODES = ("absolute", "relative")  # a frame's timestamp: its index in the video, or its position in the prompt
ANCHOR_FRAME_CANDIDATES = 5  # the anchor is one of the frames with the largest target
# transformers' Qwen2.5-VL image processor: at most 12,845,056 pixels, 128 x 128 multiples of 28
MAX_SIDE_MULTIPLES = 128


def training_frames(
    areas: np.ndarray, count: int, rng: np.random.Generator, anchor_frame: str = ANCHOR_FRAMES[0]
) -> list[int]:
    """Frames of one training prompt: evenly strided through the video, one of them with a large target.

    The anchor is drawn among the five frames with the largest target, or is the first with the target; the stride is
    ceil(T / (count - 1)) and the first frame is anchor mod stride. So `count` is an upper bound: 6 gives at most 5
    frames. A count of 1 gives the anchor alone.

    Args:
        areas: [T], the area in pixels of the union of the target masks in each frame. All zero: the target is not in
            the video, and the anchor is any frame.
        count: `data.sampled_frames`.
        rng: draws the anchor.
        anchor_frame: one of `ANCHOR_FRAMES`; "first" is the paper's ablation with a fixed keyframe.

    Returns:
        Increasing indices into the video.
    """
    return anchored_frames(areas, count, rng, anchor_frame)[1]


def anchored_frames(
    areas: np.ndarray, count: int, rng: np.random.Generator, anchor_frame: str = ANCHOR_FRAMES[0]
) -> tuple[int, list[int]]:
    """The anchor and the frames of `training_frames`; the anchor is the keyframe of a chain of thought."""
    total = len(areas)
    if total == 0 or count < 1:
        raise DataError(f"cannot sample {count} frames of a video of {total}")
    ranked = np.argsort(areas, kind="stable")[-ANCHOR_FRAME_CANDIDATES:] if np.any(areas) else np.arange(total)
    if anchor_frame == "first" and np.any(areas):
        ranked = np.flatnonzero(areas)[:1]
    chosen = int(rng.choice(ranked))
    if count == 1:
        return chosen, [chosen]
    stride = math.ceil(total / (count - 1))
    return chosen, list(range(chosen % stride, total, stride))


def shown_timestamps(indices: Sequence[int], timestamp_mode: str = TIMESTAMP_MODES[0]) -> list[int]:
    """The timestamps shown for frames, in seconds: their indices in the video, or (relative) their positions in the
    prompt.
    """
    return list(indices) if timestamp_mode == TIMESTAMP_MODES[0] else list(range(len(indices)))


def evaluation_frames(total: int, count: int = 8) -> list[int]:
    """`count` evenly spaced frames from the first to the last of `total`, rounded down; at most all of them."""
    if total <= count:
        return list(range(total))
    return np.linspace(0, total - 1, num=count, dtype=int).tolist()


def read_frame(path: str | PathLike[str], size: tuple[int, int] | None = None) -> np.ndarray:
    """A frame as uint8 [H, W, 3] RGB. Arguments and errors are those of `open_frame`."""
    return np.asarray(open_frame(path, size))


def open_frame(path: str | PathLike[str], size: tuple[int, int] | None = None) -> Image.Image:
    """A frame as an RGB picture, decoded.

    Args:
        size: the height and width that the annotation says; compared with the file's header before it is decoded.

    Raises:
        DataError: as `open_picture`, or it is of another size.
    """
    with open_picture(path, "frame") as picture:
        _check_size(path, picture, size)
        picture.load()
        return picture if picture.mode == "RGB" else picture.convert("RGB")


def check_frame(path: str | PathLike[str], size: tuple[int, int] | None = None) -> None:
    """Raise DataError where `open_frame` would; a JPEG is decoded at an eighth of its size, in half the time."""
    with open_picture(path, "frame") as picture:
        _check_size(path, picture, size)
        picture.draft("RGB", (max(1, picture.width // 8), max(1, picture.height // 8)))
        picture.load()


def frame_size(path: str | PathLike[str]) -> tuple[int, int]:
    """Height and width of a frame in pixels, from the file's header alone. Raises DataError as `open_picture`."""
    with open_picture(path, "frame") as picture:
        return picture.height, picture.width


class FrameSizeError(DataError):
    """A frame is of another size than the annotation says."""


def first_size(paths: Iterable[str | PathLike[str]]) -> tuple[int, int] | None:
    """Height and width of the first picture that can be read; None where none can."""
    for path in paths:
        with suppress(DataError):
            return frame_size(path)
    return None


def _check_size(path: str | PathLike[str], picture: Image.Image, size: tuple[int, int] | None) -> None:
    if size is not None and (picture.height, picture.width) != tuple(size):
        found, annotated = f"{picture.height}x{picture.width}", f"{size[0]}x{size[1]}"
        raise FrameSizeError(f"frame {path} is {found}, the annotation says {annotated}")


@contextmanager
def open_picture(path: str | PathLike[str], what: str) -> Iterator[Image.Image]:
    """A picture file, whose header alone is read before it is used; what Pillow raises inside becomes a DataError.

    Args:
        what: what the file is; begins the message.

    Raises:
        DataError: it is missing, no file, truncated, none of `FORMATS`, of more than 8 bits a value, or larger than
            `MAX_PIXELS`.
    """
    check_file(path, what)
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS or max(picture.size) > MAX_SIDE:
                raise DataError(f"{what} is too large: {path} has {picture.height}x{picture.width} pixels")
            if picture.mode[0] in "IF":
                raise DataError(f"{what} has more than 8 bits a value: {path} (mode {picture.mode})")
            yield picture
    except DataError:
        raise
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        raise DataError(f"{what} cannot be read: {path} ({str(error) or type(error).__name__})") from error


def check_pixel_multiple(side: int, multiple: int) -> None:
    """Refuse a frame size that the image processor would change: boxes would be read in another square than shown.

    Args:
        side: of the square frames, in pixels.
        multiple: `ModelInfo.pixel_multiple` of the policy.

    Raises:
        DataError: names the size that the policy would see.
    """
    # as transformers' `smart_resize` of the Qwen-VL processors rounds
    seen = min(max(round(side / multiple), 2), MAX_SIDE_MULTIPLES) * multiple
    if seen != side:
        raise DataError(
            f"frames of {side} x {side} pixels would reach the policy as {seen} x {seen}; choose a multiple of "
            f"{multiple}: {seen}"
        )


def check_frame_tokens(count: int, side: int, multiple: int, limit: int) -> None:
    """Refuse more frames than a prompt can hold, before a model is loaded.

    Args:
        count: frames of the longest prompt.
        side: of the square frames, in pixels.
        multiple: `ModelInfo.pixel_multiple` of the policy: a token is a square of this side.
        limit: `max_prompt_length`, in tokens; the text of a prompt comes on top.

    Raises:
        DataError: names the tokens of the frames.
    """
    tokens = count * (side // multiple) ** 2
    if tokens >= limit:
        raise DataError(
            f"{count} frames of {side} x {side} pixels are {tokens} tokens, before any text, and max_prompt_length is "
            f"{limit}: raise it, or show fewer or smaller frames"
        )


def resize_frame(frame: np.ndarray | Image.Image, size: int) -> Image.Image:
    """The picture that the policy sees: `size` x `size`, bilinear, the aspect ratio is not kept."""
    picture = Image.fromarray(frame) if isinstance(frame, np.ndarray) else frame
    return picture.resize((size, size), Image.Resampling.BILINEAR)
