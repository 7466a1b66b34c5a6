"""Faults in real runs: signals, kill -9 of each kind of process at random moments, a full disk, 500 steps.

SOAK_MOMENTS (20) kills of each kind of process.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from real_run import GRPO, SFT, RealRun, segments
from safetensors.torch import load_file

from verl.trainer.checkpoint_folders import find_damaged_file, saved_checkpoints

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600), pytest.mark.usefixtures("shared_memory")]
MOMENTS = int(os.environ.get("SOAK_MOMENTS", "20"))
PROGRAMS = {"SFT": SFT, "GRPO": GRPO}
STEPS = max(8, 3 * MOMENTS)  # a kill sets a run back by less than two steps, and at most three pass before the next
LENGTH = f"trainer.max_steps={STEPS}"
STEP = re.compile(r"^step (\d+)/", re.MULTILINE)
KINDS = ("driver", "worker", "raylet", "gcs_server")
LIMIT = 60.0  # seconds from a fault to the end
WHOLE = 900.0  # of a run that is not disturbed any more, on a busy machine


@pytest.fixture(scope="module", params=PROGRAMS)
def whole(request: pytest.FixtureRequest, toy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An uninterrupted run: its metrics, its folder, and the seconds of a step."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with RealRun(PROGRAMS[request.param], toy, folder, LENGTH) as run:
        run.wait_for("step 1/")
        start = time.monotonic()
        run.wait_for(f"step {STEPS}/")
        taken = time.monotonic() - start
        assert run.process.wait(WHOLE) == 0, run.text
        steps = run.steps()
    return {"name": request.param, "steps": steps, "folder": folder, "seconds": taken / (STEPS - 1), "toy": toy}


def weights(folder: Path, step: int) -> dict[str, Any]:
    return load_file(next((folder / f"global_step_{step}/actor").rglob("*model*.safetensors")))


def assert_equal_to(whole: dict[str, Any], run: RealRun) -> None:
    """Bit for bit."""
    assert run.steps() == whole["steps"]
    expected = weights(whole["folder"], STEPS)
    assert all(value.equal(expected[name]) for name, value in weights(run.folder, STEPS).items())


@pytest.fixture
def shared_memory() -> Iterator[None]:
    """None is left."""
    before = segments()
    yield
    assert segments() - before == set()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_and_the_resumed_run_is_equal(
    name: str, whole: dict[str, Any], tmp_path: Path, record_property: Any
) -> None:
    number = signal.Signals[name]
    with RealRun(PROGRAMS[whole["name"]], whole["toy"], tmp_path / "run", LENGTH) as run:
        run.wait_for("step 3/")
        run.tree()
        start = time.monotonic()
        run.process.send_signal(number)
        assert run.process.wait(LIMIT) == 128 + number, run.text
        taken = time.monotonic() - start
        assert "is saved; go on with trainer.resume_mode=auto" in run.text and "Traceback" not in run.text
        assert run.left() == []
    with RealRun(PROGRAMS[whole["name"]], whole["toy"], tmp_path / "run", LENGTH, "trainer.resume_mode=auto") as run:
        assert run.process.wait(WHOLE) == 0, run.text
        assert_equal_to(whole, run)
    record_property("reliability", f"{whole['name']} {name}: ended after {taken:.1f} s, resumed run equal")


@pytest.mark.timeout(14400)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_whose_processes_are_killed_goes_on_by_itself(
    kind: str, whole: dict[str, Any], tmp_path: Path, record_property: Any
) -> None:
    """One run is killed at MOMENTS random moments, each within two steps after the first step of a restart."""
    moments, noticed, at = random.Random(f"{whole['name']} {kind}"), [], []
    options = (LENGTH, f"trainer.max_restarts={MOMENTS}")
    with RealRun(PROGRAMS[whole["name"]], whole["toy"], tmp_path / "run", *options) as run:
        for number in range(1, MOMENTS + 1):
            while not (steps := STEP.findall(run.text.rpartition("restart ")[2])):
                assert run.process.poll() is None, run.text
                time.sleep(0.05)
            time.sleep(moments.uniform(0, 2 * whole["seconds"]))
            at.append(int(steps[-1]))
            run.find(kind).kill()
            start = time.monotonic()
            while f"restart {number} of" not in run.text:
                assert run.process.poll() is None and time.monotonic() - start < LIMIT, run.text
                time.sleep(0.1)
            noticed.append(time.monotonic() - start)
        assert run.process.wait(WHOLE) == 0, run.text
        run.tree()
        assert_equal_to(whole, run)
        assert run.left() == []
    text = f"kill -9 {kind} {MOMENTS} times, steps {min(at)} to {max(at)}: noticed after {max(noticed):.1f} s, equal"
    record_property("reliability", f"{whole['name']} {text}")


@pytest.mark.parametrize("kind", KINDS)
def test_without_restarts_a_kill_names_its_cause_and_how_to_resume(
    kind: str, whole: dict[str, Any], tmp_path: Path, record_property: Any
) -> None:
    with RealRun(PROGRAMS[whole["name"]], whole["toy"], tmp_path / "run", LENGTH) as run:
        run.wait_for("step 3/")
        run.find(kind).kill()
        start = time.monotonic()
        status = run.process.wait(LIMIT)
        ended = time.monotonic() - start
        assert run.left(max(0.0, LIMIT - ended)) == []
        gone = time.monotonic() - start
        if kind == "driver":
            assert status == -signal.SIGKILL  # nobody is left to say so
        else:
            assert status == 75 and f"{run.folder} " in run.text.partition("resume by: ")[2], run.text
            named = "rank 0 died in `" if kind == "worker" else f"the Ray cluster of this run is gone: {kind} ended"
            assert named in run.text or "rank 1 died in `" in run.text
    text = f"ended after {ended:.1f} s, all processes after {gone:.1f} s"
    record_property("reliability", f"{whole['name']} kill -9 {kind}, no restarts: {text}")
    assert saved_checkpoints(run.folder) and find_damaged_file(max(saved_checkpoints(run.folder).items())[1]) is None


def test_a_full_disk_names_itself_and_the_run_goes_on_after_it(toy: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with RealRun(SFT, toy, disk / "run", "trainer.max_steps=8", "worker.actor.model.lora_rank=0") as run:
            assert run.process.wait(WHOLE) == 1
            assert "No space left on device" in run.text and "Traceback" not in run.text, run.text
        whole = saved_checkpoints(run.folder)
        assert whole and not list(run.folder.glob(".global*")) and find_damaged_file(max(whole.items())[1]) is None
        subprocess.run(["mount", "-o", "remount,size=400m", str(disk)], check=True)
        more = ("trainer.max_steps=8", "worker.actor.model.lora_rank=0", "trainer.resume_mode=auto")
        with RealRun(SFT, toy, disk / "run", *more) as run:
            assert run.process.wait(WHOLE) == 0, run.text
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.timeout(14400)
@pytest.mark.parametrize("program", PROGRAMS)
def test_500_steps_grow_no_memory_and_leave_no_handle(
    program: str, toy: Path, tmp_path: Path, record_property: Any
) -> None:
    peaks: dict[int, dict[int, tuple[str, int, int]]] = {}
    options = ("trainer.max_steps=500", "trainer.save_freq=50", "trainer.save_limit=2")
    with RealRun(PROGRAMS[program], toy, tmp_path / "run", *options) as run:
        for step in (50, 200, 470):
            run.wait_for(f"step {step}/500", 10000)
            for process in run.tree():
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # VmHWM starts again: proc_pid_clear_refs(5)
            run.wait_for(f"step {step + 20}/500", 10000)
            peaks[step] = measured(run.tree())
        assert run.process.wait(WHOLE) == 0, run.text
        assert run.left() == []
    rows = []
    for pid, (name, memory, handles) in peaks[470].items():
        _, filled, many = peaks[200].get(pid, (name, memory, handles))
        _, early, opened = peaks[50].get(pid, (name, filled, many))
        shown = " -> ".join(f"{each / 1e6:.0f}" for each in (early, filled, memory))
        rows.append(f"{name} {shown} MB, {opened} -> {handles} handles")
        if name.startswith(("python", "ray::RemoteWorker", "raylet", "gcs_server")):
            small = 5e6 if name in ("raylet", "gcs_server") else 0.0  # 5 % of them are 1.5 and 2.5 MB
            assert memory < 1.05 * early + small and handles <= opened + 5, rows
            assert memory < 1.02 * filled + 5e6, rows  # the later steps tell a leak from what is filled once
    record_property("reliability", f"{program}, 500 steps: " + "; ".join(rows))


def measured(processes: list[psutil.Process]) -> dict[int, tuple[str, int, int]]:
    """pid -> name, peak of the resident memory in bytes, open handles. The peak, since a worker holds up to 70 MB more
    in the middle of a step than at its end.
    """
    found = {}
    for process in processes:
        try:
            name = process.cmdline()[0].rpartition("/")[2] if process.cmdline() else process.name()
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[0]) * 1024
            found[process.pid] = (name, peak, process.num_fds())
        except (psutil.Error, OSError, IndexError):  # it has ended
            continue
    return found
