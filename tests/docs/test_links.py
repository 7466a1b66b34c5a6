"""The Markdown files: relative links, anchors, paths and commands exist. Nothing is requested from the network."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (
    "benchmarks",
    "configs",
    "docs",
    "eval",
    "grpo_reward",
    "tests",
    "training_data_construction",
    "training_scripts",
    "veason",
    "verl",
    "weights",
)
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
HISTORY = ("CHANGELOG.md", "log.md")  # these may name files and commands that no longer exist

FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(
    r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE
)
NAME_LINK = re.compile(r"\[`(?![^`]*\.py`)([A-Za-z_][\w.]*)`\]\(([^)\s]+\.py)\)")  # `a.py` is a file, no name
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
PACKAGES = "|".join(FOLDERS)
PATH = re.compile(rf"^(?:{PACKAGES})/[\w./-]+$")
MODULE = re.compile(rf"python -m ((?:{PACKAGES})(?:\.\w+)*)")


def prose(text: str) -> str:
    """A page without its code blocks and inline code."""
    return CODE.sub("", FENCE.sub("", text))


def slug(heading: str) -> str:
    """GitHub's anchor of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@lru_cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page; a repeated heading gets a number."""
    found: dict[str, int] = {}
    names = set(re.findall(r'<a (?:id|name)="([^"]+)"', page.read_text(encoding="utf-8")))
    for heading in HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        name = slug(heading)
        names.add(f"{name}-{found[name]}" if name in found else name)
        found[name] = found.get(name, 0) + 1
    return names


def broken_links(page: Path) -> list[str]:
    """The relative links of a page whose file or anchor does not exist."""
    broken = []
    for match in LINK.finditer(prose(page.read_text(encoding="utf-8"))):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    return broken


def undefined_names(page: Path) -> list[str]:
    """The links [`name`](file.py) of a page whose file does not define the name, `Class.method` included."""
    missing = []
    for name, target in NAME_LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        tree = ast.parse((page.parent / target).read_text(encoding="utf-8"))
        for part in name.split("."):
            nodes = [node for node in tree.body if part in defined_names(node)]
            if not nodes:
                missing.append(f"{name} in {target}")
                break
            tree = nodes[0]
    return missing


def defined_names(node: ast.stmt) -> list[str | None]:
    """The names that a statement gives: of a class, a function, or a variable."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
    return [getattr(target, "id", getattr(target, "name", None)) for target in targets]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_files_define_the_names_that_link_to_them(page: Path) -> None:
    assert undefined_names(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_anchors_exist(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in HISTORY], ids=lambda page: str(page.relative_to(ROOT))
)
def test_named_paths_and_modules_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = {code.strip("`") for code in CODE.findall(text) if PATH.match(code.strip("`"))}
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    modules = {name.replace(".", "/") for name in MODULE.findall(text)}
    assert [name for name in sorted(modules) if not ((ROOT / f"{name}.py").exists() or (ROOT / name).is_dir())] == []


def test_a_name_that_a_linked_file_does_not_define_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("class A:\n    def b(self): ...\n")
    page = tmp_path / "page.md"
    page.write_text("[`A.b`](a.py) [`A`](a.py) [`A.c`](a.py) [`b`](a.py) [`a.py`](a.py)\n```\n[`x`](a.py)\n```\n")
    assert undefined_names(page) == ["A.c in a.py", "b in a.py"]


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b` (c)\n\n[ok](#a-b-c) [gone](other.md) [no anchor](page.md#d) `[code](x.md)`\n\n[ref]: gone.md\n"
    )
    assert broken_links(page) == ["other.md", "page.md#d", "gone.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_have_at_most_120_characters(page: Path) -> None:
    """Rows of tables cannot be wrapped; everything else can."""
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not line.lstrip().startswith("|")] == []
