"""What waits on the host comes back to the bit; the memory plan adds up."""

import pytest
import torch

from verl.workers.memory import GIB, memory_plan
from verl.workers.offload import CPUOffloader


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
        offloader.reload()
        assert (
            not offloader.offloaded and torch.equal(tensor.cpu(), before) and torch.equal(view.cpu(), before[100:200])
        )


def test_the_plan_names_what_is_resident_when():
    sizes = {
        "weights": 12 * GIB,
        "gradients": 12 * GIB,
        "optimizer": 24 * GIB,
        "reference": 6 * GIB,
        "engine": 20 * GIB,
        "scorer": 2 * GIB,
    }
    lines = memory_plan(sizes, {"optimizer": True, "reference": True, "engine": True}, "GPU")
    assert [line.split()[-3:] for line in lines if " optimizer " in line] == [["-", "-", "resident"]]
    assert lines[-1].split("(")[0].split() == ["sum", "34.00", "20.00", "50.00"]
    assert memory_plan(sizes, {}, "worker")[-1].split("(")[0].split() == [
        "sum",
        "64.00",
        "64.00",
        "76.00",
    ]  # nothing leaves
