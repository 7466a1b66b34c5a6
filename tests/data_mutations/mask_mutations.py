"""Mutations of mask_dict.json, of its index, and of mask_dict_foreground.json."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.data_mutations.mutation import HARMLESS, REPORTED, Change, Mutation, edit_json, put, replace_bytes
from tests.veason.small_revos import FRAMES, HEIGHT, WIDTH, rectangle, rle_json
from veason.data.mask_index import MaskIndex

MASKS, FOREGROUND = ("mask_dict.json",), ("mask_dict_foreground.json",)
OBJECT_0, OBJECT_1 = frozenset({"a/0", "a/1"}), frozenset({"a/1"})  # the samples that show an object
DEEP = "[" * 100_000 + "]" * 100_000
OBJECTS = ("nothing", "folder", "fifo", "socket", "loop", "dangling", "zero_device", "sparse", "empty")


def whole_file(paths: tuple[str, ...], label: str) -> Iterator[Mutation]:
    contents: dict[str, Callable[[bytes], bytes]] = {
        "cut_in_half": lambda raw: raw[: len(raw) // 2],
        "cut_last_byte": lambda raw: raw[:-1],
        "list": lambda raw: b"[]",
        "null": lambda raw: b"null",
        "no_object": lambda raw: b"{}",
        "two_documents": lambda raw: raw + raw,
        "zeros": lambda raw: bytes(1000),
        "page": lambda raw: b"<html><body>404 Not Found</body></html>",
        "not_a_number": lambda raw: raw.replace(b"[48, 80]", b"[NaN, 80]"),
        "deep_list": lambda raw: raw[:-1] + b', "deep": ' + DEEP.encode() + b"}",
    }
    for name, change in contents.items():
        yield Mutation(f"{label}_file_{name}", replace_bytes(paths, change))
    for what in OBJECTS:
        # without foreground masks R is not computed, which scoring says
        accepted = label == "foreground" and what == "nothing"
        yield Mutation(f"{label}_file_is_{what}", put(paths, what), verdict=HARMLESS if accepted else "refused")


def _track(name: str, value: Any) -> Change:
    """Set an object's masks, by its id; a function is given the old ones."""

    def change(content: Any) -> None:
        content[name] = value(content[name]) if callable(value) else value

    return edit_json(MASKS, change)


def _mask(value: Any) -> Change:
    """Set the mask of object 1 in frame 3; a function is given the old one."""

    def change(content: Any) -> None:
        content["1"][3] = value(content["1"][3]) if callable(value) else value

    return edit_json(MASKS, change)


def plain_counts() -> list[int]:
    """The uncompressed runs of object 1, column by column."""
    flat = rectangle(30, 50, 39, 69).T.reshape(-1)
    runs, value = [0], 0
    for pixel in flat:
        if pixel != value:
            runs, value = [*runs, 0], pixel
        runs[-1] += 1
    return runs


TRACKS: dict[str, Any] = {
    "null": None,
    "text": "none",
    "number": 4,
    "dict": {},
    "empty": [],
    "numbers": [1, 2, 3] * 4,
    "texts": ["x"] * 12,
    "short": lambda track: track[:-1],
    "all_null": [None] * FRAMES,
    "no_pixel": [rle_json(rectangle(0, 0, -1, -1))] * FRAMES,
    "other_size": [{"size": [40, 40], "counts": "PT1"}] * FRAMES,
    "polygons": [[[1.5, 2.5, 3.5, 4.5, 5.5, 6.5]]] * FRAMES,
    "deep": lambda track: [[[[[[track[0]]]]]], *track[1:]],
}
COUNTS = rle_json(rectangle(30, 50, 39, 69))["counts"]
SIZE = [HEIGHT, WIDTH]
ONE_MASK: dict[str, Any] = {
    "text": "mask",
    "number": 1,
    "empty_dict": {},
    "no_counts": {"size": SIZE},
    "no_size": {"counts": COUNTS},
    "counts_null": {"size": SIZE, "counts": None},
    "counts_number": {"size": SIZE, "counts": 10**9},
    "counts_empty": {"size": SIZE, "counts": ""},
    "counts_not_ascii": {"size": SIZE, "counts": "é" * 9},
    "counts_cut": {"size": SIZE, "counts": COUNTS[:-2]},
    "counts_doubled": {"size": SIZE, "counts": COUNTS + COUNTS},
    "counts_too_many": {"size": SIZE, "counts": "5" * 9000},
    "counts_of_long_runs": {"size": SIZE, "counts": "o" * 5000 + "0"},
    "counts_control_characters": {"size": SIZE, "counts": "\x01\x02\x03"},
    "runs_negative": {"size": SIZE, "counts": [-1, HEIGHT * WIDTH + 1]},
    "runs_fraction": {"size": SIZE, "counts": [0.5, HEIGHT * WIDTH - 0.5]},
    "runs_text": {"size": SIZE, "counts": ["10", "20"]},
    "runs_too_few": {"size": SIZE, "counts": [10, 20]},
    "runs_too_many": {"size": SIZE, "counts": [10, HEIGHT * WIDTH]},
    "runs_huge": {"size": SIZE, "counts": [10**30, 1]},
    "runs_nested": {"size": SIZE, "counts": [[10], [HEIGHT * WIDTH - 10]]},
    "size_text": {"size": "48x80", "counts": COUNTS},
    "size_digits": {"size": ["48", "80"], "counts": COUNTS},
    "size_fraction": {"size": [48.5, 80], "counts": COUNTS},
    "size_of_three": {"size": [48, 80, 3], "counts": COUNTS},
    "size_zero": {"size": [0, 0], "counts": COUNTS},
    "size_negative": {"size": [-48, -80], "counts": COUNTS},
    "size_swapped": {"size": [WIDTH, HEIGHT], "counts": COUNTS},
    "size_huge": {"size": [10**6, 10**6], "counts": "0`gjlg3"},
    "size_beyond_64_bits": {"size": [10**30, 1], "counts": COUNTS},
    "size_null": {"size": None, "counts": COUNTS},
    "parts_of_two_sizes": [{"size": SIZE, "counts": COUNTS}, {"size": [4, 4], "counts": "0`0"}],
    "deep": [[[[{"size": SIZE, "counts": COUNTS}]]]],
}


def tracks() -> Iterator[Mutation]:
    for name, value in TRACKS.items():
        affected = frozenset({"a/0"}) if name in ("all_null", "no_pixel") else OBJECT_0  # a/1 shows object 1 too
        yield Mutation(f"masks_{name}", _track("0", value), affected=affected)
    yield Mutation("masks_long", _track("1", lambda track: [*track, None]), verdict=REPORTED)
    there = rle_json(rectangle(0, 0, 9, 9))
    flicker = lambda track: [*track[:3], there, *track[4:]]  # noqa: E731
    yield Mutation("masks_elsewhere_for_one_frame", _track("1", flicker), verdict=REPORTED)
    yield Mutation("masks_of_an_unused_object", edit_json(MASKS, lambda content: content.update(x=7)), verdict=HARMLESS)
    rename = edit_json(MASKS, lambda content: content.update({"01": content.pop("1")}))
    yield Mutation("masks_under_another_id", rename, affected=OBJECT_1)
    twice = replace_bytes(MASKS, lambda raw: raw.replace(b'"1": [', b'"0": ['))
    yield Mutation("masks_of_one_object_twice", twice)
    for name, value in ONE_MASK.items():
        too_long = name in ("runs_huge", "size_beyond_64_bits")  # numbers that break the file as a whole
        yield Mutation(f"mask_{name}", _mask(value), affected=None if too_long else OBJECT_1)
    yield Mutation("mask_as_plain_runs", _mask({"size": SIZE, "counts": plain_counts()}), verdict=HARMLESS)
    yield Mutation("mask_in_two_parts", _mask(lambda mask: [mask, mask]), verdict=HARMLESS)
    yield Mutation("mask_with_further_key", _mask(lambda mask: mask | {"area": -1}), verdict=HARMLESS)


def _foreground(value: Any, key: str | None = "masks_rle") -> Change:
    def change(content: Any) -> None:
        if key is None:
            content["a"] = value
        else:
            content["a"][key] = value(content["a"][key]) if callable(value) else value

    return edit_json(FOREGROUND, change)


def foreground() -> Iterator[Mutation]:
    yield from whole_file(FOREGROUND, "foreground")
    nobody = frozenset[str]()  # training does not read it
    changes = {
        "video_null": _foreground(None, None),
        "video_text": _foreground("masks", None),
        "video_missing": edit_json(FOREGROUND, lambda content: {"b": content["b"]}),
        "null": _foreground(None),
        "short": _foreground(lambda track: track[:-1]),
        "other_size": _foreground([{"size": [40, 40], "counts": "PT1"}] * FRAMES),
        "one_cut": _foreground(lambda track: [*track[:-1], {"size": SIZE, "counts": COUNTS[:-2]}]),
        "one_of_another_size": _foreground(lambda track: [*track[:-1], {"size": [40, 40], "counts": "PT1"}]),
        "one_number": _foreground(lambda track: [*track[:-1], 7]),
    }
    for name, change in changes.items():
        yield Mutation(f"foreground_{name}", change, affected=nobody)
    yield Mutation("foreground_as_lists", _foreground_lists(), verdict=HARMLESS)


def _foreground_lists() -> Change:
    return edit_json(FOREGROUND, lambda content: {video: entry["masks_rle"] for video, entry in content.items()})


def _index(change: Callable[[Path, Random], None]) -> Change:
    """Build the index as a first run does, then change it."""

    def apply(root: Path, rng: Random) -> None:
        MaskIndex.open(root / MASKS[0], progress=False)
        change(root / "mask_dict.json.index", rng)

    return apply


def _statement(statement: str, *values: Any) -> Change:
    def change(path: Path, rng: Random) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute(statement, values)
        connection.close()

    return _index(change)


def _flip_bytes(path: Path, rng: Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(200):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def indices() -> Iterator[Mutation]:
    files: dict[str, Callable[[Path, Random], None]] = {
        "garbage": lambda path, rng: path.write_bytes(rng.randbytes(5000)) and None,
        "empty": lambda path, rng: path.write_bytes(b"") and None,
        "cut_in_half": lambda path, rng: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]) and None,
    }
    for name, change in files.items():
        yield Mutation(f"index_{name}", _index(change), verdict="any")
    for number in range(4):
        yield Mutation(f"index_bytes_flipped_{number}", _index(_flip_bytes), verdict="any")
    yield Mutation("index_of_another_format", _statement("UPDATE source SET format = 1"), verdict=HARMLESS)
    yield Mutation("index_of_another_size", _statement("UPDATE source SET size = 5"), verdict=HARMLESS)
    yield Mutation("index_without_source", _statement("DELETE FROM source"), verdict=HARMLESS)
    yield Mutation("index_without_tracks", _statement("DELETE FROM tracks"), verdict="any")
    yield Mutation("index_track_cut", _statement("UPDATE tracks SET packed = substr(packed, 1, 40)"), verdict="any")
    yield Mutation("index_track_garbage", _statement("UPDATE tracks SET packed = randomblob(900)"), verdict="any")
    yield Mutation("index_summary_garbage", _statement("UPDATE summaries SET frames = 'many'"), verdict="any")
    for what in ("folder", "fifo", "socket", "loop"):
        refused = what == "folder"
        verdict = "refused" if refused else "any"
        yield Mutation(f"index_is_{what}", put(["mask_dict.json.index"], what), verdict=verdict)
        yield Mutation(f"index_lock_is_{what}", put(["mask_dict.json.index.lock"], what), verdict="any")


def mutations() -> Iterator[Mutation]:
    yield from whole_file(MASKS, "masks")
    yield from tracks()
    yield from foreground()
    yield from indices()
