"""The console command: commands are found, named when misspelled, and their exit status is the process's."""

import importlib
import re
import sys
import types
from pathlib import Path

import pytest

from tests.programs import run_program
from veason import cli

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_exists(name):
    module, _, function = cli.COMMANDS[name][0].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (2, 2)])
def test_a_command_is_given_its_arguments(monkeypatch, returned, status):
    given = []
    module = types.SimpleNamespace(main=lambda arguments: given.append(arguments) or returned)
    monkeypatch.setitem(sys.modules, "stand_in", module)
    monkeypatch.setitem(cli.COMMANDS, "stand-in", ("stand_in:main", "for this test"))
    assert cli.main(["stand-in", "a", "--b", "c"]) == status and given == [["a", "--b", "c"]]


def test_what_is_no_command_is_named(capsys):
    assert cli.main(["pedict", "clip.mp4"]) == 2
    assert capsys.readouterr().err == "veason: 'pedict' is no command; did you mean predict?\n"


def test_a_command_of_two_words_is_given_its_arguments(monkeypatch, capsys):
    given = []
    monkeypatch.setitem(sys.modules, "stand_in", types.SimpleNamespace(main=given.append))
    monkeypatch.setitem(cli.COMMANDS, "data import", ("stand_in:main", "for this test"))
    assert cli.main(["data", "import", "a", "--b"]) == 0 and given == [["a", "--b"]]
    assert cli.main(["data", "inport"]) == 2
    assert capsys.readouterr().err == "veason: 'data inport' is no command; did you mean data import?\n"


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["data"], ["data", "--help"]])
def test_all_commands_are_listed(words, capsys):
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", shown, re.MULTILINE) for name in cli.COMMANDS)


def test_the_package_is_the_command(monkeypatch, capsys):
    assert run_program("veason", ["--version"], monkeypatch) == 0
    assert capsys.readouterr().out == f"veason {cli.installed_version()}\n"


def test_it_is_declared_as_a_console_script(capsys):
    assert '"veason = veason.cli:main"' in (ROOT / "setup.py").read_text()
    assert cli.main(["--version"]) == 0 and re.fullmatch(r"veason \S+\n", capsys.readouterr().out)
