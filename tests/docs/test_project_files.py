"""The project's files agree with each other."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_one_version() -> None:
    version = re.search(r'version="([^"]+)"', read("setup.py"))[1]
    released = re.findall(r"^## \[(\d[^\]]*)\] - (\d{4}-\d{2}-\d{2})$", read("CHANGELOG.md"), re.MULTILINE)
    citation = yaml.safe_load(read("CITATION.cff"))
    assert released[0] == (version, citation["date-released"]) and citation["version"] == version
    assert "## [Unreleased]" in read("CHANGELOG.md")


def test_the_citation_is_that_of_the_readme() -> None:
    paper = yaml.safe_load(read("CITATION.cff"))["preferred-citation"]
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert f"title={{{paper['title']}}}" in read("README.md") and f"author={{{authors}}}" in read("README.md")


def test_pre_commit_has_the_ruff_of_the_requirements() -> None:
    ruff = re.search(r"^ruff==(\S+)$", read("requirements.txt"), re.MULTILINE)[1]
    hooks = {
        repo["repo"].rpartition("/")[2]: repo["rev"]
        for repo in yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    }
    assert hooks["ruff-pre-commit"] == f"v{ruff}"
    assert f"ruff=={ruff}" in read("requirements-cpu.lock")
