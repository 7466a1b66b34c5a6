"""Nothing that a server sends raises: it is read where it can be, or it is an InvalidCompletion."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from training_data_construction.completion import MAX_TOKENS, InvalidCompletion, parse_completion


def body(message: Any = "text", **change: Any) -> bytes:
    content = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}, **change}
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (body({"content": "Step 1"}), "Step 1"),
        (body({"content": [{"type": "text", "text": "Step "}, {"type": "text", "text": "1"}]}), "Step 1"),
        (body({"content": ["Step ", {"type": "image_url"}, {"type": "text", "text": "1"}, 7]}), "Step 1"),
        (body({"content": {"type": "text", "text": "Step 1"}}), "Step 1"),
        (body({"content": None}), ""),
        (body({"content": []}), ""),
        (body("Step 1"), "Step 1"),
        (body(choices={"0": {"message": {"content": "Step 1"}}}), "Step 1"),
        (body(choices={"message": {"content": "Step 1"}}), "Step 1"),
        (body(choices=[{"text": "Step 1"}]), "Step 1"),
        (b'{"choices": [{"message": {"content": "a \\ud83d b \\ud83d\\ude00"}}]}', "a \ufffd b \U0001f600"),
        (b'{"choices": [{"message": {"content": "gr\xfcn"}}]}', "gr\ufffdn"),
        (body({"content": "a\x00b\x1b[31mc\td\n"}), "a\ufffdb\ufffd[31mc\td\n"),
    ],
)
def test_what_can_be_read_is_read(sent: bytes, text: str) -> None:
    reply = parse_completion(sent)
    assert reply.text == text and reply.complete
    reply.text.encode()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"<html>maintenance</html>",
        b'{"choices": [{"mess',
        b"[" * 100_000,
        b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"choices": [{"message": {"content": ' + b'{"a":' * 90_000 + b"1" + b"}" * 90_000 + b"}}]}",
        b"7" * 5000,
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe\x00",
        body(choices=[]),
        body(choices={}),
        body(choices=None),
        body(choices="text"),
        body(choices=[None]),
        body(choices=[7]),
        body(choices=[{}]),
        body(choices=[{"message": None}]),
        body(7),
        body({"content": 7}),
        body({"content": True}),
        body({"content": {"type": "image"}}),
        body({"content": [7, {"type": "image"}]}),
        body(error={"message": "overloaded"}, choices=None),
    ],
)
def test_what_holds_no_text_is_unreadable(sent: bytes) -> None:
    with pytest.raises(InvalidCompletion) as caught:
        parse_completion(sent)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 100, "completion_tokens": 20}, 120),
        ({"prompt_tokens": 100}, 100),
        ({"prompt_tokens": -100, "completion_tokens": 20}, 20),
        ({"prompt_tokens": -1, "completion_tokens": -1}, None),
        ({"prompt_tokens": True, "completion_tokens": "20"}, None),
        ({"prompt_tokens": 1.5, "completion_tokens": MAX_TOKENS + 1}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, 0),
        (None, None),
        ([], None),
        ("120", None),
    ],
)
def test_usage_that_is_no_count_is_ignored(usage: Any, tokens: int | None) -> None:
    assert parse_completion(body({"content": "x"}, usage=usage)).tokens == tokens


def test_the_model_and_a_truncated_answer() -> None:
    reply = parse_completion(body(choices=[{"message": {"content": "x"}, "finish_reason": "length"}], model="gpt\n7"))
    assert (reply.model, reply.complete) == ("gpt\n7", False)
    assert parse_completion(body({"content": "x"}, model=["gpt"])).model is None


def test_mutated_bytes_raise_nothing_else() -> None:
    rng = random.Random(0)
    whole = body({"content": [{"type": "text", "text": "Step 1: \u00e4"}]}, model="m")
    values = [b"null", b"[]", b"{}", b"-1", b"1e999", b'"\\ud800"', b"NaN", b"true", b"\xff", b""]
    for _ in range(5000):
        raw = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            start = rng.randrange(len(raw) + 1)
            raw[start : start + rng.randrange(12)] = rng.choice(values)
        try:
            parse_completion(bytes(raw)).text.encode()
        except InvalidCompletion:
            continue
