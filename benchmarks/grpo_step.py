"""One GRPO step, 3B by default: phase by phase, and against the published schedule, TRL, verl, and more GPUs.

    python -m benchmarks.grpo_step                           # one GPU, about 10 minutes; prints the table
    python -m benchmarks.grpo_step --parts ours --record new.json   # then: python -m benchmarks.compare new.json
    python -m benchmarks.grpo_step --gpus 1,2                # the same job on one GPU and on two, about 8 minutes
    python -m benchmarks.grpo_step --gpus 1,2,4,8 --weak     # as many prompts on every GPU as one has
    python -m benchmarks.grpo_step --gpus 4,4 --size 7b      # the 7B recipe, twice: the same losses?
    python -m benchmarks.grpo_step --size qwen3_4b --parts ours   # Qwen3-VL (qwen3_2b, qwen3_4b, qwen3_8b)
    python -m benchmarks.grpo_step --size tiny               # the same code on a CPU

The job is the published recipe: 16 prompts x 8 rollouts, 6 frames of 560 x 560, 512 tokens forced, 3B dimensions, full
fine-tuning over fp32 master weights, KL and entropy terms, SAM 2.1 hiera-large in the reward. Weights are random (time
does not depend on them) and what they write cannot be read, so the scorer gets well-formed answers in its place. What
runs is the trainer's own step on its own workers. Several counts of --gpus run one after the other on made-up
responses, the same for each count, and are compared with the first: the whole batch with the GPUs as one
tensor-parallel group, or, with --weak, each GPU with an engine and a batch of its own.

--memory_gib limits PyTorch's allocator, and says whether the whole step, engine included, stayed within.

--parts on one GPU, comma-separated, all but lengths and verl by default; lengths and published need ours:
    ours       the step, mean of --steps after one that compiles
    lengths    --length_steps steps with responses of log-normal lengths, 400 tokens on average and up to 1,024
    published  the schedule of Veason-R1's code: every response is a sequence of its own in each pass (its prompt and
               images computed again), old log-probabilities in a pass of their own, SAM 2 in fp32, one response at a
               time. Its padding is left out, which flatters it. --published_prompts 4 takes a quarter of the prompts
               and multiplies what is proportional to them
    trl        TRL's GRPOTrainer at 4 x 8, 256 tokens, no reward on either side, in a process of its own after ours
    verl       verl's GRPO trainer at the whole job, no reward on either side, likewise; --verl_site is the folder that
               holds it (benchmarks/grpo_verl.py)
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path

from benchmarks import grpo_verl
from benchmarks.compare import to_measured_run, write_runs
from benchmarks.grpo_backend import BenchBackend, open_loop
from benchmarks.grpo_job import (
    POLICY_GIB,
    GRPOJob,
    make_config,
    make_job,
    make_task,
    scratch_folder,
    write_policy,
)
from benchmarks.grpo_lengths import LONGEST, MEAN, measure_lengths
from benchmarks.grpo_table import (
    HardwareLimits,
    ScalingRun,
    peak_gib,
    phase_table,
    print_rows,
    print_scaling,
    print_table,
    print_verl_comparison,
    table_row,
)
from benchmarks.grpo_timing import log, mean, measure_batch, measure_ours, measure_published, step
from benchmarks.grpo_trl import TRLSizes, measure
from veason.command_line import HelpFormatter, parse_arguments
from verl.metric_types import Metrics
from verl.trainer.baseline_runs import BaselineRun
from verl.trainer.grpo import GRPO


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--parts", default="ours,published,trl", help="what is timed, comma-separated")
    parser.add_argument("--steps", type=int, default=2, help="timed steps of ours, after one that compiles")
    parser.add_argument("--gpus", default="1", help="counts, comma-separated; other than 1: the job alone, on each")
    parser.add_argument("--weak", action="store_true", help="with several counts: the job's prompts on every GPU")
    parser.add_argument("--size", default="3b", choices=POLICY_GIB, help="tiny: a small job, for a CPU")
    parser.add_argument("--recipe", help="a file of configs/ without its ending; default: by size and number of GPUs")
    parser.add_argument("--frames", type=int, help="of a prompt (6)")
    parser.add_argument("--side", type=int, help="of a frame, pixels (560; 640 with Qwen3-VL)")
    parser.add_argument("--memory_gib", type=float, help="of the GPU that may be used, on one GPU; default: all")
    parser.add_argument("--length_steps", type=int, default=50, help="steps of the part lengths")
    parser.add_argument("--published_prompts", type=int, help="prompts of the published schedule's step; default: all")
    parser.add_argument("--trl_seconds", type=int, default=240, help="after which TRL's process is ended")
    parser.add_argument("--verl_site", type=Path, help="site directory that holds verl and the packages it wants")
    parser.add_argument("--verl_seconds", type=int, default=400, help="after which verl's process is ended")
    parser.add_argument("--compile_tracker", action="store_true", help="two minutes at the start, a second less a step")
    parser.add_argument("--record", type=Path, help="file for the runs, which benchmarks.compare reads")
    parser.add_argument("overrides", nargs="*", help="key=value, over the recipe's")
    args = parse_arguments(parser)
    if "verl" in args.parts.split(","):
        grpo_verl.installed_version(args.verl_site)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sizes = {name: value for name in ("frames", "side") if (value := getattr(args, name)) is not None}
    job = replace(make_job(args.size), compile_tracker=args.compile_tracker, **sizes)
    counts = [int(count) for count in args.gpus.split(",")]
    with scratch_folder(job.size) as name:
        folder = Path(name)
        since = time.perf_counter()
        write_policy(folder / "policy", job.size)
        log(f"policy written in {time.perf_counter() - since:.0f} s")
        runs = one_gpu(job, folder, args) if counts == [1] else several_gpus(job, folder, counts, args)
    if args.record:
        write_runs(args.record, runs)


def one_gpu(job: GRPOJob, folder: Path, args: argparse.Namespace) -> list[BaselineRun]:
    """Every part on one GPU, then the table; returns the run of ours."""
    parts = args.parts.split(",")
    if "ours" not in parts and {"lengths", "published"} & set(parts):
        raise SystemExit("--parts: lengths and published are compared with ours, name it too")
    # the job of the comparison with TRL
    small = job if job.size == "tiny" else replace(job, prompts=4, rollouts=8, tokens=256)
    # the engine has to have room for the longest
    room = [f"data.max_response_length={LONGEST * job.tokens}"] if "lengths" in parts else []
    config = make_config(job, folder, folder / "policy", 1, [*room, *args.overrides], args.recipe)
    task = make_task(job, config)
    with BenchBackend(config, task) as backend:
        loop, device = open_loop(config, task, backend, folder / "log"), backend.device_name
        if args.memory_gib:
            backend.limit_memory(args.memory_gib)
        if room:
            backend.configure("ours", job.rollouts, job.tokens)
        found: dict[str, Metrics] = {}
        recorded: list[BaselineRun] = []
        if "ours" in parts:
            found["ours"] = measure_ours(loop, args.steps)
            recorded.append(to_baseline(job, loop, device, found["ours"]))
            phase_table("ours", found["ours"], hardware_limits(loop, backend))
            print_table(found, device)
            if args.memory_gib:
                rows = [table_row("peak within the limit, GiB", peak_gib(found["ours"]), args.memory_gib, "at most")]
                print_rows(rows, device)
        if "lengths" in parts:
            longest = LONGEST * job.tokens
            backend.configure("ours", job.rollouts, longest)
            backend.draw_lengths(MEAN * job.tokens, longest)
            sequences = job.prompts * job.rollouts
            measure_lengths(partial(step, loop), args.length_steps, sequences, found["ours"], device)
        if "trl" in parts:
            backend.configure("no_reward", small.rollouts, small.tokens)
            found["small"] = measure_batch(loop, small.prompts, args.steps, "small job")
        if "verl" in parts:
            backend.configure("no_reward", job.rollouts, job.tokens)
            found["no_reward"] = measure_batch(loop, job.prompts, args.steps, "no reward")
        if "published" in parts:
            backend.configure("published", job.rollouts, job.tokens)
            found["published"] = measure_published(loop, job, args.published_prompts or job.prompts, found["ours"])
            phase_table("the published schedule", found["published"])
            print_table(found, device)
    run_other_trainers(parts, job, small, folder, args, found, device)
    return recorded


def run_other_trainers(
    parts: Sequence[str],
    job: GRPOJob,
    small: GRPOJob,
    folder: Path,
    args: argparse.Namespace,
    found: dict[str, Metrics],
    device: str,
) -> None:
    """TRL on the small job and verl on the whole one, each in a process of its own; adds to `found` and prints it."""
    if "trl" in parts:
        sizes = TRLSizes(small.prompts, small.rollouts, small.tokens, steps=1, side=small.side)
        found["trl"], about = measure(folder / "policy", sizes, args.trl_seconds, vllm=job.size != "tiny")
        log(f"the small job: ours {found['small']['timing_s/step']:.2f} s; TRL: {about}")
        print_table(found, device)
    if "verl" in parts:
        attention = grpo_verl.fastest_attention(args.verl_site)
        run = grpo_verl.VerlRun(folder / "verl", folder / "policy", job, steps=1, attention=attention)
        found["verl"], about = grpo_verl.measure(run, args.verl_site, args.verl_seconds)
        log(f"no reward: ours {found['no_reward']['timing_s/step']:.2f} s; {about}")
        print_verl_comparison(found["no_reward"], found["verl"])
        print_table(found, device)


def several_gpus(job: GRPOJob, folder: Path, counts: Sequence[int], args: argparse.Namespace) -> list[BaselineRun]:
    """The job on each count of GPUs, same responses: one tensor-parallel group, or each with its own batch."""
    runs: list[ScalingRun] = []
    recorded: list[BaselineRun] = []
    device = ""
    for number, count in enumerate(counts):
        whole = replace(job, prompts=job.prompts * count) if args.weak else job
        overrides = ["worker.rollout.tensor_parallel_size=1", *args.overrides] if args.weak else args.overrides
        config = make_config(whole, folder / str(number), folder / "policy", count, overrides, args.recipe)
        task = make_task(whole, config)
        with BenchBackend(config, task) as backend:
            backend.fix_responses()
            loop = open_loop(config, task, backend, folder / f"log_{number}")
            steps = [step(loop, f"{count} GPUs, step {number}") for number in range(1 + args.steps)]
            timed = mean(steps[1:])
            del timed["rollout/log_prob_gap"]  # vLLM wrote other responses
            phase_table(f"{count} GPUs, {whole.prompts} prompts", timed, hardware_limits(loop, backend))
            device = backend.device_name
            recorded.append(to_baseline(whole, loop, device, timed))
        runs.append(ScalingRun(count, whole.prompts, steps))
    print_scaling(runs, device)
    return recorded


def to_baseline(job: GRPOJob, loop: GRPO, device: str, metrics: Metrics) -> BaselineRun:
    """A measured run as benchmarks/baselines/ holds it."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "ray"))
    about: dict[str, str | int] = {
        "model": job.size,
        "device": device,
        "prompt_tokens": loop.prompts.lengths(loop.prompts.sampler.request(0)),
        "response_tokens": job.tokens,
        "frames": job.frames,
        "frame_side": job.side,
        "date": f"{date.today()}",
        "command": f"python -m benchmarks.grpo_step {shlex.join(sys.argv[1:])}",
        "versions": packages,
    }
    return to_measured_run(loop.config, metrics, about)


def hardware_limits(loop: GRPO, backend: BenchBackend) -> HardwareLimits:
    request, lengths = loop.prompts.sampler.request(0), loop.prompts.lengths
    return HardwareLimits.of(
        loop.flops, backend.device_name, loop.config, lengths(request), lengths.image_sizes(request)
    )


if __name__ == "__main__":
    main()
