"""The whole worker on one CUDA device: five GRPO steps with the engine going to sleep and waking, weights synchronized
in memory.
"""

import os

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from tests.processes import free_port, lone_rank
from tests.verl.workers.toy_task import ToyData, make_scorer
from verl.config import Config, override
from verl.protocol import GroupAdvantages, GroupRequest, Task
from verl.workers.sharded_state import local_rows
from verl.workers.worker import Worker

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("lora", [0, 8], ids=["full", "lora"])
@pytest.mark.parametrize("checkpoint", ["policy_folder", "qwen3_folder"])
def test_five_steps_with_everything_offloaded(request, checkpoint, lora, tmp_path):
    """In a process each: vLLM's pools of memory are of one engine."""
    port = free_port()
    mp.start_processes(
        steps_main, args=(request.getfixturevalue(checkpoint), tmp_path, port, lora), nprocs=1, start_method="spawn"
    )


def steps_main(_, folder, tmp_path, port, lora):
    """The engine sleeps between the steps. Qwen3-VL's deepstack buffers have to be zeros when it wakes up: what its
    memory held before is added to every token without an image.
    """
    os.environ |= lone_rank(port)
    changes = {
        "trainer.device": "cuda",
        "data.max_response_length": 48,
        "worker.actor.model.model_path": folder,
        "worker.actor.model.tokenizer_path": folder,
        "worker.actor.model.lora_rank": lora,
        "worker.actor.optim.lr": 1e-3,
        "worker.actor.max_tokens_per_micro_batch": 2000,
        "worker.actor.fsdp.mp_param_dtype": "fp32",
        "worker.ref.fsdp.torch_dtype": "fp32",
        "worker.ref.fsdp.mp_param_dtype": "fp32",
        "worker.actor.offload.param_offload": True,
        "worker.actor.offload.optimizer_offload": True,
        "worker.ref.offload.param_offload": True,
        "worker.rollout.dtype": "fp32",
        "worker.rollout.n": 8,
        "worker.rollout.prompt_length": 600,
        "worker.rollout.response_length": 48,
        "worker.rollout.gpu_memory_utilization": 0.2,
        "worker.rollout.kv_cache_gib": 1,  # others may share the GPU
        "worker.rollout.enforce_eager": True,
    }
    worker = Worker(override(Config(), changes), Task(ToyData, scorer=make_scorer))
    sizes = worker.setup()
    assert sizes["engine"] > 0
    forbidden = set(worker.prompt_builder.forbidden_tokens)
    gaps = []
    for number in range(5):
        requests = [
            GroupRequest(uid=4 * number + i, index=i, seed=i) for i in range(4)
        ]  # the same prompts: every cache of vLLM's has to forget
        worker.rollout(requests)
        assert not worker.rollout_engine.asleep
        groups = worker.collect_scores([request.uid for request in requests])
        assert not forbidden & {
            token for stored in worker.groups.values() for ids in stored.group.response_ids for token in ids.tolist()
        }
        worker.compute_ref_log_probs([group.uid for group in groups])
        assert worker.rollout_engine.asleep
        normalized = [
            (np.array(group.scores) - np.mean(group.scores)) / (np.std(group.scores, ddof=1) + 1e-6) for group in groups
        ]
        metrics = worker.update(
            [
                GroupAdvantages(g.uid, [np.full(n, value, np.float32) for n, value in zip(g.response_tokens, each)])
                for g, each in zip(groups, normalized)
            ]
        )
        worker.drop([group.uid for group in groups])
        gaps.append(metrics["rollout/log_prob_gap"])
        print({name: float(f"{value:.4g}") for name, value in metrics.items()})
    assert max(gaps) < 5e-3  # fp32 matrices may be rounded to TF32 on one side
    worker.save(str(tmp_path))
    worker.actor.load_to_device()
    before = [parameter.detach().clone() for parameter in worker.actor.policy.parameters()]
    worker.load(str(tmp_path))
    worker.actor.load_to_device()
    assert all(
        torch.equal(local_rows(one), local_rows(other))
        for one, other in zip(before, worker.actor.policy.parameters(), strict=True)
    )
    torch.distributed.destroy_process_group()
