"""Mutations of the other benchmarks' layouts: PNG masks, an annotation file per video, several splits."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from tests.data_mutations.frame_mutations import BAD_PICTURES
from tests.data_mutations.mutation import HARMLESS, Change, Mutation, edit_json, put, replace_bytes

VISA = ("valid/mask_dict.pkl",)
REASONVOS, DAVIS = ("meta_expressions.json",), ("meta_expressions/valid/meta_expressions.json",)
VICAS, VICAS_SPLIT = ("annotations/v0.1/000012.json",), ("splits/v0.1/val.json",)
REMOVE = object()


def png_masks() -> Iterator[Mutation]:
    mask = "Annotations/burst_v_3/00002.png"
    affected = frozenset({"burst_v_3/0"})
    pictures = {
        name: change for name, change in BAD_PICTURES.items() if name not in ("sixteen_bits", "gif", "claimed_size")
    }
    for name, change in pictures.items():
        yield Mutation(f"mask_png_{name}", replace_bytes([mask], change), layout="reasonvos", affected=affected)
    for what in ("nothing", "folder", "fifo", "socket", "loop", "dangling", "zero_device", "empty"):
        yield Mutation(f"mask_png_is_{what}", put([mask], what), layout="reasonvos", affected=affected)
        folder = put(["Annotations/burst_v_3"], what)
        yield Mutation(f"mask_folder_is_{what}", folder, layout="reasonvos", affected=affected)
    yield Mutation("mask_png_in_colour", _colours("Annotations/burst_v_3/00002.png"), layout="reasonvos", verdict="any")
    yield Mutation("mask_png_of_numbers_in_colour", _colours("valid/Annotations/v/00002.png"), layout="refdavis17")


def _colours(name: str) -> Change:
    """A mask's values as red in a picture in colour."""

    def apply(root: Path, rng: Random) -> None:
        with Image.open(root / name) as picture:
            red = picture.convert("L")
        black = Image.new("L", red.size)
        Image.merge("RGB", (red, black, black)).save(root / name)

    return apply


def _set(paths: tuple[str, ...], *keys: Any, value: Any) -> Change:
    """Set or remove the value at a path of keys."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        if value is REMOVE:
            del content[keys[-1]]
        else:
            content[keys[-1]] = value(content[keys[-1]]) if callable(value) else value

    return edit_json(paths, change)


def reasonvos() -> Iterator[Mutation]:
    first = ("videos", "v", "expressions", 0)
    affected = frozenset({"burst_v_3/0"})
    values: dict[str, Any] = {
        "object_missing": ("obj_id", REMOVE),
        "object_null": ("obj_id", None),
        "object_list": ("obj_id", ["3"]),
        "object_parent_folder": ("obj_id", "3/../burst_v_5"),
        "object_unknown": ("obj_id", "77"),
        "object_nul_byte": ("obj_id", "\x00"),
        "text_missing": ("exp_text", REMOVE),
        "text_empty": ("exp_text", ""),
        "text_image_pad": ("exp_text", "<|image_pad|>"),
        "exp_id_list": ("exp_id", ["0"]),
        "exp_id_parent_folder": ("exp_id", "../../../victim"),
        "exp_id_dict": ("exp_id", {}),
    }
    for name, (key, value) in values.items():
        change = _set(REASONVOS, *first, key, value=value)
        yield Mutation(f"reasonvos_{name}", change, layout="reasonvos", affected=affected)
    for name, value in {"missing": REMOVE, "null": None, "list": [], "parent_folder": "../burst"}.items():
        yield Mutation(f"reasonvos_source_{name}", _set(REASONVOS, "videos", "v", "source", value=value), "reasonvos")
    same = _set(REASONVOS, "videos", "v", "expressions", 1, "obj_id", value="3")
    yield Mutation("reasonvos_sample_twice", same, "reasonvos")


def davis() -> Iterator[Mutation]:
    expressions = ("videos", "v", "expressions")
    for name, value in {
        "missing": REMOVE,
        "null": None,
        "text": "one",
        "list": [1],
        "float": 1.5,
        "void": "255",
    }.items():
        change = _set(DAVIS, *expressions, "0", "obj_id", value=value)
        yield Mutation(f"refdavis17_object_{name}", change, "refdavis17", affected=frozenset({"v/0"}))
    unknown = _set(DAVIS, *expressions, "0", "obj_id", value="9")
    yield Mutation("refdavis17_object_unknown", unknown, "refdavis17", affected=frozenset({"v/0"}))

    def rename(content: Any) -> None:
        asked = content["videos"]["v"]["expressions"]
        asked["first"] = asked.pop("0")

    yield Mutation("refdavis17_exp_id_text", edit_json(DAVIS, rename), "refdavis17", affected=frozenset({"v/0"}))


class Harmful:
    """Makes a folder when it is unpickled by somebody who runs what he reads."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harmed",)


def visa() -> Iterator[Mutation]:
    """Ref-DAVIS17 with VISA's mask_dict.pkl: number of an expression -> its masks."""

    def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
        def changed(raw: bytes) -> bytes:
            tracks = pickle.loads(raw)
            return pickle.dumps(tracks if (other := change(tracks)) is None else other)

        return changed

    def set_first(value: Any) -> Callable[[bytes], bytes]:
        return edit(lambda tracks: {**tracks, "0": value})

    whole: dict[str, Callable[[bytes], bytes]] = {
        "cut": lambda raw: raw[:-20],
        "empty": lambda raw: b"",
        "json": lambda raw: b"{}",
        "list": edit(lambda tracks: list(tracks.values())),
        "harmful": set_first(Harmful()),
        "recursive": lambda raw: b"]\x94h\x00a.",
    }
    for name, change in whole.items():
        yield Mutation(f"visa_pickle_{name}", replace_bytes(VISA, change), "visa")
    for what in ("nothing", "fifo", "loop", "folder"):
        yield Mutation(f"visa_pickle_is_{what}", put(VISA, what), "visa")
    tracks: dict[str, Callable[[bytes], bytes]] = {
        "missing": edit(lambda tracks: {key: track for key, track in tracks.items() if key != "0"}),
        "null": set_first(None),
        "number": set_first(3),
        "short": edit(lambda tracks: {**tracks, "0": tracks["0"][:-1]}),
        "long": edit(lambda tracks: {**tracks, "0": [*tracks["0"], None]}),
        "of_texts": edit(lambda tracks: {**tracks, "0": ["a"] * len(tracks["0"])}),
        "of_another_size": edit(lambda tracks: {**tracks, "0": [{"size": [4, 4], "counts": b"0@"}] * len(tracks["0"])}),
        "cut": edit(lambda tracks: {**tracks, "0": [rle and {**rle, "counts": b"1"} for rle in tracks["0"]]}),
    }
    for name, change in tracks.items():
        affected = frozenset({"v1/0"})
        yield Mutation(f"visa_track_{name}", replace_bytes(VISA, change), "visa", affected=affected)


def mevis() -> Iterator[Mutation]:
    meta = ("valid_u/meta_expressions.json",)
    expression = ("videos", "v", "expressions", "0")
    for name, value in {"missing": REMOVE, "null": None, "text": "7", "unknown": [7, 99]}.items():
        yield Mutation(f"mevis_object_ids_{name}", _set(meta, *expression, "anno_id", value=value), "mevis")
    masks = put(["valid_u/mask_dict.json"], "fifo")
    yield Mutation("mevis_masks_are_fifo", masks, "mevis")


def vicas() -> Iterator[Mutation]:
    splits: dict[str, Any] = {
        "text": "12",
        "dict": {"12": 1},
        "null": None,
        "empty": [],
        "texts": ["twelve"],
        "negative": [-12],
        "nested": [[12]],
        "fraction": [12.5],
        "huge": [10**30],
        "not_on_disk": [99],
        "video_twice": [12, 12],
    }
    for name, value in splits.items():
        change = replace_bytes(VICAS_SPLIT, lambda _, value=value: json.dumps(value).encode())
        yield Mutation(f"vicas_split_{name}", change, "vicas")
    one_more = edit_json(VICAS_SPLIT, lambda _: [12, 99])
    yield Mutation("vicas_one_video_not_on_disk", one_more, "vicas", affected=frozenset())
    yield Mutation("vicas_split_as_texts", edit_json(VICAS_SPLIT, lambda _: ["000012"]), "vicas", verdict=HARMLESS)
    changes: dict[str, tuple[tuple[Any, ...], Any]] = {
        "size_missing": (("image_size",), REMOVE),
        "size_text": (("image_size",), "48x80"),
        "size_of_three": (("image_size",), [48, 80, 3]),
        "size_huge": (("image_size",), [10**9, 10**9]),
        "referrals_null": (("object_referrals",), None),
        "referrals_dict": (("object_referrals",), {"0": 1}),
        "referral_null": (("object_referrals", 0), None),
        "prompt_missing": (("object_referrals", 0, "prompt"), REMOVE),
        "prompt_number": (("object_referrals", 0, "prompt"), 3),
        "track_ids_text": (("object_referrals", 0, "track_ids"), "5"),
        "track_ids_number": (("object_referrals", 0, "track_ids"), 5),
        "track_ids_empty": (("object_referrals", 0, "track_ids"), []),
        "track_ids_unknown": (("object_referrals", 0, "track_ids"), [77]),
        "segmentations_null": (("segmentations",), None),
        "segmentations_empty": (("segmentations",), []),
        "segmentations_of_numbers": (("segmentations",), [1, 2]),
        "filename_missing": (("segmentations", 0, "filename"), REMOVE),
        "filename_parent_folder": (("segmentations", 0, "filename"), "../../000013/00000.jpg"),
        "filename_number": (("segmentations", 0, "filename"), 6),
        "frame_twice": (("segmentations", 0, "filename"), "00004.jpg"),
        "is_gt_missing": (("segmentations", 0, "is_gt"), REMOVE),
        "masks_fewer_than_ids": (("segmentations", 0, "mask_rles"), lambda rles: rles[:1]),
        "masks_null": (("segmentations", 0, "mask_rles"), None),
        "ids_null": (("segmentations", 0, "track_ids"), None),
        "mask_number": (("segmentations", 0, "mask_rles", 0), 3),
        "mask_cut": (("segmentations", 0, "mask_rles", 0, "counts"), lambda counts: counts[:-2]),
        "mask_of_another_size": (("segmentations", 0, "mask_rles", 0), {"size": [40, 40], "counts": "PT1"}),
    }
    for name, (keys, value) in changes.items():
        yield Mutation(f"vicas_{name}", _set(VICAS, *keys, value=value), "vicas")
    contents: dict[str, Callable[[bytes], bytes]] = {
        "cut": lambda raw: raw[: len(raw) // 2],
        "list": lambda raw: b"[]",
        "null": lambda raw: b"null",
    }
    for name, change in contents.items():
        yield Mutation(f"vicas_annotation_{name}", replace_bytes(VICAS, change), "vicas")
    for what in ("nothing", "fifo", "loop", "folder"):
        yield Mutation(f"vicas_annotation_is_{what}", put(VICAS, what), "vicas")


def mutations() -> Iterator[Mutation]:
    yield from png_masks()
    yield from reasonvos()
    yield from davis()
    yield from visa()
    yield from mevis()
    yield from vicas()
