"""One GRPO step of the 3B policy: stage by stage, and against the seed's schedule, bare vLLM, TRL, and two GPUs.

    python -m benchmarks.grpo_step               # one GPU of 80 GB, about 10 minutes; prints the table
    python -m benchmarks.grpo_step --gpus 2      # the same job on one GPU and on two, about 8 minutes
    python -m benchmarks.grpo_step --tiny        # the same code on a CPU (add --parts ours,bare,seed where TRL is not installed)

The job is the published recipe: 16 prompts x 8 rollouts, 6 frames of 560 x 560, 512 tokens forced, 3B dimensions, full fine-tuning over
fp32 master weights, KL and entropy terms, SAM 2.1 hiera-large in the reward. Weights are random (time does not depend on them) and what
they write cannot be read, so the scorer gets well-formed answers in its place. What runs is the trainer's own step on its own workers.

--parts, comma-separated, all by default:
    ours   the step, mean of --steps after one that compiles
    bare   `LLM.generate` on the requests of each step: same engine, weights and sampling, prompts and images ready in memory; then a step
           whose rewards cost nothing, which tells what SAM 2 takes of the GPU while others are still being generated. Needs `ours`
    seed   the seed's schedule: every response a sequence of its own in each pass (its prompt and images computed again), old
           log-probabilities in a pass of their own, SAM 2 in fp32, one response at a time. The seed's padding is left out, which
           flatters it. --seed_prompts 4 takes a quarter of the prompts and multiplies what is proportional to them. Needs `ours`
    trl    TRL's GRPOTrainer at 4 x 8, 256 tokens, no reward on either side, in a process of its own once ours has ended
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from benchmarks.grpo_engine import BenchEngine, open_loop
from benchmarks.grpo_job import TINY, Job, make_config, make_task, scratch_folder, write_policy
from benchmarks.grpo_table import Figures, Limits, print_scaling, print_table, stage_table
from benchmarks.grpo_trl import Sizes, measure
from verl.trainer.grpo import GRPO

START = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="ours,bare,seed,trl")
    parser.add_argument("--steps", type=int, default=2, help="timed steps of ours, after one that compiles")
    parser.add_argument("--gpus", type=int, default=1, help="2: the job on one GPU, then on two; no other part")
    parser.add_argument("--seed_prompts", type=int, default=None, help="prompts of the seed's step; default: all")
    parser.add_argument("--trl_seconds", type=int, default=240, help="after which TRL's process is ended, its start included")
    parser.add_argument("--compile_tracker", action="store_true", help="as a real run does: two minutes at the start, a second less a step")
    parser.add_argument("--tiny", action="store_true", help="a small job, for a machine without a GPU")
    parser.add_argument("words", nargs="*", help="key=value words that replace the recipe's")
    args = parser.parse_args()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    job = replace(TINY if args.tiny else Job(), compile_tracker=args.compile_tracker)
    with scratch_folder() as name:
        folder = Path(name)
        since = time.perf_counter()
        write_policy(folder / "policy", job.tiny)
        say(f"policy written in {time.perf_counter() - since:.0f} s")
        if args.gpus == 1:
            one_gpu(job, folder, args)
        else:
            several_gpus(job, folder, args.gpus, args.steps, args.words)


def one_gpu(job: Job, folder: Path, args: argparse.Namespace) -> None:
    """Every part on one GPU, then the table."""
    parts = args.parts.split(",")
    if "ours" not in parts and {"bare", "seed"} & set(parts):
        raise SystemExit("--parts: bare and seed are compared with ours, name it too")
    small = job if job.tiny else replace(job, prompts=4, rollouts=8, tokens=256)  # the job of the comparison with TRL
    config = make_config(job, folder, folder / "policy", 1, args.words)
    task = make_task(job, config)
    with BenchEngine(config, task.data, task.scorer) as engine:
        loop, device = open_loop(config, task, engine, folder / "log"), engine.device_name
        found: dict[str, Figures] = {}
        if "ours" in parts:
            found["ours"] = ours(loop, engine, args.steps, "bare" in parts)
            if "bare" in parts:
                engine.arrange("no reward", job.rollouts, job.tokens)
                say(f"generation with no SAM 2 beside it {step(loop, 'a step without SAM 2')['seconds/rollout/generate']:.2f} s")
                engine.arrange("ours", job.rollouts, job.tokens)
            stage_table("ours", found["ours"], limits_of(loop, engine))
            print_table(found, device)
        if "trl" in parts:
            engine.arrange("no reward", small.rollouts, small.tokens)
            found["small"] = batch(loop, small.prompts, args.steps, "small job")
        if "seed" in parts:
            engine.arrange("seed", job.rollouts, job.tokens)
            found["seed"] = seed(loop, job, args.seed_prompts or job.prompts, found["ours"])
            stage_table("the seed's schedule", found["seed"])
            print_table(found, device)
    if "trl" in parts:
        sizes = Sizes(small.prompts, small.rollouts, small.tokens, steps=1, side=small.side)
        found["trl"], about = measure(folder / "policy", sizes, args.trl_seconds, vllm=not job.tiny)
        say(f"the small job: ours {found['small']['seconds/step']:.2f} s; TRL: {about}")
        print_table(found, device)


def ours(loop: GRPO, engine: BenchEngine, steps: int, bare: bool) -> Figures:
    """Means over the timed steps; `bare` times vLLM by itself after each, on the same requests."""
    step(loop, "first step, compilation included")
    rows = []
    for number in range(steps):
        requests = loop.prompts.order.peek(loop.config.data.rollout_batch_size)
        row = step(loop, f"step {number + 1}")
        if bare:
            row["bare"] = engine.generate_bare(requests)
            say(f"bare LLM.generate on the same requests {row['bare']:.2f} s, in the step {row['seconds/rollout/generate']:.2f} s")
        rows.append(row)
    return mean(rows)


def batch(loop: GRPO, prompts: int, steps: int, name: str) -> Figures:
    """Steps of `prompts` prompts, after one that warms up."""
    loop.config.data.rollout_batch_size = loop.config.worker.actor.global_batch_size = prompts
    step(loop, f"{name}, warm-up")
    return mean([step(loop, name) for _ in range(steps)])


def seed(loop: GRPO, job: Job, prompts: int, own: Figures) -> Figures:
    """One step of the seed's schedule, after one of a single prompt; what is proportional to the prompts is scaled to all of them."""
    actor, data = loop.config.worker.actor, loop.config.data
    data.rollout_batch_size = actor.global_batch_size = 1
    step(loop, "seed's schedule, warm-up with one prompt")
    data.rollout_batch_size = actor.global_batch_size = prompts
    row = step(loop, f"seed's schedule, {prompts} prompts")
    if prompts == job.prompts:
        return row
    share = prompts / job.prompts
    stages = {f"seconds/{stage}": row[f"seconds/{stage}"] / share for stage in ("score", "reference", "update")}
    stages["seconds/rollout"] = own["seconds/rollout"]  # by the same engine on the same requests
    return row | stages | {"seconds/step": sum(stages.values()), "share": share}


def step(loop: GRPO, name: str) -> Figures:
    """One step of the trainer; its figures with the seconds of its stages."""
    since = time.perf_counter()
    figures = loop.step()
    figures = figures | loop.clock.read() | {"seconds/step": time.perf_counter() - since}
    stages = ", ".join(f"{stage} {figures[f'seconds/{stage}']:.2f}" for stage in ("rollout", "score", "reference", "update"))
    say(f"{name}: {figures['seconds/step']:.2f} s ({stages})")
    return figures


def mean(rows: list[Figures]) -> Figures:
    """The mean of each figure; of memory the largest."""
    return {name: (max if name.startswith("memory/") else fmean)(row[name] for row in rows) for name in rows[0]}


def several_gpus(job: Job, folder: Path, gpus: int, steps: int, words: Sequence[str]) -> None:
    """The job on one GPU, then on `gpus` with tensor parallelism and FSDP over all of them, on the same responses."""
    found: dict[int, list[Figures]] = {}
    device = ""
    for count in (1, gpus):
        config = make_config(job, folder / str(count), folder / "policy", count, words)
        task = make_task(job, config)
        with BenchEngine(config, task.data, task.scorer) as engine:
            engine.fix_responses()
            loop = open_loop(config, task, engine, folder / f"log_{count}")
            found[count] = [step(loop, f"{count} GPUs, step {number}") for number in range(1 + steps)]
            timed = mean(found[count][1:])
            del timed["rollout/log_prob_gap"]  # vLLM wrote other responses
            stage_table(f"{count} GPUs", timed, limits_of(loop, engine))
            device = engine.device_name
    print_scaling(found, device)


def limits_of(loop: GRPO, engine: BenchEngine) -> Limits:
    request, lengths = loop.prompts.order.request(0), loop.prompts.lengths
    return Limits.of(loop.flops, engine.device_name, loop.config, lengths(request), lengths.patches(request))


def say(text: str) -> None:
    print(f"[{time.perf_counter() - START:5.0f} s] {text}", flush=True)


if __name__ == "__main__":
    main()
