"""Two hosts in network namespaces: a run over both without naming an interface, then one of them is cut off."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from real_run import ROOT, SFT, RealRun

HOSTS = {"veason_a": "10.77.0.1", "veason_b": "10.77.0.2"}
LIMIT = 60.0  # seconds from the cut to the end, on both sides

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


def ip(*command: str) -> None:
    subprocess.run(["ip", *command], check=True, capture_output=True)


def processes(host: str) -> list[int]:
    found = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


@pytest.fixture
def hosts() -> Iterator[None]:
    """Two namespaces with a link between them; needs root."""
    try:
        for host in HOSTS:
            ip("netns", "add", host)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces cannot be made here")
    try:
        ip("link", "add", "link_a", "netns", "veason_a", "type", "veth", "peer", "name", "link_b", "netns", "veason_b")
        for host, address in HOSTS.items():
            link = f"link_{host[-1]}"
            ip("-n", host, "addr", "add", f"{address}/24", "dev", link)
            for device in ("lo", link):
                ip("-n", host, "link", "set", device, "up")
        yield
    finally:
        for host in HOSTS:
            for pid in processes(host):
                psutil.Process(pid).kill() if psutil.pid_exists(pid) else None
            ip("netns", "del", host)


def start_ray(host: str, role: str, output: Path) -> None:
    node = ["bash", str(ROOT / "training_scripts/ray_node.sh"), role, HOSTS["veason_a"], "--num-cpus=2"]
    env = os.environ | {"NODE_IP": HOSTS[host], "PYTHON": str(ROOT / ".venv/bin/python")}
    with output.open("w") as file:
        subprocess.Popen(["ip", "netns", "exec", host, *node], stdout=file, stderr=file, env=env)
    deadline = time.monotonic() + 90
    while "runtime started" not in output.read_text():
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.5)


def test_a_run_over_two_hosts_and_a_cut(
    hosts: None, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    assert hosts is None
    monkeypatch.setenv("RAY_ADDRESS", f"{HOSTS['veason_a']}:6379")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_text(secrets.token_hex(32))
    sizes = ("trainer.nnodes=2", "trainer.n_gpus_per_node=1", "trainer.max_steps=1000")
    inside = ("ip", "netns", "exec", "veason_a")
    start_ray("veason_a", "head", tmp_path / "head.txt")
    with RealRun(SFT, toy, tmp_path / "alone", *sizes, prefix=inside) as run:
        assert run.process.wait(120) == 1
        assert "1 of trainer.nnodes=2 hosts joined the Ray cluster (10.77.0.1)" in run.text, run.text
    start_ray("veason_b", "worker", tmp_path / "worker.txt")
    with RealRun(SFT, toy, tmp_path / "run", *sizes, prefix=inside) as run:
        run.wait_for("step 5/1000")
        workers = [pid for pid in processes("veason_b") if "ray::RemoteWorker" in psutil.Process(pid).cmdline()[:1][0]]
        assert len(workers) == 1
        ip("-n", "veason_b", "link", "set", "link_b", "down")
        start = time.monotonic()
        status = run.process.wait(LIMIT)
        here = time.monotonic() - start
        assert status == 75 and "its node has died" in run.text and "resume by: " in run.text, run.text
        while psutil.pid_exists(workers[0]) and psutil.Process(workers[0]).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() - start < LIMIT
            time.sleep(0.1)
        there = time.monotonic() - start
    logs = "".join(path.read_text() for path in (run.folder / "logs").glob("rank_*.log"))
    assert "the head of the Ray cluster, 10.77.0.1:6379, did not answer" in logs
    record_property("reliability", f"host cut off: driver ended after {here:.0f} s, its workers after {there:.0f} s")
