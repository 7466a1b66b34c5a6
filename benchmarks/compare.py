"""Compares measured runs with those of benchmarks/baselines/: each phase, the step and the peak of memory.

    python -m benchmarks.grpo_step --gpus 2 --record new.json
    python -m benchmarks.compare new.json
    python -m benchmarks.compare new.json --tolerance 0.1      # exit status 1 where a step is over 10 % slower

A run is compared with the latest baseline of the same program, device and job (model, GPUs, tensor parallelism,
prompts, rollouts, lengths, LoRA rank).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from veason.command_line import HelpFormatter, parse_arguments
from verl.config import Config
from verl.metric_types import Metrics
from verl.trainer.baseline_runs import BaselineRun, read_baseline_runs

JOB = (
    "program",
    "model",
    "device",
    "gpus",
    "tensor_parallel",
    "prompts",
    "rollouts",
    "prompt_tokens",
    "response_tokens",
    "frames",
    "frame_side",
    "lora_rank",
)
PHASES = {
    "weights to vLLM": "timing_s/rollout/weight_sync",
    "generation": "timing_s/rollout/generate",
    "reward": "timing_s/score_wait",
    "reference": "timing_s/ref",
    "update": "timing_s/update",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.compare", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("runs", type=Path, help="a file of runs, as --record of a benchmark writes it")
    parser.add_argument("--tolerance", type=float, help="share of the step's time by which a run may be slower")
    options = parse_arguments(parser, arguments)
    slower = False
    for run in read_runs(options.runs):
        before = find_same_job(run, read_baseline_runs())
        print(comparison_table(run, before) if before else f"{title(run)}: no baseline of this job and device\n")
        if before and options.tolerance is not None:
            slower |= run.step_seconds > before.step_seconds * (1 + options.tolerance)
    return int(slower)


def read_runs(path: Path) -> list[BaselineRun]:
    """The runs of a file. Raises SystemExit, in one line, where it holds none."""
    try:
        return [BaselineRun(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise SystemExit(f"benchmarks.compare: {path} holds no runs ({error})") from error


def find_same_job(run: BaselineRun, baselines: Sequence[BaselineRun]) -> BaselineRun | None:
    """The latest baseline of a run's job on its device, of one date the last."""
    same = (each for each in reversed(baselines) if all(getattr(each, key) == getattr(run, key) for key in JOB))
    return max(same, key=lambda each: each.date, default=None)


def comparison_table(run: BaselineRun, before: BaselineRun) -> str:
    """A row per phase: the baseline's seconds, the run's, and their ratio."""
    rows = [(name, before.seconds.get(name), run.seconds.get(name)) for name in {**before.seconds, **run.seconds}]
    rows += [("whole step", before.step_seconds, run.step_seconds), ("peak, GiB", before.peak_gib, run.peak_gib)]
    lines = [f"{title(run)}\n", f"| | {before.date} | {run.date} | ratio |", "| --- | ---: | ---: | ---: |"]
    for name, old, new in rows:
        ratio = f"{new / old:.2f}" if old and new is not None else ""
        lines.append(
            f"| {name} | {'' if old is None else f'{old:.2f}'} | {'' if new is None else f'{new:.2f}'} | {ratio} |"
        )
    return "\n".join(lines) + "\n"


def title(run: BaselineRun) -> str:
    job = f"{run.prompts} prompts x {run.rollouts} x {run.response_tokens} tokens"
    return f"{run.program} {run.model}, {run.gpus} x {run.device}, tensor parallel {run.tensor_parallel}, {job}"


def to_measured_run(config: Config, metrics: Metrics, about: dict[str, str | int]) -> BaselineRun:
    """A GRPO run as a baseline.

    Args:
        metrics: means over its steps.
        about: model, device, prompt_tokens, response_tokens, frames, frame_side, date, command, versions.
    """
    memory = [float(value) for name, value in metrics.items() if name.startswith("memory/")]
    actor = config.worker.actor
    return BaselineRun(
        program="verl.trainer.main",
        gpus=config.trainer.n_gpus_per_node * config.trainer.nnodes,
        tensor_parallel=config.worker.rollout.tensor_parallel_size,
        prompts=config.data.rollout_batch_size,
        rollouts=config.worker.rollout.n,
        lora_rank=actor.model.lora_rank,
        micro_batch_tokens=actor.max_tokens_per_micro_batch or 0,
        seconds={name: round(metrics[key], 2) for name, key in PHASES.items() if key in metrics},
        step_seconds=round(metrics["timing_s/step"], 2),
        peak_gib=round(max(memory, default=0.0), 1),
        **about,  # type: ignore[arg-type]
    )


def write_runs(path: Path, runs: Sequence[BaselineRun]) -> None:
    path.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
