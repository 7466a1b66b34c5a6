"""Shared by the teacher's tests: the objects of a small ReVOS, and an HTTP server with injected failures."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np

from veason import masks

VIDEOS, FRAMES, HEIGHT, WIDTH = 4, 12, 48, 64
EXPRESSIONS = 4  # per video: one object, the other, both, and an absent target
PRESENT = VIDEOS * (EXPRESSIONS - 1)  # expressions with a target
KEY = "sk-secret-0123456789"
TIMEOUT = 3  # seconds: what answers at once does so in time, on a busy machine too


def arguments(revos: Path, output: Path, server: TeacherServer | str, *more: object) -> list[str]:
    """The command line of a test: small images, short delays."""
    url = server if isinstance(server, str) else server.url
    fixed = ["--model", "teacher", "--keyframe_resize", "56", "--first_delay", "0.01", "--workers", "4"]
    return ["--data_root", str(revos), "--output", str(output), "--base_url", url, *fixed, *map(str, more)]


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def read_journal(output: Path) -> list[dict[str, Any]]:
    """The journal's answers and lost requests, without the lines that a request is sent or was not billed."""
    return [entry for entry in read_lines(output) if "text" in entry or "lost" in entry]


def read_lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "journal.jsonl").read_text(encoding="utf-8").splitlines()]


def read_records(output: Path, split: str = "train") -> list[dict[str, Any]]:
    return json.loads((output / f"cot_{split}.json").read_text())


def rectangle(video: int, number: int, time_: int) -> tuple[int, int, int, int] | None:
    """Extreme pixels of an object; the second overlaps the first, and is absent from time 3 on."""
    if number == 1 and time_ >= 3:
        return None
    left, top = 2 + 3 * number + video + time_, 5 + 4 * number
    return left, top, left + 12 + time_ // 2, top + 9


def encoded(box: tuple[int, int, int, int] | None) -> dict[str, Any] | None:
    """A filled rectangle as it stands in mask_dict.json."""
    if box is None:
        return None
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[box[1] : box[3] + 1, box[0] : box[2] + 1] = 1
    rle = masks.encode(mask)
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


@dataclass
class Failure:
    """What the server does instead of answering: a status, a broken connection or a malformed body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False


@dataclass
class TeacherServer:
    """Chat completions over HTTP. Answers itself, or forwards to `upstream`; `misbehave` injects failures.

    Attributes:
        misbehave: (request number from 0, question) -> Failure, a text to answer with, or None for a good answer.
        questions: the text of every request, in the order of arrival; `heard` their bodies.
        most: the largest number of requests that were open at once.
    """

    misbehave: Callable[[int, str], Failure | str | None] = lambda _number, _question: None
    upstream: str | None = None
    delay: float = 0.0
    questions: list[str] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    most: int = 0
    _open: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        raw = request.rfile.read(int(request.headers["Content-Length"]))
        body = json.loads(raw)
        question = body["messages"][0]["content"][-1]["text"]
        with self._lock:
            number = len(self.questions)
            self.questions.append(question)
            self.heard.append(body)
            self.keys.add(request.headers["Authorization"])
            self._open += 1
            self.most = max(self.most, self._open)
        try:
            time.sleep(self.delay)
            todo = self.misbehave(number, question)
            if isinstance(todo, Failure):
                self._fail(request, todo)
            elif todo is None and self.upstream:
                self._forward(request, raw)
            else:
                send(request, 200, json.dumps(completion(todo if todo is not None else good_answer(question))).encode())
        finally:
            with self._lock:
                self._open -= 1

    def _fail(self, request: BaseHTTPRequestHandler, failure: Failure) -> None:
        if failure.cut:  # in the middle of a body
            request.send_response(200)
            request.send_header("Content-Length", "1000")
            request.end_headers()
            request.wfile.write(b'{"choices": [')
            request.close_connection = True
            return
        send(request, failure.status, failure.body, failure.headers)

    def _forward(self, request: BaseHTTPRequestHandler, raw: bytes) -> None:
        headers = {"Content-Type": "application/json", "Authorization": request.headers["Authorization"]}
        onward = urllib.request.Request(f"{self.upstream}/chat/completions", data=raw, headers=headers)
        try:
            with urllib.request.urlopen(onward, timeout=60) as response:
                send(request, response.status, response.read())
        except urllib.error.HTTPError as error:
            send(request, error.code, error.read())


def send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    request.send_response(status)
    for name, value in {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **(headers or {}),
    }.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


def completion(text: str) -> dict[str, Any]:
    """A chat completion of 100 + 20 tokens."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "teacher",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }


def asked_keyframe(question: str) -> int:
    """The keyframe of a question."""
    found = re.search(r"at (\d+) seconds", question)
    assert found
    return int(found.group(1))


def good_answer(question: str) -> str:
    """Three steps about the keyframe of a question."""
    time_ = asked_keyframe(question)
    return (
        "Step 1: Two plates move to the right over a grey ground.\n"
        f"Step 2: At {time_} seconds the target is large and nothing hides it, so {time_} is the keyframe.\n"
        "Step 3: It glides along in the upper half of the picture."
    )
