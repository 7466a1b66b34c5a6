"""What waits on the host comes back to the bit; the memory plan adds up; freed memory returns to the system."""

import random
from types import SimpleNamespace

import psutil
import pytest
import torch

from verl.workers import memory
from verl.workers.memory import (
    GIB,
    MALLOC_TRIM,
    HeapTrimmer,
    OutOfMemory,
    PeakMemoryMeter,
    explain_out_of_memory,
    memory_plan,
)
from verl.workers.offload import CPUOffloader
from verl.workers.worker_base import WorkerBase


def test_tensors_on_the_cpu_stay():
    offloader, tensor = CPUOffloader(), torch.arange(4.0)
    offloader.offload([tensor])
    assert not offloader.offloaded and tensor.tolist() == [0, 1, 2, 3]


@pytest.mark.gpu
@pytest.mark.parametrize("constant", [False, True])
def test_the_gpu_is_freed_and_filled_again_in_place(constant):
    tensor = torch.randn(1 << 20, device="cuda")
    view, before = tensor[100:200], tensor.clone().cpu()
    offloader = CPUOffloader(constant)
    for _ in range(2):  # the second time with the host buffers of the first
        held = torch.cuda.memory_allocated()
        offloader.offload([tensor, view])
        assert offloader.offloaded and torch.cuda.memory_allocated() <= held - (1 << 22)
        offloader.load_to_device()
        assert (
            not offloader.offloaded and torch.equal(tensor.cpu(), before) and torch.equal(view.cpu(), before[100:200])
        )


def test_the_plan_names_what_is_resident_when():
    sizes = {
        "weights": 12 * GIB,
        "gradients": 12 * GIB,
        "optimizer": 24 * GIB,
        "ref": 6 * GIB,
        "engine": 20 * GIB,
        "scorer": 2 * GIB,
    }
    lines = memory_plan(sizes, {"optimizer", "ref", "engine"}, "GPU")
    assert [line.split()[-3:] for line in lines if " optimizer " in line] == [["-", "-", "-"]]
    assert lines[-1].split("(")[0].split() == ["sum", "34.00", "20.00", "26.00"]
    stays = memory_plan(sizes, set(), "worker")  # nothing leaves
    assert stays[-1].split("(")[0].split() == ["sum", "64.00", "64.00", "76.00"]
    shared = memory_plan(sizes | {"ref": -3.0 * GIB}, set(), "GPU")
    assert shared[-1].startswith("sizes are not reliable: other programs on the GPU")


@pytest.mark.parametrize(
    ("phase", "keys"),
    [
        ("rollout", ("worker.rollout.gpu_memory_utilization", "worker.actor.offload.param_offload")),
        ("update", ("worker.actor.max_tokens_per_micro_batch", "enable_gradient_checkpointing", "optimizer_offload")),
        ("ref", ("micro_batch_size_per_device_for_experience", "worker.ref.offload.param_offload")),
        ("evaluation", ("worker.actor.max_tokens_per_micro_batch",)),
    ],
)
def test_out_of_memory_names_the_phase_and_the_keys_to_change(phase, keys):
    with pytest.raises(OutOfMemory) as caught, explain_out_of_memory(phase):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")
    text = str(caught.value)
    assert f"out of memory in the phase {phase}: " in text and all(key in text for key in keys) and "\n" not in text
    assert text.endswith("(CUDA out of memory. Tried to allocate 2.00 GiB.)")


def test_out_of_memory_ends_the_run_with_the_memory_plan():
    from verl.single_controller import WorkerError
    from verl.workers.ray_backend import RayBackend

    backend = object.__new__(RayBackend)
    backend._memory_plan, backend.workers = ["memory on each GPU", "weights 5.75"], SimpleNamespace(stop=lambda: None)
    with pytest.raises(WorkerError) as caught, backend:
        raise WorkerError("rank 0 failed in `update`", "Traceback", "OutOfMemory")
    assert caught.value.trace == "memory on each GPU\nweights 5.75\n"
    with pytest.raises(WorkerError) as caught, backend:
        raise WorkerError("rank 0 failed in `update`", "Traceback", "ValueError")
    assert caught.value.trace == "Traceback"


@pytest.mark.skipif(MALLOC_TRIM is None, reason="the C library is not glibc")
def test_updates_on_tensors_of_unequal_length_keep_no_freed_memory():
    """Small tensors that stay lie between large ones that go, as in an update with its optimizer's state."""
    worker, process, lengths = object.__new__(WorkerBase), psutil.Process(), random.Random(0)
    worker.rollout_engine, worker.peak = None, PeakMemoryMeter(torch.device("cpu"))
    worker.heap_trimmer = HeapTrimmer(period=0.0)
    torch.zeros(8 << 20)  # glibc takes smaller ones from its heap once one of this size is freed
    worker.heap_trimmer.trim()
    before, peaks, kept = process.memory_info().rss, [], []
    for _ in range(20):
        with worker.enter_phase("update"):
            activations = []
            for number in range(100):
                activations.append(torch.zeros(lengths.randrange(50_000, 500_000)))
                if number % 50 == 0:
                    kept.append(torch.zeros(1000))
            peaks.append(process.memory_info().rss - before)
            del activations
    assert min(peaks) > 80e6
    assert process.memory_info().rss - before < 10e6


def test_the_heap_is_trimmed_once_a_period(monkeypatch):
    calls, now = [], [100.0]
    monkeypatch.setattr(memory, "MALLOC_TRIM", calls.append)
    monkeypatch.setattr(memory.time, "monotonic", lambda: now[0])
    trimmer = HeapTrimmer(period=1.0)
    for now[0] in (100.0, 100.9, 101.0, 101.5, 102.1):
        trimmer.trim()
    assert calls == [0, 0, 0]
