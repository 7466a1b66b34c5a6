"""The command that an import prints at its end works."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.veason.importing.drawn import captions, run, write_png_source
from veason.importing import import_summary
from verl.trainer.main import run as run_training

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("gpu", "config"), [(None, "configs/toy/demo.yaml"), ("/x", "configs/grpo_3b_one_gpu.yaml")])
def test_the_next_command_suits_the_machine(tmp_path, monkeypatch, capsys, gpu, config):
    monkeypatch.setattr(import_summary.shutil, "which", lambda _: gpu)
    source = write_png_source(tmp_path / "in")
    assert run(source, "--output", tmp_path / "out", "--captions", captions(source), "--val_ratio", 0.5) == 0
    assert f"config={config} data.train_files={tmp_path / 'out'} worker" in capsys.readouterr().out


@pytest.mark.parametrize("written", ["no video", "no expression", "both"])  # what the validation split lacks
def test_the_next_command_works_without_validation_videos(tmp_path, monkeypatch, capsys, written):
    monkeypatch.setattr(import_summary.shutil, "which", lambda _: None)
    monkeypatch.chdir(ROOT)
    source, ratio = write_png_source(tmp_path / "in"), 0 if written == "no video" else 0.5
    assert run(source, "--output", tmp_path / "all", "--captions", captions(source), "--val_ratio", ratio) == 0
    if written == "no expression":
        (trained,) = json.loads((tmp_path / "all" / "meta_expressions_train_.json").read_text())["videos"]
        (tmp_path / "c.csv").write_text(f"video,object,expression\n{trained},1,it moves\n")
        capsys.readouterr()
        assert run(source, "--output", tmp_path / "all", "--captions", tmp_path / "c.csv", "--val_ratio", ratio) == 0
    command = capsys.readouterr().out.split("python -m verl.trainer.main ")[1]
    assert ("data.val_files=null" in command) == (written != "both")
    words = [*shlex.split(command), f"trainer.save_checkpoint_path={tmp_path / 'run'}", "--plan"]
    assert run_training(words, "verl.trainer.main") == 0
    assert "would not start" not in capsys.readouterr().out


def test_expressions_about_validation_videos_alone_are_told_of(tmp_path, capsys):
    source = write_png_source(tmp_path / "in")
    assert run(source, "--output", tmp_path / "out", "--captions", captions(source), "--val_ratio", 0.5) == 0
    (validated,) = json.loads((tmp_path / "out" / "meta_expressions_valid_.json").read_text())["videos"]
    (tmp_path / "c.csv").write_text(f"video,object,expression\n{validated},1,it moves\n")
    capsys.readouterr()
    assert run(source, "--output", tmp_path / "out", "--captions", tmp_path / "c.csv", "--val_ratio", 0.5) == 0
    printed = capsys.readouterr().out
    assert "no expression is about a training video; --val_ratio 0" in printed and "verl.trainer" not in printed
