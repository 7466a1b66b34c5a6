"""The Ray cluster of a run, its own on one machine or one that is there, and what a worker has to know of its host."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import psutil
import ray
from ray._private import ray_constants

from verl.single_controller.driver_watchdog import MARK_VARIABLE, start_driver_watchdog

# Variables of the driver that the workers of other hosts get too, by the beginning of their names.
FORWARDED = (
    "CUBLAS_",
    "CUDA_",
    "GLOO_",
    "HF_",
    "MALLOC_",
    "MKL_",
    "NCCL_",
    "OMP_",
    "PYTORCH_",
    "TOKENIZERS_",
    "TORCH",
    "TP_",
    "TRANSFORMERS_",
    "TRITON_",
    "UCX_",
    "VLLM_",
)
OF_ONE_HOST = {"CUDA_VISIBLE_DEVICES", "VLLM_HOST_IP"}
SECRET_WORDS = {"KEY", "PASSWORD", "SECRET", "TOKEN"}  # Ray writes the variables that it forwards to its logs
KILL_TIMEOUT = 5.0  # seconds
# Where it is 0, Ray takes 127.0.0.1 for this machine's address, and its processes listen there alone: its default on
# the systems that are in the name. On Linux it else turns 127.0.0.1 into the address of a network interface.
NETWORK = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
# Where it is 0, the raylet starts no workers ahead of time. Actors with variables of their own cannot use them, and Ray
# ends them at once; on a busy machine one crashed while it was ended.
PRESTART = "RAY_prestart_worker_first_driver"
# Which network torch.distributed and vLLM use, where nobody has said so.
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")


class ClusterError(RuntimeError):
    """A cluster that cannot be joined or is too small; the message names the variables and commands that matter."""


def connect_ray(workers: int, nodes: int = 1, **options: Any) -> None:
    """Starts a cluster of its own on this machine, or joins the one that RAY_ADDRESS names; does nothing in an open Ray
    session.

    Args:
        workers: of this machine, for a cluster of its own.
        nodes: hosts of the run; with several a cluster has to be there (`ray start`).

    Raises:
        ClusterError: there is none, it refuses, or hosts are missing.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS") or ("auto" if nodes > 1 else "local")
    ray_constants.ENABLE_RAY_CLUSTER = address != "local"  # NETWORK for this process, which has imported Ray already
    inherited: dict[str, str] = {}  # by Ray's processes and what they start
    if address == "local":  # whatever else runs here, or has left its session behind
        # logical CPUs: one a worker, so that two workers start on any machine; threads are set per worker
        options |= {"num_cpus": max(workers, os.cpu_count() or 1), "include_dashboard": False}
        inherited = {MARK_VARIABLE: start_driver_watchdog(), NETWORK: "0", PRESTART: "0"}
    options = {"configure_logging": False} | options  # its messages go where the driver sends those of libraries
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with _environment(inherited):
            ray.init(address=address, **options)
    except Exception as error:
        raise ClusterError(_refusal(address, error)) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray puts in its own
    hosts = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
    if len(hosts) < nodes:
        joined = f"{len(hosts)} of trainer.nnodes={nodes} hosts joined the Ray cluster ({', '.join(hosts)})"
        head = ray.get_runtime_context().gcs_address
        ray.shutdown()
        raise ClusterError(f"{joined}: run `ray start --address={head}` on the others, and start the run again")


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets variables of this process for the block; what somebody has set before comes back."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _refusal(address: str, error: Exception) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if address == "local":
        what = "cannot start a Ray cluster on this machine"
    elif address == "auto":
        what = "no Ray cluster runs here (RAY_ADDRESS is not set): run `ray start --head` on one host and `ray start "
        what += "--address=...` on the others"
    else:
        what = f"cannot join the Ray cluster at RAY_ADDRESS={address}: is it running, and reachable from here?"
    if mode := os.environ.get("RAY_AUTH_MODE"):
        token = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
        what += f" RAY_AUTH_MODE={mode}: both sides need the same token (RAY_AUTH_TOKEN or {token})"
    elif address != "local":
        what += (
            " A cluster that asks for a token needs RAY_AUTH_MODE=token and ~/.ray/auth_token or RAY_AUTH_TOKEN_PATH"
        )
    return f"{what} ({type(error).__name__}: {first})"


def cluster_processes() -> dict[str, psutil.Process]:
    """Ray's own processes, by name, of a cluster that this process has started."""
    children = {child.name(): child for child in psutil.Process().children()}
    return {name: children[name] for name in ("gcs_server", "raylet") if name in children}


def ended_process(processes: Mapping[str, psutil.Process]) -> str | None:
    """The name of the first that is gone."""
    return next((name for name, process in processes.items() if not _runs(process)), None)


def kill_cluster(processes: Mapping[str, psutil.Process]) -> None:
    """Kills the remaining processes of a cluster, whose workers Ray cannot end any more."""
    left = [process for process in processes.values() if _runs(process)]
    left += [child for process in left for child in process.children(recursive=True)]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=KILL_TIMEOUT)


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def forwarded_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The driver's variables that workers on other hosts need as well, such as NCCL's; no keys and tokens."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(FORWARDED) and name not in OF_ONE_HOST and not SECRET_WORDS & set(name.split("_"))
    }


def network_environment(address: str) -> dict[str, str]:
    """The network interface that has Ray's address of this host, for torch.distributed and vLLM, which otherwise guess
    and may take one that the other hosts cannot reach. What is set already stays.
    """
    found = {"VLLM_HOST_IP": address}
    for interface, addresses in psutil.net_if_addrs().items():
        if any(each.family in (socket.AF_INET, socket.AF_INET6) and each.address == address for each in addresses):
            found |= dict.fromkeys(INTERFACES, interface)
    return {name: value for name, value in found.items() if name not in os.environ}
