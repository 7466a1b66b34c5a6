"""The workflow of the public host runs what .ci/run runs, on what the project supports."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.veason.app.conftest import APP_PACKAGES

ROOT = Path(__file__).parents[2]


def test_the_workflow_runs_ci_and_builds_the_documentation() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    test, docs = workflow["jobs"]["test"], workflow["jobs"]["docs"]
    assert "bash .ci/run" in [step.get("run") for step in test["steps"]]
    assert "mkdocs build --strict" in [step.get("run") for step in docs["steps"]]
    assert workflow[True].keys() == {"push", "pull_request"}  # YAML 1.1 reads `on` as true
    assert workflow["permissions"] == {"contents": "read"} and docs["needs"] == "test"
    oldest = re.search(r'python_requires=">=([\d.]+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))
    versions = {
        step["with"]["python-version"]
        for job in (test, docs)
        for step in job["steps"]
        if "python-version" in step.get("with", {})
    }
    assert oldest and versions == {oldest[1]}
    for step in [*test["steps"], *docs["steps"]]:  # actions of one owner, each with a version
        assert "uses" not in step or re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])


def test_ci_installs_a_browser_and_names_a_missing_make() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "apt-get install make" in script and script.rstrip().endswith("make -j 2 test")
    assert "export REQUIRE_CHROMIUM=1 REQUIRE_APP=1" in script


@pytest.mark.parametrize(("required", "raised"), [("1", ModuleNotFoundError), ("", pytest.skip.Exception)])
def test_without_gradio_the_tests_of_the_page_fail_in_ci(required, raised, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # as if it were not installed
    for name in ("tests.veason.app.test_page", "veason.app.page", "veason.app.frame_editor"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv("REQUIRE_APP", required)
    with pytest.raises(raised, match=r"(?i)gradio"):
        importlib.import_module("tests.veason.app.test_page")


def test_make_puts_gradio_where_the_tests_look_for_it() -> None:
    printed = subprocess.run(
        ["make", "--dry-run", "--always-make", "test"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "--no-deps --target .venv-app" in printed and "-r requirements-app.lock" in printed
    assert printed.index(".venv-app") < printed.index("-m pytest")
    assert APP_PACKAGES == ROOT / ".venv-app"
