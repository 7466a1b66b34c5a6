"""A run on one machine listens on the loopback interface alone: Ray, the rendezvous and the process group."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
import time

import psutil
import pytest
import ray
from ray import cloudpickle

from verl.single_controller import WorkerGroup, WorkerSpec, connect_ray
from verl.single_controller.cluster import NETWORK
from verl.single_controller.rendezvous import LISTEN_FD, listen, open_store

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import a test module


class Summer:
    """A rank of a process group over the store."""

    def __init__(self) -> None:
        import torch.distributed as dist

        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.descriptor = os.environ.get(LISTEN_FD)
        dist.init_process_group("gloo", store=open_store(rank, world), rank=rank, world_size=world)

    def total(self, value: int) -> tuple[int, bool]:
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(value)
        dist.all_reduce(tensor)
        return int(tensor), self.descriptor is not None


def listeners() -> dict[str, str]:
    """Address -> name of the process, of the sockets of this process and its descendants that listen."""
    own = psutil.Process()
    found = {}
    for process in (own, *own.children(recursive=True)):
        try:
            sockets = process.net_connections("inet")
        except psutil.Error:
            continue
        found |= {f"{each.laddr.ip}:{each.laddr.port}": process.name() for each in sockets if each.status == "LISTEN"}
    return found


def idle_workers(seconds: float = 1.5) -> list[list[str]]:
    """Command lines of Ray's workers some time after the cluster was started, before any actor."""
    time.sleep(seconds)
    commands = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            commands.append(process.cmdline())
    return [
        each for each in commands if any(word == "ray::IDLE" or word.endswith("default_worker.py") for word in each)
    ]


def test_all_of_a_run_on_one_machine_listens_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = listeners()  # of other tests
    connect_ray(2)
    try:
        assert idle_workers() == []  # none is started that nobody uses
        with WorkerGroup(Summer, WorkerSpec(count=2, device="cpu", threads=1)) as group:
            assert group.scatter("total", [1, 10]) == [(11, True), (11, False)]
            found = {address: name for address, name in listeners().items() if address not in before}
    finally:
        ray.shutdown()
    names = set(found.values())
    assert {"gcs_server", "raylet"} <= names and any(name.startswith("ray::RemoteWorker") for name in names), found
    open_to_all = {
        address: name
        for address, name in found.items()
        if not ipaddress.ip_address(address.rpartition(":")[0].removeprefix("::ffff:")).is_loopback
    }
    assert open_to_all == {}
    assert NETWORK not in os.environ


def test_a_port_is_held_until_the_store_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    held = listen("127.0.0.1")
    port = held.getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port), reuse_port=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    monkeypatch.setenv(LISTEN_FD, str(held.detach()))
    store = open_store(0, 1)
    store.set("key", "value")
    assert (store.get("key"), store.port) == (b"value", port)
