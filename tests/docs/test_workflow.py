"""The workflow of the public host runs what .ci/run runs, on what the project supports."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

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
    assert "apt-get install make" in script and script.rstrip().endswith("make test")
