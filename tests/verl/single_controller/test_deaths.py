"""However a worker ends, the error names its rank and the cause. Ray is not started: its answers are set."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError

from verl.single_controller import WorkerError, WorkerGroup, WorkerSpec

VICTIM = RayTaskError("run", "Traceback", ConnectionError("peer closed the connection"))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            [1, OutOfMemoryError("the memory monitor ended it")],
            "rank 1 died in `update`: OutOfMemoryError: the memory monitor ended it",
        ),
        ([NodeDiedError("its machine is gone"), 1], "rank 0 died in `update`: NodeDiedError: its machine is gone"),
        ([VICTIM, OutOfMemoryError("the memory monitor ended it")], "rank 1 died in `update`: OutOfMemoryError"),
        ([1, VICTIM], "rank 1 failed in `update`: ConnectionError: peer closed the connection"),
    ],
)
def test_any_death_names_rank_and_cause(answers: list[Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(ref: int) -> Any:
        if isinstance(answers[ref], Exception):
            raise answers[ref]
        return answers[ref]

    def wait(refs: list[int], num_returns: int = 1, **_: Any) -> tuple[list[int], list[int]]:
        return refs[:num_returns], refs[num_returns:]

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", wait)
    group = object.__new__(WorkerGroup)
    group.spec, group._actors, group._placement = WorkerSpec(2, device="cpu"), [], None
    group._cluster = {}
    with pytest.raises(WorkerError, match=message):
        group._collect("update", [0, 1])
