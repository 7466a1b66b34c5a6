"""docs/metrics.md is complete: every metric that the code names is in it, and it names none that is not there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch

from verl.algorithms.losses import PolicyLossOutput
from verl.metric_info import METRICS, PAGE, find_metric

ROOT = Path(__file__).parents[2]
PREFIXES = sorted({info.name.partition("/")[0] for info in METRICS if "/" in info.name})
METRIC = re.compile(rf"(val/)?({'|'.join(PREFIXES)})/[a-zA-Z_*][\w*/ ]*")
NOT_METRICS = {"actor/huggingface", "actor/*"}  # a folder of a checkpoint; a policy loss's own metrics, see below


def named_in_code() -> dict[str, str]:
    """Metric names in the sources, `*` for what an f-string fills in -> the file."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "verl").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        inner = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in nodes:
            if id(node) in inner:
                continue
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
            if isinstance(node, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "*" for part in node.values)
            if text and METRIC.fullmatch(text.removeprefix("*")) and text not in NOT_METRICS:
                found[text.removeprefix("*")] = path.name
    return found


def losses() -> set[str]:
    one = torch.zeros(1, 1)
    return {f"actor/{name}" for name in PolicyLossOutput(one, one, one, one).metrics()}


def test_every_metric_that_the_code_names_is_explained() -> None:
    found = named_in_code()
    assert {
        "reward/mean",
        "rewards/*/mean",
        "actor/kl",
        "timing_s/*",
        "memory/peak_*_gib",
        "rollout/log_prob_gap",
    } <= set(found)
    assert {name: file for name, file in found.items() if find_metric(name.replace("*", "x")) is None} == {}


def test_no_metric_is_explained_that_the_code_does_not_name() -> None:
    found = {re.sub(r"^val/", "", name) for name in named_in_code()}
    named = [re.sub(r"<\w+>", "*", info.name) for info in METRICS if "/" in info.name]
    assert [name for name in named if name not in found | losses() and name != "timing_s/rollout/*"] == []


def test_the_metrics_of_a_policy_loss_are_explained() -> None:
    assert losses() and all(find_metric(name) for name in losses())


def test_the_page_of_the_documents_is_a_copy() -> None:
    page = PAGE.read_text()
    assert (ROOT / "docs/metrics.md").read_text() == page, "run `python -m verl.metric_info --output docs/metrics.md`"
    assert len(METRICS) == len(re.findall(r"^\| `[^`]+` \|.*\|.*\|.*\|$", page, re.MULTILINE)) > 40
    assert all(info.meaning.endswith(".") and info.healthy.endswith(".") for info in METRICS)
    assert [info.unit for info in METRICS if info.name in ("actor/loss", "reward/mean")] == ["score", ""]


def test_the_names_in_verl_and_trl_are_of_metrics_that_there_are() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (`[^`]+`|-) \| (`[^`]+`|-) \|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) > 30 and not [name for name, verl, trl in rows if verl == trl == "-"]
    assert [name for name, _, _ in rows if find_metric(name.replace("<name>", "x")) is None] == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("val/rewards/spatial/frac_zero", "rewards/<name>/frac_zero"),
        ("parse_failure/any", "parse_failure/any"),
        ("parse_failure/no answer", "parse_failure/<cause>"),
        ("timing_s/rollout/generate", "timing_s/rollout/<stage>"),
        ("timing_s/validation rollout", "timing_s/<phase>"),
        ("perf/mfu_update", "perf/mfu_<phase>"),
        ("val/loss", "loss"),
    ],
)
def test_names_of_a_run_are_found(name: str, found: str) -> None:
    info = find_metric(name)
    assert info is not None and info.name == found


def test_unknown_names_are_not_found() -> None:
    assert find_metric("actor/new") is None and find_metric("rewards/spatial") is None
