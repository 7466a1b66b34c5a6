"""The rules of docs/architecture.md, read from the code: imports point down, there is no circle, files and functions
are short.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENTRY_POINTS = ("benchmarks", "eval", "training_data_construction", "training_scripts")

# Each part and what it may import of this project, itself aside; the longest name that fits a module is its part. Parts
# stand below those that import them.
SHARED = ("verl.registry", "verl.atomic_files", "verl.errors", "verl.metric_types", "verl.process_output")
MODELS = (*SHARED, "verl.algorithms", "verl.models", "verl.config", "verl.protocol")
WORKERS = (*MODELS, "verl.single_controller", "verl.workers")
BELOW: dict[str, tuple[str, ...]] = {
    "veason": (),
    "grpo_reward": ("veason",),
    "verl": (),
    **dict.fromkeys(SHARED, ()),
    "verl.protocol": ("verl.atomic_files", "verl.metric_types"),
    "verl.algorithms": SHARED,
    "verl.models": SHARED,
    "verl.config": (*SHARED, "verl.algorithms"),
    "verl.single_controller": SHARED,
    "verl.workers": (*MODELS, "verl.single_controller"),
    "verl.trainer": WORKERS,
    "verl.trainer.build_task": ("verl.config", "verl.protocol", "veason", "grpo_reward"),  # the composition root
    "verl.trainer.main": (*WORKERS, "verl.trainer", "verl.trainer.build_task", "veason", "grpo_reward"),
    "verl.trainer.sft": (*WORKERS, "verl.trainer", "verl.trainer.main"),
    **dict.fromkeys(ENTRY_POINTS, (*WORKERS, "verl", "verl.trainer", "grpo_reward", "veason", *ENTRY_POINTS)),
}
# Packages that a part must not know.
FOREIGN = {
    "veason": ("ray",),
    "grpo_reward": ("ray", "vllm", "transformers"),
    "verl": ("sam2", "cv2", "pycocotools", "av"),
}

MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 60


@lru_cache
def modules() -> dict[str, Path]:
    """Module name -> file, of everything but the tests."""
    files = (file for part in {part.partition(".")[0] for part in BELOW} for file in (ROOT / part).rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def is_type_checking(node: ast.AST) -> bool:
    """Whether a node is an `if TYPE_CHECKING:`, whose imports never run."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported_names(node: ast.AST) -> Iterator[str]:
    """The dotted names that a file imports, in functions too: `from a import b` gives `a.b`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, "imports are absolute"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif is_type_checking(child):
            yield from imported_names(ast.Module(child.orelse, []))  # type: ignore[attr-defined]
        else:
            yield from imported_names(child)


@lru_cache
def imports(name: str) -> frozenset[str]:
    """What a module imports: modules of this project, and the top packages of others."""
    found = set()
    for imported in imported_names(ast.parse(modules()[name].read_text(encoding="utf-8"))):
        module = imported if imported in modules() else imported.rpartition(".")[0]
        found.add(module if module in modules() else imported.partition(".")[0])
    return frozenset(found - {name})


def part_of(module: str) -> str:
    fits = [part for part in BELOW if module == part or module.startswith(f"{part}.")]
    return max(fits, key=len)


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_down(name: str) -> None:
    part = part_of(name)
    own = {imported for imported in imports(name) if imported in modules()}
    assert sorted(imported for imported in own if part_of(imported) not in (part, *BELOW[part])) == []
    foreign = FOREIGN.get(name.partition(".")[0], ())
    assert sorted(imports(name) & set(foreign)) == []


def test_no_import_circles() -> None:
    graph = {name: imports(name) & modules().keys() for name in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(reversed(error.args[1]))}")


@pytest.mark.parametrize("name", sorted(modules()))
def test_files_and_functions_are_short(name: str) -> None:
    text = modules()[name].read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_FILE_LINES
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    lengths = {function.name: (function.end_lineno or 0) - function.lineno + 1 for function in functions}
    assert {function: lines for function, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import a.b", ["a.b"]),
        ("from a import b, c", ["a.b", "a.c"]),
        ("def f():\n    from a import b", ["a.b"]),
        ("if TYPE_CHECKING:\n    from a import b\nelse:\n    import c", ["c"]),
    ],
)
def test_imports_are_found_wherever_they_are(source: str, found: list[str]) -> None:
    assert list(imported_names(ast.parse(source))) == found
