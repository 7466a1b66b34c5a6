"""What a cluster needs and refuses, without starting one; a worker that cannot reach its head."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from subprocess import PIPE

import psutil
import pytest
import ray

from verl.single_controller import ClusterError, cluster, driver_watchdog
from verl.single_controller.cluster import connect_ray, ended_process, forwarded_environment, network_environment
from verl.single_controller.driver_watchdog import MARK_VARIABLE


def test_variables_that_matter_reach_the_other_hosts_and_keys_do_not() -> None:
    given = {
        "NCCL_DEBUG": "INFO",
        "GLOO_SOCKET_IFNAME": "eth1",
        "HF_HOME": "/data/hf",
        "HF_TOKEN": "secret",
        "WANDB_API_KEY": "secret",
        "CUDA_VISIBLE_DEVICES": "0",
        "VLLM_HOST_IP": "10.0.0.1",
        "PATH": "/bin",
    }
    assert forwarded_environment(given) == {key: given[key] for key in ("NCCL_DEBUG", "GLOO_SOCKET_IFNAME", "HF_HOME")}


def test_the_interface_is_that_of_ray_s_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*cluster.INTERFACES, "VLLM_HOST_IP"):
        monkeypatch.delenv(name, raising=False)
    assert network_environment("127.0.0.1") == {"VLLM_HOST_IP": "127.0.0.1"} | dict.fromkeys(cluster.INTERFACES, "lo")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth1")  # what somebody has set stays
    assert "GLOO_SOCKET_IFNAME" not in network_environment("127.0.0.1")


@pytest.mark.parametrize(
    ("address", "nodes", "mode", "parts"),
    [
        ("10.0.0.9:6379", 2, None, ("RAY_ADDRESS=10.0.0.9:6379", "RAY_AUTH_MODE=token", "~/.ray/auth_token")),
        ("10.0.0.9:6379", 1, "token", ("RAY_ADDRESS=10.0.0.9:6379", "RAY_AUTH_MODE=token: both sides", "auth_token")),
        (None, 2, None, ("no Ray cluster runs here (RAY_ADDRESS is not set): run `ray start --head`",)),
        (None, 1, None, ("cannot start a Ray cluster on this machine",)),
    ],
)
def test_a_cluster_that_refuses_names_what_to_set(
    address: str | None, nodes: int, mode: str | None, parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def init(address: str, **_: object) -> None:
        seen.append(address)
        raise ConnectionError("no answer\nand much more")

    monkeypatch.setattr(ray, "init", init)
    for name, value in (("RAY_ADDRESS", address), ("RAY_AUTH_MODE", mode)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    with pytest.raises(ClusterError) as caught:
        connect_ray(2, nodes)
    assert all(part in str(caught.value) for part in (*parts, "(ConnectionError: no answer)"))
    # "local": a head that somebody else has started on this machine is not joined unasked
    assert seen == [address or ("auto" if nodes > 1 else "local")]


@pytest.mark.parametrize("address", [None, "10.0.0.9:6379"])
def test_a_cluster_of_its_own_is_watched(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    monkeypatch.setattr(cluster, "start_driver_watchdog", lambda: "mark")
    monkeypatch.setattr(ray, "init", lambda **_: seen.append(os.environ.get(MARK_VARIABLE)))
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeManagerAddress": "10.0.0.9", "Alive": True}])
    monkeypatch.setenv("RAY_ADDRESS", address) if address else monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv(cluster.PRESTART, "1")  # somebody's own
    connect_ray(2)
    assert seen == [None if address else "mark"] and MARK_VARIABLE not in os.environ
    assert os.environ[cluster.PRESTART] == "1"


DRIVER = """
import os, subprocess, sys
from verl.single_controller.driver_watchdog import MARK_VARIABLE, start_driver_watchdog
mark = start_driver_watchdog()
assert start_driver_watchdog() == mark
marked = {**os.environ, MARK_VARIABLE: mark}
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
pids = [subprocess.Popen(["sleep", "300"], env=env, **quiet).pid for env in (marked, os.environ)]
print(mark, *pids, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("end", ["killed", "returned"])
def test_what_is_left_after_the_driver_is_ended(end: str) -> None:
    """Whatever its session, where it has the driver's mark; its other processes go on."""
    env = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, "-c", DRIVER], stdin=PIPE, stdout=PIPE, env=env, text=True) as driver:
        assert driver.stdin and driver.stdout
        mark, left, other = driver.stdout.readline().split()
        (watch,) = [each for each in psutil.Process(driver.pid).children() if mark in each.cmdline()]
        assert list(driver_watchdog.find_processes(mark, {})) == [int(left)] and watch.is_running()
        driver.kill() if end == "killed" else driver.communicate("\n")
        driver.wait()
        start = time.monotonic()
        while psutil.pid_exists(int(left)) or watch.is_running():
            assert time.monotonic() - start < driver_watchdog.GRACE + 40  # "left" would end by itself later
            time.sleep(0.1)
        assert psutil.Process(int(other)).is_running()
        psutil.Process(int(other)).kill()


def test_a_process_without_the_mark_is_known_by_what_has_started_it() -> None:
    """As the raylet's agents, which write over their environment and stay when the raylet is killed."""
    marked = os.environ | {MARK_VARIABLE: "a mark of this test"}
    start = ["sh", "-c", "env -i sleep 300 & echo $!; wait"]
    with subprocess.Popen(start, stdout=PIPE, env=marked, text=True) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        while "sleep" not in child.name():  # env has started it, without the mark
            time.sleep(0.01)
        known = driver_watchdog.find_processes("a mark of this test", {})
        assert set(known) == {parent.pid, child.pid}
        parent.kill()
        parent.wait()
        assert driver_watchdog.find_processes("a mark of this test", {}) == {}
        assert set(driver_watchdog.find_processes("a mark of this test", known)) == {child.pid}
        assert (
            driver_watchdog.find_processes("a mark of this test", {child.pid: "another start"}) == {}
        )  # its pid again
        child.kill()


def test_a_process_of_the_cluster_that_is_gone_is_named() -> None:
    child = subprocess.Popen(["sleep", "60"])
    processes = {"gcs_server": psutil.Process(), "raylet": psutil.Process(child.pid)}
    assert ended_process(processes) is None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is not reaped
    assert ended_process(processes) == "raylet"  # a zombie
    child.wait()
    assert ended_process(processes) == "raylet"
    cluster.kill_cluster({"raylet": processes["raylet"]})


WATCHES = """
import sys, time
from verl.single_controller.head_watchdog import start_head_watchdog
start_head_watchdog(sys.argv[1], limit=3.0, period=0.2)
time.sleep(float(sys.argv[2]))
print("alive")
"""


def watches(head: socket.socket, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WATCHES, address_of(head), str(seconds)]
    env = os.environ | {"PYTHONPATH": os.getcwd()}
    return subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, env=env)


def address_of(head: socket.socket) -> str:
    return f"127.0.0.1:{head.getsockname()[1]}"


def test_a_worker_out_of_reach_of_the_head_ends_itself() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as head, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # it refuses connections, and no other process can have its port
        with watches(head, 6) as reached, watches(silent, 500) as gone:
            assert reached.communicate() == ("alive\n", "") and reached.returncode == 0
            said = gone.communicate()[1]
        assert gone.returncode == 1
        assert f"the head of the Ray cluster, {address_of(silent)}, did not answer for 3 s" in said
