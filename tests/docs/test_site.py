"""The documentation as a site: it builds without a warning, every page is in the navigation, links lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://example.org/veason"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. mkdocs fails for a broken link, a missing anchor, and a page outside the navigation."""
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "REPOSITORY_URL": REPOSITORY, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_the_readme_is_the_first_page(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    assert "<h1" in page and "Open Veason-R1" in page
    assert {"quickstart", "changelog", "contributing", "architecture"} <= {path.name for path in site.iterdir()}


def test_links_to_files_lead_to_files(site: Path) -> None:
    """Links within the site, and those to the repository's files, which mkdocs does not check."""
    broken = []
    for page in site.rglob("*.html"):
        for target in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text(encoding="utf-8")):
            if target.startswith(f"{REPOSITORY}/"):
                file = ROOT / target.removeprefix(f"{REPOSITORY}/").partition("/main/")[2]
            elif re.match(r"[a-z]+:|//", target) or page.name == "404.html":
                continue
            else:
                file = page.parent / target
            if not file.exists():
                broken.append(f"{page.relative_to(site)}: {target}")
    assert broken == []


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    loaded = re.findall(r'<(?:script|img)[^>]+src="(https?:[^"]+)"|<link[^>]+href="(https?:[^"]+)"', page)
    assert [address for pair in loaded for address in pair if address and not address.startswith(REPOSITORY)] == []


def test_every_page_is_in_the_navigation_once() -> None:
    text = re.sub(r"!\S+", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages: list[str] = []

    def collect(entry: object) -> None:
        if isinstance(entry, str):
            pages.append(entry)
        else:
            for each in entry if isinstance(entry, list) else entry.values():  # type: ignore[attr-defined]
                collect(each)

    collect(yaml.safe_load(text)["nav"])
    assert len(pages) == len(set(pages))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= set(pages)


@pytest.mark.parametrize(
    ("text", "repository", "expected"),
    [
        ("[a](docs/data.md#audit)", None, "[a](data.md#audit)"),
        ("[a](verl/trainer/grpo.py)", REPOSITORY, f"[a]({REPOSITORY}/blob/main/verl/trainer/grpo.py)"),
        ("[`verl/`](verl)", REPOSITORY, f"[`verl/`]({REPOSITORY}/tree/main/verl)"),
        ("[a](verl/trainer/grpo.py)", None, "a"),
        ("[a](https://x.org) [b](#c)", REPOSITORY, "[a](https://x.org) [b](#c)"),
        ("[a](gone.py)", REPOSITORY, "[a](gone.py)"),
        ("[v]: CHANGELOG.md#v\n", None, "[v]: changelog.md#v\n"),
    ],
)
def test_links_of_the_readme_are_rewritten(text: str, repository: str | None, expected: str) -> None:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
    assert spec and spec.loader
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert hooks.rewrite(text, "README.md", repository) == expected
