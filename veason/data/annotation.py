"""What an annotation may say: names that stay inside their folders, texts that a prompt can show, sizes, ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from veason.data.sample import VideoSample
from veason.errors import DataError
from veason.frames import MAX_PIXELS, MAX_SIDE
from veason.prompts import clean_expression
from veason.video.natural_order import natural_key

MAX_EXPRESSION = 4000  # characters of an expression; those of the benchmarks have a few hundred at most
MAX_NAME_BYTES = 250  # bytes of a file's name; file systems take 255, and a suffix is added
VOID = 255  # DAVIS's value of pixels that count for nobody
TYPE_IDS = (0, 1, 2)  # see `VideoSample.type_id`
# Tokens and tags that stand for images or turns: in an expression they would be read as such.
MARKUP = re.compile(r"<\|[^<>|\s]{1,40}\|>|</?(?:image|video|audio)>", re.IGNORECASE)


class Rejection(NamedTuple):
    """An entry of an annotation that cannot be used.

    Attributes:
        name: its sample id, or a video's name for all of that video.
        video: of the entry.
        reason: one line that names file, video and expression.
    """

    name: str
    video: str
    reason: str


def as_mapping(value: Any, what: str) -> Mapping[str, Any]:
    """A JSON object. Raises DataError for anything else."""
    if not isinstance(value, dict):
        raise DataError(f"{what} is {shorten(value)}, not an object")
    return value


def as_list(value: Any, what: str, empty: bool = False) -> list[Any]:
    """A JSON array, which may be `empty` or not. Raises DataError for anything else."""
    if not isinstance(value, list) or not (value or empty):
        raise DataError(f"{what} is {shorten(value)}, not a list{'' if empty else ' of at least one'}")
    return value


def as_name(value: Any, what: str, folders: bool = False) -> str:
    """A name that is a file or a folder below the one that it is looked for in.

    Args:
        folders: it may hold folders, as the names of videos do.

    Raises:
        DataError: another type, empty, absolute, with `.` or `..` or a character that no file's name has.
    """
    if not isinstance(value, str):
        raise DataError(f"{what} is {shorten(value)}, not a text")
    parts = value.split("/")
    if (
        any(part in ("", ".", "..") or len(part.encode(errors="replace")) > MAX_NAME_BYTES for part in parts)
        or (len(parts) > 1 and not folders)
        or has_surrogate(value)
        or any(ord(character) < 32 for character in value)
    ):
        raise DataError(f"{what} {shorten(value)} cannot be a file's name")
    return value


def as_names(values: Any, what: str) -> tuple[str, ...]:
    """Distinct names of files in one folder, in natural order. Raises DataError as `as_name`, or for a name twice."""
    names = tuple(as_name(value, f"one of {what}") for value in as_list(values, what))
    _check_distinct(names, what)
    return tuple(sorted(names, key=natural_key))


def as_ids(values: Any, what: str) -> tuple[str, ...]:
    """Distinct ids, numbers or texts, as texts; () for an empty list. Raises DataError for anything else."""
    ids = tuple(as_id(value, f"one of {what}") for value in as_list(values, what, empty=True))
    _check_distinct(ids, what)
    return ids


def as_id(value: Any, what: str) -> str:
    """A number or a text as a text. Raises DataError for anything else, and for an empty text."""
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not 0 < len(str(value)) <= MAX_NAME_BYTES:
        raise DataError(f"{what} is {shorten(value)}, neither a number nor a text")
    return str(value)


def as_whole_number(value: Any, what: str) -> str:
    """A whole number, also as a text, as a text. Raises DataError for anything else."""
    text = as_id(value, what)
    if not (text.isdecimal() and text.isascii()):
        raise DataError(f"{what} is {shorten(value)}, not a number")
    return text


def as_object_number(value: Any, what: str) -> str:
    """An object's number in a PNG mask, 1 to 254, as a text. Raises DataError for anything else."""
    if not 0 < int(as_whole_number(value, what)) < VOID:
        raise DataError(f"{what} is {shorten(value)}, no number of an object")
    return str(int(value))


def as_size(height: Any, width: Any) -> tuple[int, int]:
    """The height and width of frames in pixels. Raises DataError for what no picture has."""
    for side in (height, width):
        number = isinstance(side, (int, float)) and not isinstance(side, bool)
        if not (number and 0 < side <= MAX_SIDE and side == int(side)):
            raise DataError(f"height {shorten(height)} and width {shorten(width)} are no size of a picture")
    rows, columns = int(height), int(width)
    if rows * columns > MAX_PIXELS:
        raise DataError(f"frames of {rows}x{columns} pixels are too large")
    return rows, columns


def check_sample(sample: VideoSample) -> None:
    """Check what any benchmark, also a user's own, gives as a sample. Raises DataError with the reason alone."""
    check_expression(sample.expression)
    if sample.type_id is not None:
        check_type_id(sample.type_id)
    as_name(sample.video, "the video", folders=True)
    as_name(sample.exp_id, "the id")
    as_name(sample.sample_id, "the sample's id", folders=True)


def checked_samples(
    samples: Iterable[VideoSample], source: Path, reject: Callable[[str, str, str], None]
) -> list[VideoSample]:
    """The samples that pass `check_sample`, with proper names of frames, and whose id no other has.

    Args:
        source: the annotation file, named in reasons.
        reject: is given the id, the video and the reason of each other one.
    """
    passed = []
    shared: tuple[str, ...] | None = None  # expressions of a video usually share one tuple of frames
    for sample in samples:
        try:
            check_sample(sample)
            if sample.frames is not shared:
                as_names(list(sample.frames), "its frames")
                shared = sample.frames
            passed.append(sample)
        except DataError as error:
            reason = f"{source}: video {sample.video}, expression {sample.exp_id}: {error}"
            reject(sample.sample_id, sample.video, reason)
    counts = Counter(sample.sample_id for sample in passed)
    if len(counts) < len(passed):
        for sample_id, video in {sample.sample_id: sample.video for sample in passed}.items():
            if (count := counts[sample_id]) > 1:  # which one is meant is open
                reject(sample_id, video, f"{source}: {count} expressions have the id {sample_id}")
    return [sample for sample in passed if counts[sample.sample_id] == 1]


def check_type_id(type_id: Any) -> None:
    """Check an expression's type. Raises DataError with the reason alone."""
    if type(type_id) is not int or type_id not in TYPE_IDS:
        raise DataError(f"type_id is {shorten(type_id)}; it can be 0 (referring), 1 (reasoning) or 2 (absent)")


def check_expression(text: Any) -> str:
    """An expression, if it can be shown. Raises DataError with the reason alone."""
    if not isinstance(text, str):
        raise DataError(f"its text is {shorten(text)}, not a text")
    if not clean_expression(text):
        raise DataError(f"its text {shorten(text)} is empty")
    if len(text) > MAX_EXPRESSION:
        raise DataError(f"its text has {len(text)} characters; {MAX_EXPRESSION} are allowed")
    if found := MARKUP.search(text):
        raise DataError(f"its text holds {shorten(found.group())}, which a prompt reads as an image or a turn")
    if "\0" in text or has_surrogate(text):
        raise DataError(f"its text {shorten(text)} holds a character that no file can hold")
    return text


def _check_distinct(values: Iterable[str], what: str) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise DataError(f"{shorten(value)} stands twice among {what}")
        seen.add(value)


def has_surrogate(text: str) -> bool:
    """Whether a text has half of a surrogate pair, which no file can hold."""
    return not text.isascii() and any(0xD800 <= ord(character) < 0xE000 for character in text)


def pairs_by_id(expressions: Any) -> Iterator[tuple[Any, Any]]:
    """(exp_id, expression) of one video, whether its expressions are an object or a list.

    Raises:
        DataError: they are neither, or there are none.
    """
    if isinstance(expressions, dict) and expressions:
        yield from expressions.items()
        return
    if expressions == {} or expressions == []:
        raise DataError("there is no expression (`veason data describe` writes some for own videos)")
    for number, expression in enumerate(as_list(expressions, "the list of expressions")):
        yield expression.get("exp_id", number) if isinstance(expression, dict) else number, expression


def shorten(value: Any) -> str:
    """A value in a message: its type where it holds others, which may be deep."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, int) and not -(10**30) < value < 10**30:
        return "a number of more than 30 digits"  # Python refuses to write thousands of them
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
