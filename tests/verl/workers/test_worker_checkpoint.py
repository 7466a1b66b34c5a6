"""What a worker saves goes on to the bit, whatever is sharded."""

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

from tests.verl.workers.toy_groups import ROLLOUT, config, stored_groups
from verl.config.worker_sections import FSDPConfig, ModelConfig, OptimConfig
from verl.workers.actor import Actor
from verl.workers.prompt_builder import PromptBuilder
from verl.workers.sharding import make_gather
from verl.workers.worker_checkpoint import SaveOptions, load_state, load_weights, save_state, save_weights

pytestmark = pytest.mark.usefixtures("lone_rank")


@pytest.mark.parametrize("rank", [0, 4], ids=["full", "lora"])
def test_the_optimizer_goes_on_where_it_was_saved(policy_folder, tmp_path, rank):
    mesh = init_device_mesh("cpu", (1,))
    pairs = stored_groups(policy_folder)
    batch = [each for each, _ in pairs], [each for _, each in pairs]
    model = ModelConfig(model_path=policy_folder, lora_rank=rank, lora_alpha=8.0)
    first, second = (Actor(config(policy_folder, model=model), ROLLOUT, mesh) for _ in range(2))
    first.update(*batch)
    save_weights(first.policy, PromptBuilder(policy_folder).processor, tmp_path, first.device, SaveOptions())
    save_state(first.policy, first.optimizer, first.schedule, tmp_path)
    load_weights(second.policy, tmp_path)
    load_state(second.policy, second.optimizer, second.schedule, tmp_path, seed=0)
    assert first.update(*batch) == second.update(*batch)
    gather = make_gather(first.device)
    assert all(torch.equal(gather(a), gather(b)) for a, b in zip(first.policy.parameters(), second.policy.parameters()))


def test_a_run_that_goes_on_has_its_own_rate_at_once(policy_folder, tmp_path):
    mesh = init_device_mesh("cpu", (1,))
    pairs = stored_groups(policy_folder)
    batch = [each for each, _ in pairs], [each for _, each in pairs]
    first = Actor(config(policy_folder, optim=OptimConfig(lr=1e-3, weight_decay=0.1)), ROLLOUT, mesh)
    first.update(*batch)
    save_state(first.policy, first.optimizer, first.schedule, tmp_path)
    falling = OptimConfig(lr=1e-5, weight_decay=0.0, lr_scheduler_type="linear", training_steps=4)
    second = Actor(config(policy_folder, optim=falling), ROLLOUT, mesh)
    load_state(second.policy, second.optimizer, second.schedule, tmp_path, seed=0)
    assert [second.update(*batch)["actor/lr"] for _ in range(3)] == pytest.approx([0.75e-5, 0.5e-5, 0.25e-5])
    assert second.optimizer.param_groups[0]["weight_decay"] == 0.0


def test_weights_that_stay_gathered_are_looked_at_as_shards_after_a_validation(policy_folder, tmp_path):
    mesh = init_device_mesh("cpu", (1,))
    pairs = stored_groups(policy_folder)
    batch = [each for each, _ in pairs], [each for _, each in pairs]
    gathered, plain = (
        Actor(config(policy_folder, fsdp=FSDPConfig(enable_full_shard=full)), ROLLOUT, mesh) for full in (False, True)
    )
    for actor in (gathered, plain):
        actor.update(*batch)
    assert gathered.evaluate_loss([each.group for each in batch[0]]) == plain.evaluate_loss(
        [each.group for each in batch[0]]
    )
    gathered.log_probs([each.group for each in batch[0]])
    save_weights(gathered.policy, PromptBuilder(policy_folder).processor, tmp_path, gathered.device, SaveOptions())
    save_state(gathered.policy, gathered.optimizer, gathered.schedule, tmp_path)
    again = Actor(config(policy_folder), ROLLOUT, mesh)
    load_weights(again.policy, tmp_path)
    load_state(again.policy, again.optimizer, again.schedule, tmp_path, seed=0)
    assert again.update(*batch) == gathered.update(*batch) == plain.update(*batch)
