"""Reads an annotation file of videos and expressions, and refuses what would be read as something else.

Every function raises a DataError without the place; `located` puts file, video and expression before it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from veason.data.sample import read_text
from veason.errors import DataError
from veason.names import check_name, natural_key


class RepeatedKeys(dict[str, Any]):
    """A JSON object in which a key is given twice; the last value is kept, as json does."""

    repeated: str = ""


def read_annotation(path: Path) -> dict[str, Any]:
    """The "videos" of an annotation file, by name.

    Raises:
        DataError: the file is missing or is no JSON, or it lists a video twice.
    """
    content = parse_json(path)
    videos = content.get("videos") if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        raise DataError(f'annotation file has no "videos": {path}')
    if isinstance(videos, RepeatedKeys):
        raise DataError(f"{path}: video {videos.repeated} is listed twice")
    return videos


def parse_json(path: Path) -> Any:
    """The content of a JSON file, repeated keys as `RepeatedKeys`."""
    content = read_text(path)
    try:
        return json.loads(content, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise DataError(f"annotation file is not JSON: {path} ({error})") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    marked, seen = RepeatedKeys(found), set[str]()
    marked.repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return marked


@contextmanager
def located(where: str) -> Iterator[None]:
    """Puts `where` before the error of a field that is missing or wrong."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except KeyError as error:
        raise DataError(f"{where} has no {error}") from error


def frame_names(value: Any) -> tuple[str, ...]:
    """The names of a video's frames without suffix, in natural order."""
    if not isinstance(value, list) or not value:
        raise DataError(f"frames are {_short(value)}, not a list of names")
    names = [check_name(name, "frame") for name in value]
    if len(set(names)) < len(names):
        raise DataError(f"frame {next(name for name in names if names.count(name) > 1)} is listed twice")
    return tuple(sorted(names, key=natural_key))


def frame_size(meta: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width in pixels; None where the annotation does not give both."""
    if "height" not in meta or "width" not in meta:
        return None
    return positive(meta["height"], "height"), positive(meta["width"], "width")


def positive(value: Any, what: str) -> int:
    """A whole number of pixels."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or not 0 < value < 1 << 20:
        raise DataError(f"{what} is {_short(value)}, not a number of pixels")
    return int(value)


def expressions(value: Any) -> list[tuple[str, dict[str, Any]]]:
    """(exp_id, entry) of a video's expressions, an object by exp_id or a list of entries with one each."""
    if isinstance(value, RepeatedKeys):
        raise DataError(f"expression {value.repeated} is listed twice")
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        pairs = [(str(entry.get("exp_id", number)), entry) for number, entry in enumerate(value)]
    else:
        raise DataError(f"expressions are {_short(value)}, neither an object nor a list of objects")
    for exp_id, entry in pairs:
        check_name(exp_id, "expression")
        if not isinstance(entry, dict):
            raise DataError(f"expression {exp_id} is {_short(entry)}, not an object")
    return pairs


def text(entry: dict[str, Any], key: str) -> str:
    """A text field."""
    if not isinstance(value := entry[key], str):
        raise DataError(f"{key} is {_short(value)}, not a text")
    return value


def type_id(entry: dict[str, Any]) -> int | None:
    """0 referring, 1 reasoning, 2 absent; None where it is not given."""
    value = entry.get("type_id")
    if value is not None and (isinstance(value, bool) or value not in (0, 1, 2)):
        raise DataError(f"type_id is {_short(value)}; it can be 0, 1 or 2")
    return value


def id_list(entry: dict[str, Any], key: str) -> tuple[str, ...]:
    """A list of ids as texts. A single text is refused: its characters would be read as ids."""
    value = entry[key]
    if not isinstance(value, list):
        raise DataError(f"{key} is {_short(value)}, not a list of ids")
    return tuple(_id(each, key) for each in value)


def single_id(entry: dict[str, Any], key: str, check: Callable[[str], bool] = bool) -> str:
    """One id as text, a number or a text that passes `check`."""
    value = _id(entry[key], key)
    if not check(value):
        raise DataError(f"{key} is {_short(entry[key])}, not the number of an object")
    return value


def _id(value: Any, key: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise DataError(f"{key} holds {_short(value)}, not an id")
    return str(value)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
