"""The experiments of docs/toy_results.md: GRPO from the shipped policy, its control, the ablations, and what the
corrections add.

    python -m training_scripts.toy.experiments --policy weights/toy_policy --tracker weights/toy_tracker --world outputs/toy/world \\
        --output outputs/toy/experiments --runs all --seeds 0,1,2 --jobs 6

A run is a training by `verl.trainer` and an evaluation by `eval.evaluate` on the world's valid videos, in processes of
their own; `--stages` may leave either to another call. `--jobs` runs go on side by side, spread over the GPUs of the
machine (over its cores where it has none). The same command goes on where it was stopped. What there is at the end, or
when the time is up, stands in OUTPUT/results.json; `training_scripts.toy.results` makes a page of it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoProcessor, GenerationConfig, Qwen2_5_VLForConditionalGeneration

from training_scripts.toy.collect import collect, describe_machine, pack
from training_scripts.toy.pool import Job, Stage, run_jobs
from training_scripts.toy.recipes import BEFORE, EXPERIMENTS, Places, evaluation_words, recipe, training_words
from veason.data import open_benchmark

STAGES = ("train", "evaluate")


def make_job(
    name: str,
    seed: int,
    steps: int,
    limit: int | None,
    further: Sequence[str],
    places: Places,
    stages: Sequence[str] = STAGES,
    machine: str = "",
) -> Job:
    """One run as a job of the named stages."""
    experiment = EXPERIMENTS[name]
    folder = places.output / "runs" / (name if experiment.program is None else f"{name}-{seed}")
    made, policy = [], places.policy
    if experiment.program is not None:
        words = [
            *training_words(experiment, seed, steps, places),
            f"trainer.save_checkpoint_path={folder / 'train'}",
            *further,
        ]
        step = folder / "train" / f"global_step_{steps}"
        made.append(Stage("train", [sys.executable, "-m", experiment.program, *words], step / "trainer.json"))
        policy = step / "actor" / "huggingface"
    words = evaluation_words(policy, folder / "eval", limit, places)
    made.append(Stage("evaluate", [sys.executable, "-m", "eval.evaluate", *words], folder / "eval" / "metrics.json"))
    return Job(folder.name, folder, [stage for stage in made if stage.name in stages], machine)


def make_slots(jobs: int, output: Path) -> list[Mapping[str, str]]:
    """The environment of each place: its GPU, its share of the cores, and compilers' caches of its own, which its next
    run finds warm.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    slots: list[Mapping[str, str]] = []
    for place in range(jobs):
        cache = (output / "cache" / str(place)).absolute()
        env = {
            "OMP_NUM_THREADS": str(threads),
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
            "TRITON_CACHE_DIR": str(cache / "triton"),
        }
        slots.append(env | ({"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {}))
    return slots


def write_random_policy(like: Path, output: Path, seed: int = 0) -> None:
    """A policy of the same shape, tokenizer and processor, that has learned nothing."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(AutoConfig.from_pretrained(like))
    model.generation_config = GenerationConfig.from_pretrained(like)
    model.save_pretrained(output)
    AutoProcessor.from_pretrained(like).save_pretrained(output)


def choose(runs: str) -> list[str]:
    """The experiments that `--runs` names; the evaluation of the policy itself comes with any of them, first.

    Raises:
        SystemExit: there is none of a name.
    """
    names = list(EXPERIMENTS) if runs == "all" else runs.split(",")
    unknown = [name for name in names if name not in EXPERIMENTS]
    if unknown:
        raise SystemExit(
            f"toy_experiments: no run is named {', '.join(unknown)}; choose from all, {', '.join(EXPERIMENTS)}"
        )
    return [BEFORE, *(name for name in names if name != BEFORE)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, default=Path("weights/toy_policy"))
    parser.add_argument("--tracker", type=Path, default=Path("weights/toy_tracker"))
    parser.add_argument("--world", type=Path, required=True, help="a folder that veason.toy.world wrote")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--runs", default="all", help=f"all, or some of {','.join(EXPERIMENTS)}")
    parser.add_argument("--seeds", default="0", help="of the runs, such as 0,1,2")
    parser.add_argument("--main_seeds", help="of grpo and control, where they shall be more")
    parser.add_argument("--steps", type=int, default=recipe().trainer.max_steps)
    parser.add_argument("--limit", type=int, help="evaluate only so many expressions")
    parser.add_argument("--stages", default=",".join(STAGES), help="what of a run is done in this call")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument(
        "--seconds",
        type=float,
        default=1e9,
        help="when they are over, what runs is stopped and what is there collected",
    )
    parser.add_argument("--archive", type=Path, help="pack results, logs and curves into this .tar.gz")
    parser.add_argument("words", nargs="*", help="key=value words for every training")
    options = parser.parse_args()
    names = choose(options.runs)
    places = Places(options.policy, options.tracker, options.world, options.output)
    for split in ("train", "valid"):  # builds the masks' index, before several runs would
        open_benchmark("revos", places.world / "ReVOS", split)
    if any(EXPERIMENTS[name].random for name in names):
        write_random_policy(places.policy, places.random_policy)
    jobs, stages, machine = [], options.stages.split(","), describe_machine()
    for name in names:
        more = options.main_seeds if name in ("grpo", "control") else None
        seeds = [0] if name == BEFORE else [int(seed) for seed in (more or options.seeds).split(",")]
        jobs += [
            make_job(name, seed, options.steps, options.limit, options.words, places, stages, machine) for seed in seeds
        ]
    run_jobs(jobs, make_slots(options.jobs, places.output), options.seconds)
    collect(places.output, {name: experiment.title for name, experiment in EXPERIMENTS.items()})
    if options.archive:
        pack(places.output, options.archive)
    return 0 if all(job.state == "done" for job in jobs) else 1


if __name__ == "__main__":
    sys.exit(main())
