"""Every program answers --help with each of its options, what it means and its default, and with examples."""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eval.evaluation_options import EvaluateConfig
from eval.metrics import MetricsConfig
from eval.report import ReportConfig
from tests.programs import run_program
from verl.config import Config, read_key_groups

ROOT = Path(__file__).parents[1]
FOLDERS = ("veason", "verl", "eval", "training_data_construction", "training_scripts", "benchmarks")
PROGRAMS = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__main__")
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)
CONFIGURED = {
    "verl.trainer.main": Config,
    "verl.trainer.sft": Config,
    "eval.evaluate": EvaluateConfig,
    "eval.metrics": MetricsConfig,
    "eval.report": ReportConfig,
}
INTERNAL = {"verl.single_controller.driver_watchdog"}  # started by other modules, not by people
GROUPS = {"veason", "veason.cli"}  # they list commands, whose own help is checked
EXAMPLE = re.compile(r"^ {4,}.*(?:python3? |veason |make )\S+", re.MULTILINE)


@pytest.mark.parametrize("program", sorted(set(PROGRAMS) - set(CONFIGURED) - GROUPS - INTERNAL))
def test_every_option_has_a_meaning_and_its_default(program, monkeypatch, capsys):
    parsers = []
    shown = argparse.ArgumentParser.print_help

    def record(parser, *rest):
        parsers.append(parser)
        shown(parser, *rest)

    monkeypatch.setattr(argparse.ArgumentParser, "print_help", record)
    assert run_program(program, ["--help"], monkeypatch) == 0
    (parser,), text = parsers, capsys.readouterr().out
    assert [action.dest for action in parser._actions if not action.help] == []
    for action in parser._actions:
        takes_value = action.option_strings and action.nargs != 0
        if takes_value and action.default not in (None, [], argparse.SUPPRESS) and not isinstance(action.default, dict):
            assert f"({action.default})" in " ".join(text.split()) or "default" in action.help, action.dest
    assert len(EXAMPLE.findall(text)) >= (1 if program.startswith(("benchmarks", "veason.toy")) else 2)


def answer(program: str, *arguments: str) -> int:
    """A program that takes keys; its exit status."""
    if program.startswith("verl"):
        return importlib.import_module("verl.trainer.main").run(arguments, program)
    return importlib.import_module(program).main(arguments)


@pytest.mark.parametrize("program", CONFIGURED)
def test_every_key_is_listed_with_its_default_and_comment(program, capsys):
    assert answer(program, "--help") == 0
    text = capsys.readouterr().out
    words = " ".join(text.split())
    keys = [key for group in read_key_groups(CONFIGURED[program], title="keys") for key in group.keys]
    for key in keys:
        value = "..." if key.default == "required" else key.default
        assert f"  {key.name}={value}" in text and key.comment and " ".join(key.comment.split()) in words, key
    assert len(keys) > 3 and len(EXAMPLE.findall(text)) >= 2


def test_a_word_selects_keys(capsys):
    assert answer("verl.trainer.main", "--help", "lora_rank") == 0
    text = capsys.readouterr().out
    assert "worker.actor.model.lora_rank=0" in text and "lora_alpha" not in text
    launched = ["config=configs/toy/grpo.yaml", "trainer.max_steps=1", "--plan", "--help", "lora_rank"]
    assert answer("verl.trainer.main", *launched) == 0
    assert capsys.readouterr().out == text


def test_help_takes_no_time():
    """It loads no torch."""
    code = "from verl.trainer.main import run; run(['--help'], 'verl.trainer.sft'); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.rstrip().endswith("False")


def test_running_a_program_here_leaves_one_copy_of_it(monkeypatch):
    package = importlib.import_module("verl.trainer")
    before = importlib.import_module("verl.trainer.main")
    assert run_program("verl.trainer.sft", ["--help"], monkeypatch) == 0
    assert run_program("verl.trainer.main", ["--help"], monkeypatch) == 0
    assert package.main is before is sys.modules["verl.trainer.main"]
