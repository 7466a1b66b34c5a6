"""Expressions in a file of their own: JSON, CSV, or lines as Ref-DAVIS17 has them.

    {"bear": {"1": "the bear", "2": ["the cub", "who follows"]}}                     object number -> text or texts
    {"videos": {"bear": {"expressions": {"0": {"exp": "the bear", "obj_id": "1"}}}}}       as Ref-YouTube-VOS and ReVOS
    video,object,expression,type                                        CSV, also with ";"; several objects: "1 2"
    bear 1 "the bear"                                                                 .txt

A type is referring, reasoning or absent (then there is no object); referring by default.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from veason.data.sample import read_json
from veason.errors import DataError
from veason.importing.annotations import Expression, read_type

LINE = re.compile(r'^\s*(\S+)\s+(\S+)\s+"(.*)"\s*$')


def read_captions(path: Path) -> dict[str, list[Expression]]:
    """Video -> its expressions.

    Raises:
        DataError: the file is missing or of no known form; names the line or the video.
    """
    if not path.is_file():
        raise DataError(f"captions file is missing: {path}")
    readers = {".json": _from_json, ".csv": _from_csv, ".tsv": _from_csv, ".txt": _from_lines}
    if path.suffix.lower() not in readers:
        raise DataError(f"captions: {path} is none of {', '.join(readers)}")
    found: dict[str, list[Expression]] = defaultdict(list)
    try:
        for video, expression in readers[path.suffix.lower()](path):
            found[video].append(expression)
    except UnicodeDecodeError as error:
        raise DataError(f"captions: {path} is not UTF-8 ({error.reason})") from error
    if not found:
        raise DataError(f"captions: {path} holds no expression")
    return dict(found)


def make_expression(text: Any, objects: Any, kind: Any, where: str) -> Expression:
    """An expression of the values of a file.

    Args:
        objects: an object id, a list of them, or text with several ids between spaces, commas or semicolons.
        kind: see `read_type`; None with no object is absent.

    Raises:
        DataError: no text, no object though the type is not absent, or objects though it is.
    """
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: no expression, {text!r}")
    if isinstance(objects, (list, tuple)):
        ids = tuple(str(each) for each in objects)
    else:
        ids = tuple(re.split(r"[\s,;]+", str(objects).strip())) if objects not in (None, "") else ()
    type_id = read_type(kind, where)
    if type_id == 2 and ids:
        raise DataError(f"{where}: type absent, but objects {', '.join(ids)} are named")
    if type_id != 2 and not ids:
        raise DataError(f"{where}: no object is named; for a target that is not in the video the type is absent")
    return Expression(" ".join(text.split()), ids, type_id)


def _from_json(path: Path) -> Iterator[tuple[str, Expression]]:
    content = read_json(path)
    videos = content.get("videos", content) if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        raise DataError(f"captions: {path} is no JSON object of videos")
    for video, entry in videos.items():
        where = f"{path}: video {video}"
        if not isinstance(entry, dict):
            raise DataError(f"{where} is not {{object number: text}}")
        if "expressions" not in entry:
            for number, texts in entry.items():
                for text in texts if isinstance(texts, list) else [texts]:
                    yield video, make_expression(text, number, None, f"{where}, object {number}")
            continue
        listed = entry["expressions"]
        for number, given in listed.items() if isinstance(listed, dict) else enumerate(listed):
            inside = f"{where}, expression {number}"
            if not isinstance(given, dict):
                raise DataError(f"{inside} is no object with exp and obj_id")
            text = given.get("exp", given.get("exp_text"))
            yield video, make_expression(text, given.get("obj_id"), given.get("type_id", given.get("type")), inside)


def _from_csv(path: Path) -> Iterator[tuple[str, Expression]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        comma = ";" if ";" in first and "," not in first else ","  # as spreadsheets write it in half of Europe
        rows = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else comma)
        missing = {"video", "object", "expression"} - set(rows.fieldnames or ())
        if missing:
            raise DataError(f"captions: the first line of {path} names no column {', '.join(sorted(missing))}")
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if not row["video"]:
                raise DataError(f"{where}: no video")
            yield row["video"], make_expression(row["expression"], row["object"], row.get("type"), where)


def _from_lines(path: Path) -> Iterator[tuple[str, Expression]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        match = LINE.match(line)
        if match is None:
            raise DataError(f'{path}, line {number} is not: video object "expression"')
        yield match[1], make_expression(match[3], match[2], None, f"{path}, line {number}")
