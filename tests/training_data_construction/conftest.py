"""A small ReVOS on disk and a teacher's HTTP server with injected failures."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_teacher import FRAMES, HEIGHT, KEY, VIDEOS, WIDTH, TeacherServer, encoded, rectangle
from PIL import Image


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
        texts = [
            ("The blue one.", [0], 0),
            ("what is green", [1], 1),
            ("both of them", [0, 1], 1),
            ("a purple cow", [], 2),
        ]
        expressions = {
            str(exp_id): {
                "exp": text,
                "obj_id": objects,
                "anno_id": [ids[number] for number in objects],
                "type_id": type_id,
            }
            for exp_id, (text, objects, type_id) in enumerate(texts)
        }
        meta[name] = {"vid_id": video, "frames": names, "height": HEIGHT, "width": WIDTH, "expressions": expressions}
    (root / "mask_dict.json").write_text(json.dumps(mask_dict))
    (root / "meta_expressions_train_select.json").write_text(json.dumps({"videos": meta}))
    return root


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and no proxy."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


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
