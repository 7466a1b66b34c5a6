"""A small ReVOS on disk and a teacher's server over real HTTP that can be told to fail."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from veason import masks

VIDEOS, FRAMES, HEIGHT, WIDTH = 4, 12, 48, 64
EXPRESSIONS = 4  # a video: one object, the other, both, and one whose target is absent


def rectangle(video: int, number: int, time_: int) -> tuple[int, int, int, int] | None:
    """Extreme pixels of an object; the second overlaps the first, and is gone from time 3 on."""
    if number == 1 and time_ >= 3:
        return None
    left, top = 2 + 3 * number + video + time_, 5 + 4 * number
    return left, top, left + 12 + time_ // 2, top + 9


@pytest.fixture(scope="session")
def revos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ReVOS with `VIDEOS` videos of `FRAMES` frames, whose names hold a folder as in the real set."""
    root = tmp_path_factory.mktemp("data") / "ReVOS"
    meta, mask_dict = {}, {}
    for video in range(VIDEOS):
        name, names = f"set/v{video}", [f"{index:05d}" for index in range(FRAMES)]
        (root / "JPEGImages" / name).mkdir(parents=True)
        for index in range(FRAMES):
            frame = np.full((HEIGHT, WIDTH, 3), 90 + 10 * video, dtype=np.uint8)
            for number in (0, 1):
                if box := rectangle(video, number, index):
                    frame[box[1] : box[3] + 1, box[0] : box[2] + 1] = (30, 200, 30) if number else (30, 30, 200)
            Image.fromarray(frame).save(root / "JPEGImages" / name / f"{names[index]}.jpg", quality=95)
        for number in (0, 1):
            mask_dict[str(2 * video + number)] = [encoded(rectangle(video, number, index)) for index in range(FRAMES)]
        ids = [2 * video, 2 * video + 1]
        texts = [("The blue one.", [0], 0), ("what is green", [1], 1), ("both of them", [0, 1], 1), ("a purple cow", [], 2)]
        expressions = {
            str(exp_id): {"exp": text, "obj_id": objects, "anno_id": [ids[number] for number in objects], "type_id": type_id}
            for exp_id, (text, objects, type_id) in enumerate(texts)
        }
        meta[name] = {"vid_id": video, "frames": names, "height": HEIGHT, "width": WIDTH, "expressions": expressions}
    (root / "mask_dict.json").write_text(json.dumps(mask_dict))
    (root / "meta_expressions_train_select.json").write_text(json.dumps({"videos": meta}))
    return root


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
    """Chat completions over HTTP. Answers itself, or passes on to `upstream`; `misbehave` says what goes wrong.

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
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}.items():
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
    """The keyframe that a question gives."""
    found = re.search(r"at (\d+) seconds", question)
    assert found
    return int(found.group(1))


def good_answer(question: str) -> str:
    """Three steps about the keyframe that a question gives."""
    time_ = asked_keyframe(question)
    return (
        "Step 1: Two plates move to the right over a grey ground.\n"
        f"Step 2: At {time_} seconds the target is large and nothing hides it, so {time_} is the keyframe.\n"
        "Step 3: It glides along in the upper half of the picture."
    )


@pytest.fixture
def server() -> Iterator[TeacherServer]:
    """A running server; set its attributes to make it fail."""
    teacher = TeacherServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            teacher.handle(self)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    teacher.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    yield teacher
    http.shutdown()
    http.server_close()
