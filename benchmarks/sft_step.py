"""Fine-tuning of the 3B policy on one GPU: samples a second, against TRL's SFTTrainer and against what the matrix
products allow.

    pip install trl==1.16.0
    python -m benchmarks.sft_step              # one H100, about 4 minutes
    python -m benchmarks.sft_step --tiny       # the same code on a CPU

The job: configs/sft_qwen2_5_vl_3b_lora.yaml (LoRA of rank 64 on all linear layers of the language model, frozen vision
tower, bf16, 16 examples an optimizer step) on random weights, 6 frames of 560 x 560, prompts of about 2,600 tokens,
answers of about 250. Ours is the trainer's own worker, images read and prepared while it computes; TRL prepares its own
in four processes. Each runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.grpo_job import GIB, scratch_folder, write_policy
from benchmarks.packing import synchronize
from benchmarks.sft_job import TINY, SFTJob, make_config
from benchmarks.sft_profile import StepProfile, useful_flops
from veason.command_line import HelpFormatter, parse_arguments
from verl.models.packing import PackedBatch, pack_groups
from verl.protocol import GroupRequest, Task
from verl.trainer.throughput import device_peak
from verl.workers.memory import allocator_env
from verl.workers.micro_batches import split_micro_batches
from verl.workers.worker import Worker

WARM_UP = 2  # steps: the second length that is met makes compiled lengths symbolic
RECIPE = "as the recipe"
VARIANTS = {
    RECIPE: [],
    "layers compiled": ["worker.actor.use_torch_compile=true"],
    "loaded by threads": ["sft.num_workers=0"],
    "with recomputation": ["worker.actor.model.enable_gradient_checkpointing=true"],
}
KINDS = {  # of kernels, by a part of their name; the first that fits
    "attention": ("flex", "flash", "fmha", "attention"),
    "matrix products": ("gemm", "nvjet", "cutlass", "xmma", "splitk", "mm_kernel"),
    "copies": ("memcpy", "memset", "copy", "cat"),
}


def measure_ours(job: SFTJob, policy: Path, variant: str) -> dict[str, float]:
    """Steps of the real worker, then its profile."""
    os.environ |= {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29541",
    }
    config = make_config(job, policy, VARIANTS[variant])
    worker = Worker(config, Task(job.data))
    start = time.perf_counter()
    sizes = worker.setup()
    shown = ", ".join(f"{name} {size / GIB:.1f}" for name, size in sizes.items() if "/" not in name)
    ready = f"ready in {time.perf_counter() - start:.1f} s"
    print(f"{variant}: on {worker.device_name()}, {ready}; GiB: {shown}", flush=True)

    number = 0

    def step(count: int) -> float:
        """Seconds of some steps; the next one's examples are loaded meanwhile, as the trainer does."""
        nonlocal number
        start = time.perf_counter()
        for _ in range(count):
            for coming in range(number, number + 1 + max(1, config.sft.num_workers)):
                worker.prefetch_sft_batch(requests(job, coming))
            metrics = worker.fine_tune(requests(job, number))
            number += 1
        synchronize()
        spent = time.perf_counter() - start
        shown = f"loss {metrics['loss']:.3f}, tokens {metrics['response_tokens']:.0f}"
        print(f"  {count} steps in {spent:.2f} s, {shown}", flush=True)
        return spent

    for _ in range(WARM_UP):
        step(1)
    spent = step(job.steps) / job.steps
    kernels = kernel_times(lambda: step(1))
    batches = packed_batches(worker, job, number - 1)
    tokens = sum(batch.input_ids.shape[1] for batch in batches)
    flops = useful_flops(worker.actor.policy.config, 64, batches)
    rates = f"{job.batch / spent:.2f} samples/s, {len(batches)} micro-batches, {tokens / spent:.0f} tokens/s"
    print(f"  a step: {spent:.3f} s, {rates}", flush=True)
    peak = device_peak(worker.device_name())
    if peak is not None:
        print(f"  MFU {100 * flops / spent / peak:.1f} %")
        print(f"  peak memory {torch.cuda.max_memory_allocated() / GIB:.1f} GiB")
    print("  kernels of a step: " + ", ".join(f"{kind} {value:.3f} s" for kind, value in kernels.items()), flush=True)
    profile = measure_profile(worker, batches)
    total = sum(profile.values())
    print("  the profile: " + ", ".join(f"{part} {value:.3f} s" for part, value in profile.items()))
    print(f"  profile {total:.3f} s, actual {spent:.3f} s: {100 * (spent / total - 1):+.1f} %", flush=True)
    return {"samples": job.batch / spent, "profile": total, "actual": spent}


def requests(job: SFTJob, step: int) -> list[GroupRequest]:
    return [GroupRequest(uid, uid, 0) for uid in range(step * job.batch, (step + 1) * job.batch)]


def packed_batches(worker: Worker, job: SFTJob, step: int) -> list[PackedBatch]:
    """The micro-batches of a step, as the actor makes them."""
    groups = worker.thread_prefetcher.take(tuple(requests(job, step)))
    micro_batches = split_micro_batches(groups, worker.actor.config, update=True)
    return [pack_groups([groups[i] for i in members], worker.actor.policy.family) for members in micro_batches]


def measure_profile(worker: Worker, batches: Sequence[PackedBatch]) -> dict[str, float]:
    """Seconds of the step's parts alone, by `benchmarks.sft_profile`."""
    model = worker.actor.config.model
    dtype = torch.bfloat16 if worker.device.type == "cuda" else torch.float32
    config, recomputed = worker.actor.policy.config, model.enable_gradient_checkpointing
    profile = StepProfile(config, model.lora_rank, recomputed, worker.device.type, dtype)
    trained = sum(parameter.numel() for parameter in worker.actor.policy.parameters() if parameter.requires_grad)
    if worker.device.type == "cuda":
        torch.cuda.empty_cache()
    for batch in batches:
        profile.add_batch(batch.to(worker.device))
    profile.finish(trained)
    return profile.parts


def kernel_times(run: Any) -> dict[str, float]:
    """Device seconds of one run by kind of kernel; prints the longest kernels and the idle gaps."""
    if not torch.cuda.is_available():
        return {}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as record:
        run()
    on_device = [event for event in record.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    print_gaps(sorted((event.time_range.start, event.time_range.end, event.name) for event in on_device))
    times: dict[str, float] = {}
    kernels = sorted(record.key_averages(), key=lambda event: -event.self_device_time_total)
    for event in kernels:
        key = event.key.lower()
        kind = next((kind for kind, parts in KINDS.items() if any(part in key for part in parts)), "others")
        times[kind] = times.get(kind, 0.0) + event.self_device_time_total / 1e6
    for event in kernels[:20]:
        print(f"    {event.self_device_time_total / 1e3:9.1f} ms {event.count:6d} x {event.key[:110]}")
    return times | {"all": sum(times.values())}


def print_gaps(events: Sequence[tuple[float, float, str]]) -> None:
    """The longest times, in ms, that no kernel ran, between which kernels, and how far into the run."""
    gaps, busy_until, last = [], events[0][0], "the start"
    for start, end, name in events:
        if start > busy_until:
            gaps.append((start - busy_until, busy_until - events[0][0], last, name))
        if end > busy_until:
            busy_until, last = end, name
    idle = sum(gap for gap, *_ in gaps)
    span = (busy_until - events[0][0]) / 1e3
    idle_in_gaps = f"idle {idle / 1e3:.0f} ms in {len(gaps)} gaps"
    print(f"    {len(events)} kernels and copies in {span:.0f} ms, {idle_in_gaps}; the longest:")
    for gap, at, before, after in sorted(gaps, reverse=True)[:8]:
        print(f"    {gap / 1e3:9.1f} ms at {at / 1e3:6.0f} ms between {before[:50]} and {after[:50]}")
    for low, high in ((0, 10), (10, 50), (50, 200), (200, 1000), (1000, 1e9)):
        some = [gap for gap, *_ in gaps if low <= gap < high]
        print(f"    gaps of {low:.0f} to {high:.0f} microseconds: {len(some)}, {sum(some) / 1e3:.0f} ms in all")
    width = span * 1e3 / 20
    parts = [(i * width, (i + 1) * width) for i in range(20)]
    idle_in = [sum(max(0.0, min(at + gap, end) - max(at, start)) for gap, at, *_ in gaps) for start, end in parts]
    shares = " ".join(f"{100 * each / width:.0f}" for each in idle_in)
    print(f"    idle share of each twentieth of the time, %: {shares}")


def in_process(arguments: list[str], limit: float) -> list[dict[str, Any]]:
    """Runs a module of this package; returns the JSON objects that it prints, and shows its other lines."""
    command, env = [sys.executable, "-m", *arguments], os.environ | allocator_env()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    timer = threading.Timer(limit, process.kill)
    timer.start()
    found = []
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith('{"'):  # a dict of Python's, which some trainers print, is none
            found.append(json.loads(line))
        print(f"  {line.rstrip()}", flush=True)
    if process.wait() != 0:
        why = f"status {process.returncode}" if timer.is_alive() else f"its {limit:.0f} s were over"
        print(f"  {arguments[0]} ended early: {why}", flush=True)
    timer.cancel()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny policy, to check that it runs")
    parser.add_argument("--variants", default=",".join([*VARIANTS, "trl"]), help="what is measured, comma-separated")
    parser.add_argument("--steps", type=int, default=SFTJob.steps, help="timed steps")
    parser.add_argument("--limit", type=float, default=110, help="seconds for each")
    parser.add_argument("--policy", type=Path, help=argparse.SUPPRESS)
    args = parse_arguments(parser)
    job = TINY if args.tiny else SFTJob(steps=args.steps)
    if args.policy:
        print(json.dumps({args.variants: measure_ours(job, args.policy, args.variants)}), flush=True)
        return
    size = "tiny" if args.tiny else "3b"
    arguments = ["--tiny"] if args.tiny else ["--steps", str(args.steps)]
    limit = args.limit * (4 if args.tiny else 1)  # a CPU may be busy
    best: dict[str, float] = {}
    with scratch_folder(size) as folder:
        arguments += ["--policy", f"{folder}/policy"]
        start = time.perf_counter()
        write_policy(Path(folder) / "policy", size)
        print(f"policy written in {time.perf_counter() - start:.1f} s", flush=True)
        for variant in args.variants.split(","):
            if variant == "trl":
                found = in_process(["benchmarks.sft_trl", *arguments], limit)
                best[variant] = max((each["samples"] for each in found if "samples" in each), default=float("nan"))
            else:
                found = in_process(["benchmarks.sft_step", "--variants", variant, *arguments], limit)
                best[variant] = found[-1][variant]["samples"] if found else float("nan")
    for variant, samples in best.items():
        print(
            f"{variant:20} {samples:8.2f} samples/s"
            + (f"   {samples / best['trl']:6.2f} x TRL" if "trl" in best else "")
        )


if __name__ == "__main__":
    main()
