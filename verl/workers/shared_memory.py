"""The shared memory of one vLLM engine's ranks: its names are unique to the process group, and unlinked once all ranks
have mapped it.

vLLM unlinks its segments when an engine shuts down. A worker that is killed would leave them in /dev/shm, and on the
CPU their name is the same for every engine that an external launcher starts: the next such run on the machine, or one
beside this, could not start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

FOLDER = Path("/dev/shm")


@contextmanager
def unique_shared_memory_names() -> Iterator[None]:
    """For the CPU: an engine started in the block names its segments after its group's address. (On CUDA the names are
    random.)

    vLLM takes the names on the CPU from the end of the address at which it would open a process group
    (`CPUWorker.init_device`). Ours is open already, so the address has no other use; the port is this group's for as
    long as it lives.
    """
    from vllm.v1.executor.uniproc_executor import ExecutorWithExternalLauncher as Executor

    original = Executor._distributed_args
    address = f"tcp://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    Executor._distributed_args = lambda self: (address, *original(self)[1:])
    try:
        yield
    finally:
        Executor._distributed_args = original


def unlink_shared_memory() -> None:
    """Unlinks the segments once every rank of this engine has mapped them: they go with the last process."""
    from vllm.distributed.parallel_state import get_tp_group

    group = get_tp_group()
    if group.world_size == 1:
        return
    dist.barrier(group=group.cpu_group)
    queue = getattr(group.mq_broadcaster, "buffer", None)  # absent where all readers are on other nodes
    if queue is not None and queue.is_creator:
        queue.shared_memory.unlink()
        queue.is_creator = False  # it would unlink the name a second time
    # on the CPU, where all ranks are on one node
    name = getattr(getattr(group.device_communicator, "dist_module", None), "group_name", None)
    if name is not None:
        (FOLDER / f"{name}_{group.rank_in_group}").unlink()
