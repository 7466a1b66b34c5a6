"""`veason app`: wrong options in one line before a model is loaded; the toy models where none is named."""

from __future__ import annotations

import importlib.util
import socket
import sys
from types import SimpleNamespace

import pytest

from veason.app import command


@pytest.fixture
def with_gradio(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(command, "find_spec", lambda name: SimpleNamespace() if name == "gradio" else find(name))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "0"], "--port 0 is outside 1 to 65535"),
        (["--port", "web"], "--port"),
        (["--max_frames", "0"], "--max_frames 0 is outside"),
        (["--max_upload_mb", "-1"], "--max_upload_mb -1 is outside"),
        (["--max_waiting", "0"], "--max_waiting 0 is outside"),
        (["--hots", "x"], "--hots"),
        (["--model", "/nowhere", "--sam2", "/nowhere.pt"], "--sam2 /nowhere.pt is no file"),
        (["--host", "203.0.113.7"], "203.0.113.7:7860 cannot be listened at"),
    ],
)
@pytest.mark.usefixtures("with_gradio")
def test_a_wrong_option_is_one_line(words, message, capsys):
    assert command.main(words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("veason app: ") and message in shown and shown.count("\n") == 1


@pytest.mark.usefixtures("with_gradio")
def test_a_port_in_use_is_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert command.main(["--port", str(port)]) == 2
    assert f"127.0.0.1:{port} cannot be listened at" in capsys.readouterr().err


def test_missing_gradio_is_named(monkeypatch, capsys):
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    assert command.main([]) == 2
    assert capsys.readouterr().err == f"veason app: {command.MISSING}\n"


@pytest.mark.usefixtures("with_gradio")
def test_without_a_model_the_toy_models_are_served_to_this_machine(monkeypatch, capsys):
    served = []
    monkeypatch.setattr(
        "veason.inference.model_options.ModelOptions.load_policy", lambda self: SimpleNamespace(toy=self.is_toy)
    )
    monkeypatch.setattr("veason.inference.model_options.ModelOptions.load_tracker", lambda _: None)
    monkeypatch.setattr(command, "serve", lambda *arguments: served.append(arguments))
    monkeypatch.setattr(command, "check_address", lambda *_: None)
    monkeypatch.setitem(sys.modules, "veason.app.page", SimpleNamespace(UsageLimits=lambda *each: each))
    assert command.main(["--max_frames", "50"]) == 0
    ((segmenter, limits, root, host, port, notice),) = served
    assert segmenter.policy.toy and notice == command.TOY_LINE and (host, port) == ("127.0.0.1", 7860)
    assert limits == (50, 200, 16) and not root.exists()
    assert "no model is given" in capsys.readouterr().err
