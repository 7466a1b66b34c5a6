"""Profiles the scoring of a group: time by stage, by kernel, and by attention kernel."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from benchmarks.reward_job import RewardJob
    from grpo_reward.scorer import RewardScorer

STAGES = ("encode_images", "self_attend", "attend_memory", "decode_masks", "encode_memory")


def stage_times(scorer: RewardScorer, job: RewardJob) -> dict[str, float]:
    """Milliseconds of each of the network's steps in one group, synchronized; encode_images includes self_attend."""
    network, spent, calls = scorer.tracker.network, defaultdict(float), defaultdict(int)

    def timed(name: str, call):
        def wrapped(*args):
            torch.cuda.synchronize()
            start = time.perf_counter()
            result = call(*args)
            torch.cuda.synchronize()
            spent[name] += 1e3 * (time.perf_counter() - start)
            calls[name] += 1
            return result

        return wrapped

    originals = {name: getattr(network, name) for name in STAGES}
    for name, call in originals.items():
        setattr(network, name, timed(name, call))
    start = time.perf_counter()
    scorer.score(job.example, job.responses)
    torch.cuda.synchronize()
    spent["whole group"] = 1e3 * (time.perf_counter() - start)
    for name, call in originals.items():
        setattr(network, name, call)
    print(
        f"\nstages, {job.name}: "
        + ", ".join(f"{name} {ms:.1f} ms ({calls[name]} calls)" for name, ms in spent.items()),
        flush=True,
    )
    return dict(spent)


def print_profile(scorer: RewardScorer, job: RewardJob, rows: int = 30) -> None:
    """The kernels that take most of the device's time in one group."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        scorer.score(job.example, job.responses)
        torch.cuda.synchronize()
    kernels = [event for event in profile.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in kernels)
    print(
        f"\nkernels, {job.name}: {total / 1e3:.1f} ms of device time in {sum(event.count for event in kernels)} "
        "launches"
    )
    for event in kernels[:rows]:
        print(f"  {event.self_device_time_total / 1e3:8.2f} ms  {event.count:5d} x  {event.key[:120]}", flush=True)


def attention_table(device: torch.device, objects=(8, 24), maps=(1, 4), tokens: int = 4096) -> dict[str, float]:
    """Milliseconds of one cross-attention of `objects` x [4096, 256] queries over `maps` x 4096 keys, by kernel and
    width of values.
    """
    kernels = {
        "flash": _with_backend(SDPBackend.FLASH_ATTENTION),
        "cudnn": _with_backend(SDPBackend.CUDNN_ATTENTION),
        "efficient": _with_backend(SDPBackend.EFFICIENT_ATTENTION),
        "flex": _flex(),
    }
    found = {}
    print("\nattention of [N, 1, 4096, 256] over keys of 256 and values of 256 or 64 channels, bf16")
    for name, kernel in kernels.items():
        for width in (256, 64):
            for count in objects:
                for number in maps:
                    case = f"{name}, values {width}, {count} objects, {number} maps"
                    try:
                        found[case] = _milliseconds(kernel, count, tokens, number * tokens + 4 * number, width, device)
                    except (
                        RuntimeError,
                        torch._dynamo.exc.TorchDynamoException,
                    ) as error:  # a kernel that does not do these shapes
                        print(f"  {case}: not possible ({str(error).strip().splitlines()[0][:100]})", flush=True)
                        break
                    flops = 2 * count * tokens * number * tokens * (256 + width)
                    print(f"  {case}: {found[case]:.3f} ms, {flops / found[case] / 1e9:.0f} TFLOP/s", flush=True)
    return found


def _with_backend(backend: SDPBackend):
    def call(query, key, value):
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(query, key, value)

    return call


def _flex():
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _milliseconds(
    kernel, objects: int, queries: int, keys: int, width: int, device: torch.device, repeats: int = 5
) -> float:
    query, key, value = (
        torch.randn(objects, 1, length, channels, device=device, dtype=torch.bfloat16)
        for length, channels in ((queries, 256), (keys, 256), (keys, width))
    )
    for _ in range(2):
        kernel(query, key, value)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        kernel(query, key, value)
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start) / repeats
