"""Measured memory: what each component takes, and the peak of each phase; the seconds of a start."""

from __future__ import annotations

import ctypes
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from verl.config import Config
from verl.metric_types import Metrics, PeakMetric

GIB = float(1 << 30)
PERIOD = 0.05  # seconds between two samples
TRIM_PERIOD = 0.5  # seconds; costs fine-tuning the toy, of 0.2 s a step, 2 to 6 %
# int malloc_trim(size_t), which glibc alone has; ctypes releases Python's lock during a call
MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)


def allocator_env() -> dict[str, str]:
    """The environment of a process that only trains, unless the user has set it.

    Batches of unequal length fragment PyTorch's memory, 30 of 80 GiB in fine-tuning a 3B model, unless its segments can
    expand. Not where vLLM runs as well: its sleep mode is refused with them.
    """
    name = "PYTORCH_CUDA_ALLOC_CONF"  # read before the first allocation
    return {name: os.environ.get(name, "expandable_segments:True")}


class OutOfMemory(RuntimeError):
    """The GPU's memory did not suffice; the message names the phase and the keys to change."""


REMEDIES = {
    "rollout": "lower worker.rollout.gpu_memory_utilization (or kv_cache_gib) or worker.rollout.max_num_seqs, or set "
    "worker.actor.offload.param_offload and optimizer_offload",
    "update": "lower worker.actor.max_tokens_per_micro_batch (or micro_batch_size_per_device_for_update), set "
    "worker.actor.model.enable_gradient_checkpointing or worker.actor.offload.optimizer_offload",
    "ref": "lower worker.actor.max_tokens_per_micro_batch (or micro_batch_size_per_device_for_experience), or set "
    "worker.ref.offload.param_offload",
    "old_log_prob": "lower worker.actor.max_tokens_per_micro_batch (or micro_batch_size_per_device_for_experience)",
}


@contextmanager
def explain_out_of_memory(phase: str) -> Iterator[None]:
    """Turns CUDA's out-of-memory error into an OutOfMemory that says what to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        first = str(error).splitlines()[0]
        remedy = REMEDIES.get(phase, REMEDIES["update"])
        raise OutOfMemory(f"out of memory in the phase {phase}: {remedy} ({first})") from error


class HeapTrimmer:
    """Returns the freed memory of this process to the system, whole pages in all of malloc's arenas (malloc_trim(3)).

    Tensors of unequal length on the CPU fragment glibc's heap, which gives back only what is free at its end: a worker
    of fine-tuning held 65 MB of free memory after 5 s and 127 MB after 500 steps, and nothing was leaked. Without glibc
    it does nothing.

    Args:
        period: seconds between two times at least, since what the next step needs again costs it page faults.
    """

    def __init__(self, period: float = TRIM_PERIOD) -> None:
        self.period, self._next = period, 0.0

    def trim(self) -> None:
        """Does so, unless the last time was less than a period ago."""
        if MALLOC_TRIM is None or time.monotonic() < self._next:
            return
        MALLOC_TRIM(0)
        self._next = time.monotonic() + self.period


def used_bytes(device: torch.device) -> int:
    """Bytes in use on the device, by all processes and vLLM's pools; on the CPU this process's peak so far."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total - free
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def measure_bytes(device: torch.device, sizes: dict[str, float], name: str) -> Iterator[None]:
    """Records in `sizes` how many bytes the block has added, and under `timing_s/<name>` how long it took."""
    before, start = used_bytes(device), time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.empty_cache()
    sizes[name] = float(used_bytes(device) - before)
    sizes[f"timing_s/{name}"] = time.perf_counter() - start


class PeakMemoryMeter:
    """The peak of the device's memory during a phase, sampled: PyTorch's own count does not see vLLM's pools."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @contextmanager
    def watch(self, phase: str) -> Iterator[Metrics]:
        """Yields metrics that hold `memory/peak_<phase>_gib` after the block."""
        metrics: Metrics = {}
        peak, done = [used_bytes(self.device)], threading.Event()

        def sample() -> None:
            while not done.wait(PERIOD):
                peak[0] = max(peak[0], used_bytes(self.device))

        sampler = threading.Thread(target=sample, daemon=True)
        if self.device.type == "cuda":
            sampler.start()
        try:
            yield metrics
        finally:
            done.set()
            if sampler.ident is not None:
                sampler.join()
            metrics[f"memory/peak_{phase}_gib"] = PeakMetric(max(peak[0], used_bytes(self.device)) / GIB)


def offloaded_components(config: Config) -> set[str]:
    """The components that leave the GPU outside the phases that use them (the optimizer except a chunk in a step)."""
    actor, rollout = config.worker.actor.offload, config.worker.rollout
    offloaded = {
        "weights": actor.param_offload,
        "optimizer": actor.optimizer_offload,
        "ref": config.worker.ref.offload.param_offload,
        "engine": rollout.enable_sleep_mode,
    }
    return {component for component, leaves in offloaded.items() if leaves and config.trainer.device != "cpu"}


def memory_plan(sizes: dict[str, float], offloaded: set[str], device: str) -> list[str]:
    """What is resident in which phase, from sizes measured on one worker: one line per component.

    Args:
        sizes: bytes of engine, scorer, weights, ref, gathered, gradients, optimizer; "gathered" are the weights
            that stay gathered for an update.
        offloaded: see `offloaded_components`; the others stay.
        device: "GPU" or "worker".
    """
    stay = {"weights", "optimizer", "ref", "engine", "scorer"} - offloaded
    phases = {
        "rollout": stay | {"engine"},
        "ref": stay | {"ref"},
        "update": stay | {"weights", "gathered", "gradients"},
    }
    order = ("weights", "gathered", "gradients", "optimizer", "ref", "engine", "scorer")
    components = [component for component in order if sizes.get(component)]
    lines = [
        f"memory on each {device}, GiB: {'component':>12} {'size':>7}  " + "  ".join(f"{phase:>9}" for phase in phases)
    ]
    for component in components:
        marks = "  ".join(f"{'resident' if component in resident else '-':>9}" for resident in phases.values())
        lines.append(f"{'':27}{component:>12} {sizes[component] / GIB:7.2f}  {marks}")
    totals = (
        sum(sizes[component] for component in components if component in resident) for resident in phases.values()
    )
    sums = "  ".join(f"{total / GIB:9.2f}" for total in totals)
    lines.append(f"{'':27}{'sum':>12} {'':7}  {sums}   (activations come on top)")
    if any(sizes[component] < 0 for component in components):
        lines.append(f"sizes are not reliable: other programs on the {device} allocated or freed memory meanwhile")
    return lines
