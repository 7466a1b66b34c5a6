"""Hooks of mkdocs: the README and two more files become pages, and links to source files lead to the repository.

In the repository all links are relative to their file, so that they work on a code host too.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import normpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# file of the repository -> page of the site
ADDED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
DEFINITION = re.compile(r"^(\[[^\]]+\]: *)(\S+)$", re.MULTILINE)


def on_config(config: Any) -> Any:
    """Leaves out the pages of the navigation that this checkout does not have."""
    config["nav"] = [entry for entry in map(existing, config["nav"]) if entry]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are not in docs/."""
    for name, page in ADDED.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Rewrites the links of a page outside its code blocks."""
    source = next((name for name, added in ADDED.items() if added == page.file.src_uri), f"docs/{page.file.src_uri}")
    parts = []
    end = 0
    for fence in FENCE.finditer(markdown):
        parts += [rewrite(markdown[end : fence.start()], source, config["repo_url"]), fence[0]]
        end = fence.end()
    return "".join([*parts, rewrite(markdown[end:], source, config["repo_url"])])


def rewrite(text: str, source: str, repository: str | None) -> str:
    """The text with each relative link led to its page on the site, or to the repository.

    Args:
        source: the file of the text, relative to the repository's root.
        repository: its address; without one a link to a source file becomes its text.
    """

    def replace(match: re.Match[str]) -> str:
        picture, label, target = match.groups()
        address = site_address(target, source, repository)
        return label if address is None and not picture else f"{picture}[{label}]({address or target})"

    def define(match: re.Match[str]) -> str:
        return match[1] + (site_address(match[2], source, repository) or match[2])

    return DEFINITION.sub(define, LINK.sub(replace, text))


def site_address(target: str, source: str, repository: str | None) -> str | None:
    """Where a link of `source` leads on the site; None for a source file while the repository's address is unknown."""
    if re.match(r"[a-z]+:|#", target):
        return target
    name, hash_sign, anchor = target.partition("#")
    file = normpath(f"{Path(source).parent.as_posix()}/{name}")
    if file in ADDED:
        return ADDED[file] + hash_sign + anchor
    if file.startswith("docs/") and (ROOT / file).is_file():
        return file.removeprefix("docs/") + hash_sign + anchor
    if not (ROOT / file).exists():
        return target  # mkdocs names it as broken
    kind = "tree" if (ROOT / file).is_dir() else "blob"
    return f"{repository.rstrip('/')}/{kind}/main/{file}{hash_sign}{anchor}" if repository else None


def existing(entry: Any) -> Any:
    """An entry of the navigation without the pages that do not exist; None where nothing is left."""
    if isinstance(entry, str):
        return entry if entry in ADDED.values() or (ROOT / "docs" / entry).is_file() else None
    ((title, target),) = entry.items()
    if isinstance(target, str):
        return entry if existing(target) else None
    kept = [each for each in map(existing, target) if each]
    return {title: kept} if kept else None
