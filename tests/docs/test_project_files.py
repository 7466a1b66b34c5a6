"""The project's files agree with each other."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import yaml

from verl.config import load_config
from verl.config.published_keys import NO_EFFECT, OFF_ONLY, RENAMED

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


def test_the_readme_begins_with_a_picture_and_a_command() -> None:
    lines = read("README.md").splitlines()
    assert len(lines) <= 150
    first = {start: next(n for n, line in enumerate(lines, 1) if line.startswith(start)) for start in ("![", "```bash")}
    assert first["!["] <= 10 and first["```bash"] <= 25


def test_configuration_keys_of_the_documents_exist() -> None:
    """Keys in inline code, such as `worker.rollout.n=4`; what follows a dictionary's key is the user's."""
    config = load_config([])
    published = {*RENAMED, *OFF_ONLY, *NO_EFFECT}
    unknown = []
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        if page.name == "log.md":
            continue
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for code in re.findall(r"`([^`\n]+)`", text):
            for key in re.findall(r"(?:^|\s)((?:data|algorithm|worker|trainer|sft)\.[a-z_.0-9]+)(?:=|$|:)", code):
                accepted = has_key(config, key) or any(fnmatch(key, pattern) for pattern in published)
                if not accepted and not key.endswith((".json", ".jsonl", ".py", ".yaml")):
                    unknown.append(f"{page.name}: {key}")
    assert unknown == []


def has_key(config: object, key: str) -> bool:
    """Whether a configuration has a dotted key; any key is in a dictionary."""
    value = config
    for name in key.split("."):
        if isinstance(value, dict):
            return True
        if not hasattr(value, name):
            return False
        value = getattr(value, name)
    return True
