"""What a cluster needs and refuses, without starting one; a worker that cannot reach its head."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import psutil
import pytest
import ray

from verl.single_controller import ClusterError, cluster
from verl.single_controller.cluster import connect_ray, ended_process, forwarded_environment, network_environment


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


@pytest.mark.parametrize(
    ("address", "given", "wanted"), [(None, None, "15"), (None, "40", "40"), ("10.0.0.9:6379", None, None)]
)
def test_agents_of_an_own_cluster_do_not_wait_long_for_its_gcs(
    address: str | None, given: str | None, wanted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's processes inherit the driver's environment; what they do with it is tested in `trainer/test_faults.py`."""
    seen: list[str | None] = []
    name = "RAY_gcs_rpc_server_reconnect_timeout_s"
    monkeypatch.setattr(ray, "init", lambda **_: seen.append(os.environ.get(name)))
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeManagerAddress": "10.0.0.9", "Alive": True}])
    for variable, value in ((name, given), ("RAY_ADDRESS", address)):
        monkeypatch.setenv(variable, value or "")  # so that it is as before after the test
        if value is None:
            monkeypatch.delenv(variable)
    connect_ray(2)
    assert seen == [wanted]


def test_a_process_of_the_cluster_that_is_gone_is_named() -> None:
    child = subprocess.Popen(["sleep", "60"])
    processes = {"gcs_server": psutil.Process(), "raylet": psutil.Process(child.pid)}
    assert ended_process(processes) is None
    child.kill()
    time.sleep(0.2)
    assert ended_process(processes) == "raylet"  # a zombie
    child.wait()
    assert ended_process(processes) == "raylet"
    cluster.kill_cluster({"raylet": processes["raylet"]})


WATCHES = """
import sys, time
from verl.single_controller.watch_head import watch_head
watch_head(sys.argv[1], limit=1.0, period=0.2)
time.sleep(float(sys.argv[2]))
print("alive")
"""


def test_a_worker_out_of_reach_of_the_head_ends_itself() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        command, env = [sys.executable, "-c", WATCHES, address], os.environ | {"PYTHONPATH": os.getcwd()}
        reached = subprocess.run([*command, "3"], capture_output=True, text=True, env=env, check=False)
        assert (reached.returncode, reached.stdout) == (0, "alive\n")
    gone = subprocess.run([*command, "30"], capture_output=True, text=True, env=env, check=False, timeout=20)
    assert gone.returncode == 1 and f"the head of the Ray cluster, {address}, did not answer for 1 s" in gone.stderr
