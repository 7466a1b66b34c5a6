"""setup.py declares what the code imports, in ranges that hold what the lock files pin."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = ("veason", "verl", "grpo_reward", "eval", "training_data_construction")
# import name -> distribution, where they differ; what comes with another declared package
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "hydra": "hydra-core",
    "PIL": "transformers",
    "markupsafe": "jinja2",
    "numpy": "transformers",
    "packaging": "transformers",
    "safetensors": "transformers",
    "yaml": "transformers",
    "tokenizers": "transformers",
}
CHOSEN = {"vllm", "torch"}  # in the extras
BROUGHT = {"huggingface-hub", "psutil"}  # by transformers and ray; the list of the GPU does not name them
OPTIONAL = {"swanlab", "mlflow", "flash_attn", "gradio"}  # used where it is chosen, or where it is there


@pytest.fixture(scope="module")
def declared() -> dict[str, list[Requirement]]:
    """Extra (or "" for all installations) -> requirements, as setup.py gives them to setuptools."""
    given: dict = {}
    original, setuptools.setup = setuptools.setup, given.update
    try:
        runpy.run_path(str(ROOT / "setup.py"))
    finally:
        setuptools.setup = original
    return {
        name: [Requirement(line) for line in lines]
        for name, lines in {"": given["install_requires"], **given["extras_require"]}.items()
    }


def pins(name: str) -> dict[str, str]:
    lines = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(package): version for package, version in lines}


@pytest.mark.parametrize(("lock", "left_out"), [("requirements.txt", "cpu"), ("requirements-cpu.lock", "gpu")])
def test_the_pins_are_inside_the_ranges(declared, lock, left_out):
    pinned = pins(lock)
    for extra, requirements in declared.items():
        for requirement in requirements if extra not in (left_out, "app") else []:
            name = canonicalize_name(requirement.name)
            if name in pinned:
                assert requirement.specifier.contains(pinned[name]), f"{lock}: {name}=={pinned[name]}"
            else:  # pinned by its range, or brought by another package
                line = str(requirement)
                assert (name in BROUGHT and lock == "requirements.txt") or line in ranges(lock)


def test_the_list_of_the_page_adds_to_the_others_and_changes_nothing(declared):
    """Installed with --no-deps on top of either list, as gradio asks for an older Pillow than they pin."""
    added = pins("requirements-app.lock")
    assert not added.keys() & (pins("requirements-cpu.lock").keys() | pins("requirements.txt").keys())
    (requirement,) = declared["app"]
    assert requirement.name == "gradio" and requirement.specifier.contains(added["gradio"])
    assert list(added) == sorted(added)


def ranges(name: str) -> set[str]:
    """The lines of a lock file that give a range."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {str(Requirement(line)) for line in lines if line and not line.startswith("#") and "==" not in line}


def imported(folder: Path) -> set[str]:
    """The top packages that the files of a folder import, in functions too."""
    names = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").partition(".")[0])
    return names - set(sys.stdlib_module_names)


def test_every_import_is_declared(declared):
    own = {*PACKAGES, "benchmarks", "training_scripts", "tests"}
    names = set().union(*(imported(ROOT / package) for package in PACKAGES)) - own - CHOSEN - OPTIONAL
    wanted = {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in names}
    everywhere = {canonicalize_name(requirement.name) for requirement in declared[""]}
    assert wanted - everywhere == set()


def test_the_extras_that_the_documents_name_exist(declared):
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {extra for page in pages for extra in re.findall(r"pip install -e \.\[(\w+)\]", page.read_text("utf-8"))}
    assert named <= set(declared) and named
