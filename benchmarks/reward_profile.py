"""Profiles the scoring of a group: time by stage and by kernel."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

import torch

from veason.tracking.sam2.tracker import Sam2Tracker

if TYPE_CHECKING:
    from benchmarks.reward_job import RewardJob
    from grpo_reward.scorer import RewardScorer

STAGES = ("encode_images", "self_attend", "attend_memory", "decode_masks", "encode_memory")


def stage_times(scorer: RewardScorer, job: RewardJob) -> dict[str, float]:
    """Milliseconds of each of the network's steps in one group, synchronized; encode_images includes self_attend."""
    assert isinstance(scorer.tracker, Sam2Tracker)
    network = scorer.tracker.network
    spent: defaultdict[str, float] = defaultdict(float)
    calls: defaultdict[str, int] = defaultdict(int)

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
