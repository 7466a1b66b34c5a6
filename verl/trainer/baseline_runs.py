"""Measured runs, from which the times of other runs are estimated: benchmarks/baselines/*.json of the repository."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

BASELINES_FOLDER = Path(__file__).parents[2] / "benchmarks" / "baselines"  # beside an installed package there is none


@dataclass(frozen=True)
class BaselineRun:
    """One measured run.

    Attributes:
        program: module that ran. model: "3b", "7b". device: as its vendor names it.
        prompts, rollouts: per step and per prompt; prompt_tokens, response_tokens: of each.
        frames, frame_side: images of a prompt and their side in pixels.
        micro_batch_tokens: budget of a pass in training.
        seconds: of the phases of a step; step_seconds: of the whole step.
        peak_gib: memory of one GPU; 0 where it was not measured.
        command: that measures it. versions: commit and packages, and what else is not the command's.
    """

    program: str
    model: str
    device: str
    gpus: int
    tensor_parallel: int
    prompts: int
    rollouts: int
    prompt_tokens: int
    response_tokens: int
    frames: int
    frame_side: int
    lora_rank: int
    micro_batch_tokens: int
    seconds: dict[str, float]
    step_seconds: float
    peak_gib: float
    date: str
    command: str
    versions: str


@cache
def read_baseline_runs() -> tuple[BaselineRun, ...]:
    """All measured runs; files of another form are not among them."""
    names = {item.name for item in fields(BaselineRun)}
    found: list[BaselineRun] = []
    for path in sorted(BASELINES_FOLDER.glob("*.json")):
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        entries = content if isinstance(content, list) else [content]
        found += [BaselineRun(**entry) for entry in entries if isinstance(entry, dict) and set(entry) == names]
    return tuple(found)


def find_measured_run(
    program: str, model: str | None, gpus: int = 1, tensor_parallel: int = 1, lora: bool = False, prompts: int = 16
) -> BaselineRun | None:
    """The measured run of a program that is most like the planned one: in the policy's size, then in LoRA, the number
    of GPUs, tensor parallelism, prompts a GPU, then the latest, of one date the later in the file; None where nothing
    is like it. Of numbers the nearest in ratio is most alike, so that all plans for one number of GPUs have one basis.
    """
    if model is None:
        return None

    def likeness(run: BaselineRun) -> tuple[object, ...]:
        nearest = (
            -abs(math.log(planned / measured))
            for planned, measured in (
                (gpus, run.gpus),
                (tensor_parallel, run.tensor_parallel),
                (prompts / gpus, run.prompts / run.gpus),
            )
        )
        return run.model == model, (run.lora_rank > 0) == lora, *nearest, run.date

    runs = [run for run in reversed(read_baseline_runs()) if run.program == program]  # max takes the first of equals
    return max(runs, key=likeness, default=None)
