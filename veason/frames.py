"""Which frames of a video the policy sees, and at which size."""

from __future__ import annotations

import math
from os import PathLike

import numpy as np
from PIL import Image

from veason.errors import DataError

ANCHOR_CANDIDATES = 5  # the anchor is one of the frames with the largest target
# transformers' Qwen2.5-VL image processor: at most 12,845,056 pixels, 128 x 128 multiples of 28
MAX_SIDE_MULTIPLES = 128


def training_frames(areas: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """Frames of one training prompt: evenly strided through the video, one of them with a large target.

    The anchor is drawn among the five frames with the largest target; the stride is ceil(T / (count - 1)) and the first
    frame is anchor mod stride. So `count` is an upper bound: 6 gives at most 5 frames. A count of 1 gives the anchor
    alone.

    Args:
        areas: [T], the area in pixels of the union of the target masks in each frame. All zero: the target is not in
            the video, and the anchor is any frame.
        count: `data.sampled_frames`.
        rng: draws the anchor.

    Returns:
        Increasing indices into the video.
    """
    return anchored_frames(areas, count, rng)[1]


def anchored_frames(areas: np.ndarray, count: int, rng: np.random.Generator) -> tuple[int, list[int]]:
    """The anchor and the frames of `training_frames`; the anchor is the keyframe of a chain of thought."""
    total = len(areas)
    if total == 0 or count < 1:
        raise DataError(f"cannot sample {count} frames of a video of {total}")
    ranked = np.argsort(areas, kind="stable")[-ANCHOR_CANDIDATES:] if np.any(areas) else np.arange(total)
    anchor = int(rng.choice(ranked))
    if count == 1:
        return anchor, [anchor]
    stride = math.ceil(total / (count - 1))
    return anchor, list(range(anchor % stride, total, stride))


def evaluation_frames(total: int, count: int = 8) -> list[int]:
    """`count` evenly spaced frames from the first to the last of `total`, rounded down; at most all of them."""
    if total <= count:
        return list(range(total))
    return np.linspace(0, total - 1, num=count, dtype=int).tolist()


def read_frame(path: str | PathLike[str]) -> np.ndarray:
    """A frame as uint8 [H, W, 3] RGB. Raises as `open_frame` does."""
    return np.asarray(open_frame(path))


def open_frame(path: str | PathLike[str]) -> Image.Image:
    """A frame as an RGB picture, decoded.

    Raises:
        DataError: the file is missing, truncated or no picture.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture if picture.mode == "RGB" else picture.convert("RGB")
    except FileNotFoundError:
        raise DataError(f"frame is missing: {path}") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"frame cannot be read: {path} ({error})") from error


def frame_size(path: str | PathLike[str]) -> tuple[int, int]:
    """Height and width of a frame in pixels, from the file's header alone. Raises DataError as `read_frame` does."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except FileNotFoundError:
        raise DataError(f"frame is missing: {path}") from None
    except (OSError, SyntaxError) as error:
        raise DataError(f"frame cannot be read: {path} ({error})") from error


def check_side(side: int, multiple: int) -> None:
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
