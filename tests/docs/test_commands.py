"""Every command of the documents is run here, or is marked with what it needs, and then its arguments are checked.

A block is marked by the title of its fence, which the site shows: ```bash title="needs a GPU". A program of this
project reads the arguments of a marked command as it would in earnest: a configuration is loaded, an option has to
exist. With `--plan` it goes on to what a run would do.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from eval.evaluation_options import EvaluateConfig, parse_overrides
from eval.metrics import MetricsConfig
from eval.report.command import ReportConfig
from tests.docs.command_blocks import (
    BLOCK,
    FENCE,
    HISTORY,
    PAGES,
    ROOT,
    Block,
    Call,
    make_checkout,
    read_blocks,
    record,
    write_program,
)
from tests.programs import run_program
from verl.config import load_config

BLOCKS = read_blocks()
MARKED = [block for block in BLOCKS if block.mark]
RUN = {block.page: [other for other in BLOCKS if other.page == block.page and not other.mark] for block in BLOCKS}
MARK = re.compile(r"needs .+|a download|.*minutes.*")
TRAINERS = ("verl.trainer.main", "verl.trainer.sft")
OPTIONS = {
    "eval.evaluate": (EvaluateConfig, ()),
    "eval.metrics": (MetricsConfig, ("predictions", "data")),
    "eval.report": (ReportConfig, ("run",)),
}
INCOMPLETE = 3  # exit status of --plan: the configuration is sound, and data or weights are not here


def test_every_block_has_the_form_that_is_tested() -> None:
    for page in PAGES:
        if page.name not in HISTORY:
            text = page.read_text(encoding="utf-8")
            assert len(FENCE.findall(text)) == len(BLOCK.findall(text)), f"{page.name}: ```bash, or with a title"
    assert [block.name for block in MARKED if not MARK.fullmatch(block.mark or "")] == []


@pytest.mark.parametrize("page", [page for page, blocks in RUN.items() if blocks])
def test_commands_run(page: str, tmp_path: Path) -> None:
    """The unmarked blocks of a page, one after the other, in one folder."""
    make_checkout(tmp_path)
    programs = tmp_path / ".programs"
    programs.mkdir()
    write_program(programs / "python", f'#!/bin/bash\nexec "{sys.executable}" "$@"\n')
    write_program(programs / "veason", f'#!/bin/bash\nexec "{sys.executable}" -m veason.cli "$@"\n')
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(tmp_path)}
    for block in RUN[page]:
        result = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", block.text], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0, f"{block.text}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"


@pytest.mark.parametrize("block", MARKED, ids=lambda block: block.name)
def test_arguments_of_marked_commands_are_valid(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record(block, tmp_path)
    assert calls, "a block without a command"
    for call in calls:
        for name, value in call.environment.items():
            monkeypatch.setenv(name, value)
        check(call, monkeypatch)


def check(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads the arguments of a call as the program itself does."""
    if call.program == "make":
        assert re.search(rf"^{call.words[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    if call.program not in ("python", "veason"):
        return
    if call.program == "veason" and call.words[0] == "report":
        module, words = "eval.report", call.words[1:]
    elif call.program == "veason":
        module, words = "veason.cli", call.words
    elif call.words[0] == "-m":
        module, words = call.words[1], call.words[2:]
    elif call.words[0] == "-":  # a script on standard input
        return
    else:
        module, words = call.words[0].removesuffix(".py").replace("/", "."), call.words[1:]
    if not (ROOT / module.partition(".")[0]).is_dir():
        return  # another project's, such as Ray's: it would be run
    if module in OPTIONS:
        parse_overrides(OPTIONS[module][0], words, OPTIONS[module][1])
    elif module in TRAINERS:
        if any("my_project" in word for word in words):
            return  # read by tests/docs/test_extending.py, which writes these files
        load_config(words)
        if find_spec("verl.trainer.show_plan"):
            assert run_program(module, [*words, "--plan"], monkeypatch) in (0, INCOMPLETE)
    else:
        parse_only(module, words, monkeypatch)


class Parsed(Exception):
    """The arguments were read; the program does not go on."""


def parse_only(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts a program, and ends it when its arguments have been read."""
    parse = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *arguments: object, **options: object) -> None:
        parse(parser, *arguments, **options)  # type: ignore[call-overload]
        raise Parsed

    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(Parsed):
            run_program(module, words, patched)
