"""Mutations of chain-of-thought records, as supervised fine-tuning reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.data_mutations.mutation import ACCEPTED, Mutation, edit_json, put, replace_bytes

RECORDS = ("cot.json",)
REMOVE = object()
FIRST = frozenset({"a/0"})
DEEP = "[" * 100_000 + "]" * 100_000

FIELDS: dict[str, tuple[str, Any]] = {
    "video_missing": ("video", REMOVE),
    "video_number": ("video", 3),
    "video_parent_folder": ("video", "../a"),
    "video_nul_byte": ("video", "a\x00"),
    "exp_id_list": ("exp_id", [0]),
    "exp_id_parent_folder": ("exp_id", "../0"),
    "text_empty": ("exp", " "),
    "text_null": ("exp", None),
    "text_image_pad": ("exp", "a <|image_pad|>"),
    "object_ids_text": ("anno_id", "0"),
    "object_ids_unknown": ("anno_id", [99]),
    "frames_text": ("frames", "00000"),
    "frames_null": ("frames", None),
    "frames_fewer": ("frames", ["00000"]),
    "frame_ids_null": ("frame_ids", None),
    "frame_ids_text": ("frame_ids", "0"),
    "frame_ids_empty": ("frame_ids", []),
    "frame_ids_texts": ("frame_ids", ["0", "3"]),
    "frame_ids_fractions": ("frame_ids", [0.5, 1]),
    "frame_ids_negative": ("frame_ids", [-1, 2]),
    "frame_ids_beyond": ("frame_ids", [0, 12]),
    "frame_ids_huge": ("frame_ids", [0, 10**30]),
    "frame_ids_twice": ("frame_ids", [2, 2]),
    "frame_ids_backwards": ("frame_ids", [6, 2]),
    "conversation_null": ("conversation", None),
    "conversation_text": ("conversation", "human, gpt"),
    "conversation_empty": ("conversation", []),
    "conversation_of_texts": ("conversation", ["human", "gpt"]),
    "conversation_backwards": ("conversation", [{"from": "gpt", "value": "x"}, {"from": "human", "value": "y"}]),
    "answer_missing": ("conversation", [{"from": "human", "value": "x"}, {"from": "gpt"}]),
    "answer_number": ("conversation", [{"from": "human", "value": "x"}, {"from": "gpt", "value": 5}]),
    "answer_empty": ("conversation", [{"from": "human", "value": "x"}, {"from": "gpt", "value": ""}]),
    "answer_image_pad": ("conversation", [{"from": "human", "value": "x"}, {"from": "gpt", "value": "<|image_pad|>"}]),
    "answer_lone_surrogate": ("conversation", [{"from": "human", "value": "x"}, {"from": "gpt", "value": "\ud800"}]),
    "side_text": ("keyframe_resize", "56"),
    "side_other": ("keyframe_resize", 560),
    "side_null": ("keyframe_resize", None),
    "sample_id_number": ("sample_id", 7),
    "sample_id_of_another": ("sample_id", "a/1"),
    "height_zero": ("height", 0),
    "type_text": ("type_id", "0"),
}


def mutations() -> Iterator[Mutation]:
    for name, (key, value) in FIELDS.items():

        def change(content: Any, key: str = key, value: Any = value) -> None:
            if value is REMOVE:
                del content[0][key]
            else:
                content[0][key] = value

        yield Mutation(f"record_{name}", edit_json(RECORDS, change), "cot", affected=FIRST)
    for name, value in {"null": None, "text": "a/0", "number": 4, "list": []}.items():
        replace = edit_json(RECORDS, lambda content, value=value: [value, *content[1:]])
        yield Mutation(f"record_{name}", replace, "cot", affected=FIRST)
    for name, raw in {"null": b"null", "dict": b"{}", "empty_list": b"[]", "empty": b"", "deep": DEEP.encode()}.items():
        yield Mutation(f"records_{name}", replace_bytes(RECORDS, lambda _, raw=raw: raw), "cot")
    yield Mutation("records_cut", replace_bytes(RECORDS, lambda raw: raw[:-10]), "cot")
    for what in ("nothing", "folder", "fifo", "socket", "loop", "zero_device", "sparse"):
        yield Mutation(f"records_are_{what}", put(RECORDS, what), "cot")
    twice = edit_json(RECORDS, lambda content: [content[0], *content])
    yield Mutation("record_twice", twice, "cot", affected=FIRST)
    without = edit_json(RECORDS, lambda content: [record.pop("CoT") and record for record in content])
    yield Mutation("records_without_chain", without, "cot", verdict=ACCEPTED)
