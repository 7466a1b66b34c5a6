"""The whole worker on one CUDA device: five GRPO steps with the engine going to sleep and waking, weights handed over
in memory.
"""

import numpy as np
import pytest
import torch

from tests.verl.workers.toy_task import ToyData, make_scorer
from verl.config import Config
from verl.protocol import GroupAdvantages, GroupRequest
from verl.workers.worker import Worker

pytestmark = pytest.mark.gpu


@pytest.fixture
def one_gpu(monkeypatch):
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29511",
    }.items():
        monkeypatch.setenv(name, value)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_gpu")
def test_five_steps_with_everything_offloaded(policy_folder, tmp_path):
    config = Config()
    config.trainer.device, config.data.max_response_length = "cuda", 48
    actor, rollout = config.worker.actor, config.worker.rollout
    actor.model.model_path = actor.model.tokenizer_path = policy_folder
    actor.optim.lr = 1e-3
    actor.max_tokens_per_micro_batch = 2000
    actor.fsdp.mp_param_dtype = config.worker.ref.fsdp.torch_dtype = config.worker.ref.fsdp.mp_param_dtype = (
        rollout.dtype
    ) = "fp32"
    actor.offload.param_offload = actor.offload.optimizer_offload = config.worker.ref.offload.param_offload = True
    rollout.n, rollout.prompt_length, rollout.response_length = 8, 600, 48
    rollout.gpu_memory_utilization, rollout.enforce_eager = 0.2, True
    worker = Worker(config, ToyData, make_scorer)
    sizes = worker.setup()
    assert sizes["engine"] > 0
    forbidden = set(worker.prompts.forbidden_tokens)
    gaps = []
    for number in range(5):
        requests = [
            GroupRequest(uid=4 * number + i, index=i, seed=i) for i in range(4)
        ]  # the same prompts: every cache of vLLM's has to forget
        worker.rollout(requests)
        assert not worker.rollouts.asleep
        groups = worker.score([request.uid for request in requests])
        assert not forbidden & {
            token for stored in worker.groups.values() for ids in stored.group.response_ids for token in ids.tolist()
        }
        worker.reference([group.uid for group in groups], old=False)
        assert worker.rollouts.asleep
        gains = [
            (np.array(group.totals) - np.mean(group.totals)) / (np.std(group.totals, ddof=1) + 1e-6) for group in groups
        ]
        figures = worker.update(
            [
                GroupAdvantages(g.uid, [np.full(n, gain, np.float32) for n, gain in zip(g.response_tokens, each)])
                for g, each in zip(groups, gains)
            ]
        )
        worker.drop([group.uid for group in groups])
        gaps.append(figures["rollout/log_prob_gap"])
        print({name: float(f"{value:.4g}") for name, value in figures.items()})
    assert max(gaps) < 5e-3  # fp32 matrices may be rounded to TF32 on one side
    worker.save(str(tmp_path))
    worker.actor.bring()
    before = [parameter.detach().clone() for parameter in worker.actor.policy.parameters()]
    worker.load(str(tmp_path))
    worker.actor.bring()
    assert all(
        torch.equal(one.to_local(), other.to_local()) for one, other in zip(before, worker.actor.policy.parameters())
    )
