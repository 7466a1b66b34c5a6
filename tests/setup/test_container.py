"""The image's recipe: a linter, and what the recipe takes from this repository exists."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import yaml

from veason.cli import COMMANDS

ROOT = Path(__file__).parents[2]


def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint", path=str(ROOT / ".venv" / "bin")) or "hadolint"
    result = subprocess.run([program, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_image_is_built_from_the_lists_and_run_without_root() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    assert users == ["${USER_ID}"] and "ARG USER_ID=10001" in text
    assert text.index("COPY --chown=veason requirements.txt") < text.index("COPY --chown=veason . .")
    copied = re.search(r"^COPY --chown=veason (.+) \./$", text, re.MULTILINE)
    assert copied and all((ROOT / name).is_file() for name in copied[1].split())
    cuda = re.search(r"^ARG BASE=nvidia/cuda:(\d+)\.", text, re.MULTILINE)
    assert cuda and f"(CUDA {cuda[1]})" in (ROOT / "requirements.txt").read_text(encoding="utf-8")


def test_the_compose_file_runs_commands_that_exist() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    for name, service in compose["services"].items():
        assert service["build"]["context"] == "." and service["image"].startswith("open-veason-r1"), name
        program, command = service["entrypoint"]
        assert program == "veason" and command in COMMANDS, name
        for mount in service["volumes"]:
            assert mount.partition(":")[0].startswith(("./", "${"))
        # a page is reached from this machine alone unless somebody says otherwise
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_image_has_nothing_that_git_ignores() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv", "checkpoints", "outputs", "site"} <= set(ignored)
