"""Each rank reads its own shard: loading and resuming hold little more than that."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.processes import free_port
from tests.verl.workers.toy_groups import ROLLOUT, config
from veason.toy.tiny_policy import write_policy
from veason.toy.tiny_policy_config import PolicySize
from verl.workers.actor import Actor
from verl.workers.prompt_builder import PromptBuilder
from verl.workers.sharding import local_bytes, sharding_mesh
from verl.workers.worker_checkpoint import SaveOptions, load_state, load_weights, save_state, save_weights

pytestmark = pytest.mark.timeout(600)
BAR = 1.3  # times the data that a rank holds
SIZE = PolicySize(hidden_size=512, layers=20, heads=8, intermediate_size=3072)


def resident() -> int:
    """Bytes of this process that are no mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


@contextmanager
def peak() -> Iterator[list[int]]:
    """The largest growth of `resident` in the block."""
    start, found, done = resident(), [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.002):
            found[0] = max(found[0], resident() - start)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield found
    finally:
        found[0] = max(found[0], resident() - start)
        done.set()
        sampler.join()


def measure_main(rank: int, world: int, port: int, small: str, large: str, target: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    mesh, folder = sharding_mesh("cpu", world), Path(target)
    warm = Actor(config(small), ROLLOUT, mesh)  # what is imported and allocated once
    with peak() as loading:
        actor = Actor(config(large), ROLLOUT, mesh)
    held = local_bytes(actor.policy.parameters())
    for parameter in actor.policy.parameters():
        step = torch.tensor(1.0)
        moments = {name: torch.ones_like(parameter.detach()) for name in ("exp_avg", "exp_avg_sq")}
        actor.optimizer.state[parameter] = {"step": step, **moments}
    with peak() as saving:
        save_weights(actor.policy, PromptBuilder(large).processor, folder, actor.device, SaveOptions())
        save_state(actor.policy, actor.optimizer, actor.schedule, folder, SaveOptions())
    dist.barrier()
    actor.optimizer.state.clear()
    time.sleep(0.1)
    before = resident()
    with peak() as resuming:
        load_weights(actor.policy, folder)
        load_state(actor.policy, actor.optimizer, actor.schedule, folder, seed=0)
    del warm
    text = " ".join(f"{name} {size[0] / held:.2f}" for name, size in (("loading", loading), ("saving", saving)))
    print(f"rank {rank}: {held / 1e6:.0f} MB; {text}; resuming {resuming[0] / held:.2f} from {before / 1e6:.0f} MB")
    assert loading[0] < BAR * held
    assert saving[0] < (BAR - 1) * 3 * held  # beside weights and moments
    assert resuming[0] < BAR * 2 * held  # the moments come back
    dist.destroy_process_group()


def test_loading_saving_and_resuming_hold_a_rank_s_own_shard(policy_folder: str, tmp_path: Path) -> None:
    write_policy(tmp_path / "large", SIZE, seed=0)
    port = free_port()
    args = (2, port, policy_folder, str(tmp_path / "large"), str(tmp_path / "saved"))
    mp.start_processes(measure_main, args=args, nprocs=2, start_method="spawn")
