"""Steps of the trainer for `benchmarks.grpo_step`, timed: ours, a part of the batch, the published schedule."""

from __future__ import annotations

import time
from statistics import fmean

from benchmarks.grpo_job import GRPOJob
from verl.config import override
from verl.metric_types import Metrics, PeakMetric
from verl.trainer.grpo import GRPO

START = time.perf_counter()


def measure_ours(loop: GRPO, steps: int) -> Metrics:
    """Means over the timed steps."""
    step(loop, "first step, compilation included")
    return mean([step(loop, f"step {number + 1}") for number in range(steps)])


def measure_batch(loop: GRPO, prompts: int, steps: int, name: str) -> Metrics:
    """Steps of `prompts` prompts, after one that warms up."""
    set_prompts(loop, prompts)
    step(loop, f"{name}, warm-up")
    return mean([step(loop, name) for _ in range(steps)])


def set_prompts(loop: GRPO, prompts: int) -> None:
    keys = ("data.rollout_batch_size", "worker.actor.global_batch_size")
    loop.config = override(loop.config, dict.fromkeys(keys, prompts))


def measure_published(loop: GRPO, job: GRPOJob, prompts: int, own: Metrics) -> Metrics:
    """One step of the published schedule, after a warm-up; what is proportional to the prompts is scaled to all."""
    set_prompts(loop, 1)
    step(loop, "published schedule, warm-up with one prompt")
    set_prompts(loop, prompts)
    row = step(loop, f"published schedule, {prompts} prompts")
    if prompts == job.prompts:
        return row
    share = prompts / job.prompts
    phases = {f"timing_s/{phase}": row[f"timing_s/{phase}"] / share for phase in ("score_wait", "ref", "update")}
    phases["timing_s/rollout"] = own["timing_s/rollout"]  # by the same engine on the same requests
    return row | phases | {"timing_s/step": sum(phases.values()), "share": share}


def step(loop: GRPO, name: str) -> Metrics:
    """One step of the trainer; its metrics with the seconds of its phases."""
    since = time.perf_counter()
    metrics = loop.step()
    metrics = metrics | loop.timer.read() | {"timing_s/step": time.perf_counter() - since}
    shown = ("rollout", "score_wait", "ref", "update")
    phases = ", ".join(f"{phase} {metrics[f'timing_s/{phase}']:.2f}" for phase in shown)
    log(f"{name}: {metrics['timing_s/step']:.2f} s ({phases})")
    return metrics


def mean(rows: list[Metrics]) -> Metrics:
    """The mean of each metric; of peaks the largest."""
    reductions = {name: max if isinstance(value, PeakMetric) else fmean for name, value in rows[0].items()}
    return {name: reduction([row[name] for row in rows]) for name, reduction in reductions.items()}


def log(text: str) -> None:
    print(f"[{time.perf_counter() - START:5.0f} s] {text}", flush=True)
