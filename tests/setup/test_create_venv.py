"""create_venv.sh says in one line what a machine lacks, before anything is downloaded."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that the script reads, without a `.venv`."""
    shutil.copytree(ROOT / "training_scripts" / "setup", tmp_path / "training_scripts" / "setup")
    for name in ("setup.py", "requirements.txt", "requirements-cpu.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def run(checkout: Path, python: str, **environment: str) -> subprocess.CompletedProcess:
    """The script with an interpreter that is a shell script of the given lines."""
    interpreter = checkout / "bin" / "python3"
    interpreter.parent.mkdir()
    interpreter.write_text(f"#!/bin/sh\n{python}\n")
    interpreter.with_name("nvidia-smi").write_text("#!/bin/sh\nexit 1\n")  # the CPU set, on every machine
    for program in interpreter.parent.iterdir():
        program.chmod(0o755)
    return subprocess.run(
        ["bash", "training_scripts/setup/create_venv.sh"],
        cwd=checkout,
        env={"PATH": f"{interpreter.parent}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
    )


OLD = 'case "$2" in *print*) echo 3.10 ;; *exit*) exit 1 ;; esac'
WITHOUT_VENV = 'case "$2" in *print*) echo 3.12 ;; *ensurepip*) echo no module >&2; exit 1 ;; esac'
GOOD = 'case "$2" in *print*) echo 3.12 ;; esac'


@pytest.mark.parametrize(
    ("python", "environment", "line"),
    [
        (GOOD, {"PYTHON": "python9"}, "No python9 here: install Python 3.11 or newer"),
        (OLD, {}, "Python 3.11 or newer is required, and python3 is 3.10"),
        (WITHOUT_VENV, {}, "python3 has no venv: apt-get install python3.12-venv"),
        (GOOD, {"INSTALLER": "uv9"}, "INSTALLER=uv9 is not installed: pip install uv"),
    ],
)
def test_one_line_says_what_is_missing(checkout, python, environment, line):
    result = run(checkout, python, **environment)
    assert result.returncode == 1 and result.stdout == ""
    (message,) = result.stderr.splitlines()
    assert message.startswith(line)
    assert not (checkout / ".venv").exists()


INSTALLED = """
case "$1" in
    -c) case "$2" in *print*) echo 3.12 ;; *urllib*) exit 1 ;; esac ;;
    -m) mkdir -p .venv/bin; cp bin/python3 .venv/bin/python ;;
esac
"""


def test_uv_gets_the_commands_that_pip_gets(checkout):
    (checkout / "tools").mkdir()
    uv = checkout / "tools" / "uv"
    uv.write_text('#!/bin/sh\necho "$@" >> calls\n')
    uv.chmod(0o755)
    result = run(checkout, INSTALLED, INSTALLER=str(uv))
    assert result.returncode == 0, result.stderr
    calls = (checkout / "calls").read_text().splitlines()
    assert all(call.startswith("pip install --python .venv/bin/python --quiet") for call in calls)
    assert calls[-2:] == [
        "pip install --python .venv/bin/python --quiet --no-deps --no-build-isolation -r requirements-cpu.lock",
        "pip install --python .venv/bin/python --quiet --no-deps --no-build-isolation --editable .",
    ]
    assert (checkout / ".venv" / ".installed-from").read_text().startswith("requirements-cpu.lock ")
