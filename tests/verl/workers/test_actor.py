"""An update is the same however its batch is cut: over micro-batches, over token budgets, over ranks."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from tests.processes import free_port, run_ranks
from tests.verl.workers.toy_groups import ROLLOUT, config, rank_main, stored_groups, updated
from verl.config.worker_sections import FSDPConfig, ModelConfig, RefConfig
from verl.models.families import load_family
from verl.models.lora import LoraOptions
from verl.models.packing import TokenizedGroup, pack_groups
from verl.models.policy_model import load_policy
from verl.workers.actor import Actor, lora_options
from verl.workers.objective import loss_options
from verl.workers.optimizer import clip_and_step, learning_rate_factor
from verl.workers.prompt_builder import PromptBuilder
from verl.workers.ref_policy import RefPolicy
from verl.workers.sharding import sharding_mesh, unsharded_parameters
from verl.workers.worker_checkpoint import SaveOptions, load_weights, save_weights

pytestmark = pytest.mark.usefixtures("lone_rank")
LEARNING_RATE = 1e-2  # of toy_groups.config
CUTS = [
    {"micro_batch_size_per_device_for_update": 2},
    {"micro_batch_size_per_device_for_update": 4},
    {"max_tokens_per_micro_batch": 120},
    {"max_tokens_per_micro_batch": 100_000},
]


def assert_same(one, other):
    """Metrics within 1e-5, the weights within 1e-6 of their norm, no weight further off than 1e-5 of its steps or two
    roundings.
    """
    assert one[0].keys() == other[0].keys()
    for name, value in one[0].items():
        assert other[0][name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    weights, difference = (
        torch.cat([part.flatten().double() for part in parts])
        for parts in (one[1].values(), [other[1][name] - weight for name, weight in one[1].items()])
    )
    assert difference.norm() <= 1e-6 * weights.norm()
    assert (
        difference.abs() <= (2 * torch.finfo(torch.float32).eps * weights.abs()).clamp(min=1e-5 * LEARNING_RATE * 2)
    ).all()


@pytest.fixture(scope="module")
def whole(policy_folder):
    return updated(config(policy_folder))


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_micro_batches_and_budgets_give_the_same_update(policy_folder, whole, cut):
    assert_same(whole, updated(config(policy_folder, **cut)))


def on_ranks(count, configs, output):
    run_ranks(rank_main, (count, free_port(), configs, str(output)), count)
    return torch.load(output)


def test_two_ranks_give_the_same_update_and_uneven_batches_do_not_hang(policy_folder, qwen3_folder, whole, tmp_path):
    gathered = FSDPConfig(enable_full_shard=False)
    configs = [
        config(policy_folder),
        *(config(policy_folder, fsdp=fsdp, max_tokens_per_micro_batch=250) for fsdp in (FSDPConfig(), gathered)),
        config(qwen3_folder, max_tokens_per_micro_batch=250),
    ]
    *results, qwen3 = on_ranks(2, configs, tmp_path / "out.pt")
    for result in results:
        assert_same(whole, result)
    assert_same(updated(config(qwen3_folder)), qwen3)


def test_unsharded_frozen_weights_give_the_same_update(policy_folder, tmp_path):
    model = ModelConfig(model_path=policy_folder, lora_rank=4, lora_alpha=8.0)
    configs = [config(policy_folder, model=model, fsdp=FSDPConfig(enable_full_shard=full)) for full in (True, False)]
    alone = updated(configs[0])
    for result in on_ranks(2, configs, tmp_path / "out.pt"):
        assert_same(alone, result)


@pytest.mark.parametrize(("full", "expected"), [(True, False), (False, True)])
def test_what_is_frozen_is_not_sharded_where_weights_stay_gathered_for_a_step(policy_folder, full, expected):
    lora = LoraOptions(4, 32, load_family(policy_folder).lora_target_pattern)
    policy = load_policy(policy_folder, lora=lora)
    mesh = SimpleNamespace(device_type="cpu", shape=(2,))
    assert bool(unsharded_parameters(policy, FSDPConfig(enable_full_shard=full), mesh)) == expected
    unsharded = unsharded_parameters(policy, FSDPConfig(enable_full_shard=False), mesh)
    assert unsharded == {weight for weight in policy.parameters() if not weight.requires_grad}


def test_two_copies_of_two_shards_give_the_same_update(policy_folder, whole, tmp_path):
    hybrid = config(policy_folder, fsdp=FSDPConfig(fsdp_size=2), max_tokens_per_micro_batch=120)
    assert_same(whole, on_ranks(4, [hybrid], tmp_path / "out.pt")[0])


def test_ranks_that_are_no_whole_number_of_copies_are_refused():
    with pytest.raises(ValueError, match=r"fsdp\.fsdp_size=3 does not divide the 4 workers"):
        sharding_mesh("cpu", 4, 3)


def test_the_loss_is_the_mean_over_responses_of_their_token_means(policy_folder):
    """Against the definition, one response at a time through plain tensors, with a first update's ratio of 1."""
    actor_config = config(policy_folder)
    groups = stored_groups(policy_folder)
    policy = load_policy(policy_folder, gradient_checkpointing=None)
    losses, entropies = [], []
    for stored, advantages in groups:
        for number, ids in enumerate(stored.group.response_ids):
            alone = pack_groups([replace(stored.group, response_ids=[ids])], policy.family)
            with torch.no_grad():
                scores = policy(alone, entropy=True)
            ratio = stored.ref_log_probs[number] - scores.log_probs
            kl = (ratio.exp() - ratio - 1).clamp(max=10)
            gain = torch.from_numpy(advantages[number])
            losses.append((-gain + 0.1 * kl - 0.01 * scores.entropy).mean().item())
            entropies.append(scores.entropy)
    metrics = updated(actor_config, steps=1)[0]
    assert metrics["actor/loss"] == pytest.approx(
        np.mean(losses), abs=1e-5 * np.abs(losses).mean()
    )  # they nearly cancel
    assert metrics["actor/entropy"] == pytest.approx(torch.cat(entropies).mean().item(), rel=1e-5)
    assert metrics["actor/ppo_kl"] == 0 and metrics["actor/pg_clipfrac"] == 0


def test_old_log_probs_of_the_actor_change_nothing_at_the_first_update(policy_folder):
    mesh = init_device_mesh("cpu", (1,))
    pairs = stored_groups(policy_folder)
    stored, advantages = [each for each, _ in pairs], [each for _, each in pairs]
    results = []
    for computed in (False, True):
        actor = Actor(config(policy_folder, kl_loss_coef=0.0, entropy_coeff=0.0), ROLLOUT, mesh)
        for each, values in zip(stored, actor.log_probs([each.group for each in stored])):
            each.old_log_probs = values if computed else None
        results.append(actor.update(stored, advantages))
    assert results[0].keys() == results[1].keys() and "actor/entropy" not in results[0] and "actor/kl" not in results[0]
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_importance_weights_are_capped(policy_folder):
    mesh = init_device_mesh("cpu", (1,))
    pairs = stored_groups(policy_folder)
    actor = Actor(config(policy_folder, tis_cap=2.0), ROLLOUT, mesh)
    metrics = actor.update([each for each, _ in pairs], [each for _, each in pairs])
    assert 0 < metrics["rollout/importance_weight"] <= 2.0


def test_fine_tuning_is_the_token_mean_and_learns(policy_folder):
    mesh = init_device_mesh("cpu", (1,))
    actor = Actor(config(policy_folder), ROLLOUT, mesh)
    groups = [
        TokenizedGroup(s.group.prompt_ids, s.group.response_ids[:1], s.group.pixel_values, s.group.image_grid_thw)
        for s, _ in stored_groups(policy_folder)
    ]
    log_probs = [values for group in actor.log_probs(groups) for values in group]
    before = actor.evaluate_loss(groups)
    assert before["loss"] == pytest.approx(-torch.cat(log_probs).mean().item(), rel=1e-5)
    for _ in range(3):
        last = actor.fine_tune(groups)
    assert last["loss"] < before["loss"] and actor.evaluate_loss(groups)["loss"] < last["loss"]


def test_an_update_that_is_not_finite_is_skipped_and_its_groups_are_known(policy_folder):
    mesh = init_device_mesh("cpu", (1,))
    pairs = stored_groups(policy_folder)
    stored, advantages = [each for each, _ in pairs], [each for _, each in pairs]
    actor = Actor(config(policy_folder), ROLLOUT, mesh)
    assert actor.update(stored, advantages)["actor/skipped_updates"] == 0 and actor.nonfinite_groups == []
    before = [parameter.detach().clone() for parameter in actor.policy.parameters()]
    moments = [state["exp_avg"].clone() for state in actor.optimizer.state.values()]
    bad = [[values.copy() for values in each] for each in advantages]
    bad[2][0][:] = np.nan
    metrics = actor.update(stored, bad)
    assert metrics["actor/skipped_updates"] == 1 and actor.nonfinite_groups == [2]
    assert all(torch.equal(one, other) for one, other in zip(before, actor.policy.parameters()))
    assert all(torch.equal(one, state["exp_avg"]) for one, state in zip(moments, actor.optimizer.state.values()))
    again = actor.update(stored, advantages)
    assert again["actor/skipped_updates"] == 0 and np.isfinite(again["actor/grad_norm"])


def test_no_clipping_leaves_the_gradient_as_it_is():
    gradients = {}
    for norm in (None, 0, 1e-3, 1e9):
        parameter = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.AdamW([parameter], lr=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        seen = []
        optimizer.register_step_pre_hook(lambda *_, p=parameter, seen=seen: seen.append(p.grad.tolist()))
        parameter.grad = torch.tensor([3.0, 0.0, -4.0])
        assert clip_and_step(optimizer, schedule, norm)["actor/grad_norm"] == pytest.approx(5.0)
        gradients[norm] = seen[0]
    assert gradients[None] == gradients[0] == gradients[1e9] == [3.0, 0.0, -4.0]
    assert gradients[1e-3] == pytest.approx([6e-4, 0.0, -8e-4], rel=1e-4)


def test_gspo_has_its_own_clip_range(policy_folder):
    assert loss_options(config(policy_folder, policy_loss="gspo"), None) == {"clip_dual": None}
    mesh = init_device_mesh("cpu", (1,))
    pairs = stored_groups(policy_folder)
    actor = Actor(config(policy_folder, policy_loss="gspo", kl_loss_coef=0.0, entropy_coeff=0.0), ROLLOUT, mesh)
    stored, advantages = [each for each, _ in pairs], [each for _, each in pairs]
    for each, values in zip(stored, actor.log_probs([each.group for each in stored])):
        each.old_log_probs = values
    assert [actor.update(stored, advantages)["actor/pg_clipfrac"] > 0 for _ in range(2)] == [False, True]


def test_learning_rate_schedules(policy_folder):
    options = config(policy_folder).optim
    assert [learning_rate_factor(update, options) for update in (0, 5, 10**6)] == [1.0, 1.0, 1.0]
    warm = replace(options, lr_warmup_steps_ratio=0.3, training_steps=10, lr_scheduler_type="linear", min_lr_ratio=0.1)
    assert [round(learning_rate_factor(update, warm), 4) for update in (0, 2, 3, 10)] == [0.25, 0.75, 1.0, 0.1]
    cosine = replace(warm, lr_scheduler_type="cosine", lr_warmup_steps_ratio=0.0, min_lr_ratio=0.0)
    assert learning_rate_factor(5, cosine) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="training_steps"):
        learning_rate_factor(0, replace(cosine, training_steps=-1))


def test_a_run_of_five_updates_is_the_recorded_one(policy_folder):
    """Losses of a fixed trajectory. To record anew after a deliberate change: RECORD_TRAJECTORY=1."""
    recorded = Path(__file__).parents[2] / "assets" / "update_trajectory.json"
    actor = Actor(config(policy_folder), ROLLOUT, init_device_mesh("cpu", (1,)))
    pairs = stored_groups(policy_folder)
    metrics = [actor.update([each for each, _ in pairs], [each for _, each in pairs]) for _ in range(5)]
    if os.environ.get("RECORD_TRAJECTORY"):
        recorded.write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n")
    for step, expected in zip(metrics, json.loads(recorded.read_text()), strict=True):
        for name, value in expected.items():
            assert step[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_named_lora_layers_leave_a_frozen_vision_tower_alone(policy_folder):
    def adapted(frozen):
        names = "q_proj,gate_proj,qkv"
        model = ModelConfig(
            model_path=policy_folder, lora_rank=4, lora_target_modules=names, freeze_vision_tower=frozen
        )
        policy = load_policy(policy_folder, lora=lora_options(model), freeze_vision=frozen)
        trained = [
            name for name, parameter in policy.model.named_parameters() if parameter.requires_grad and ".lora_" in name
        ]
        return {"visual" if ".visual." in name else "language" for name in trained}

    assert adapted(frozen=True) == {"language"}
    assert adapted(frozen=False) == {"language", "visual"}


def test_lora_trains_the_adapter_alone_and_its_reference_is_the_base(policy_folder, tmp_path):
    model = ModelConfig(model_path=policy_folder, lora_rank=4, lora_alpha=8.0)
    mesh = init_device_mesh("cpu", (1,))
    torch.manual_seed(0)
    actor = Actor(config(policy_folder, model=model), ROLLOUT, mesh)
    reference = RefPolicy(actor, RefConfig(), mesh)
    pairs = stored_groups(policy_folder)
    groups = [stored.group for stored, _ in pairs]
    start = reference.log_probs(groups)
    frozen = {
        name: weight.clone() for name, weight in actor.policy.model.named_parameters() if not weight.requires_grad
    }
    assert all("lora" not in name for name in frozen)
    assert not any(isinstance(weight, DTensor) for weight in frozen.values())  # one rank has nobody to share them with
    for _ in range(2):
        actor.update([each for each, _ in pairs], [each for _, each in pairs])
    assert all(
        torch.equal(weight, frozen[name]) for name, weight in actor.policy.model.named_parameters() if name in frozen
    )
    same = zip(start, reference.log_probs(groups), actor.log_probs(groups))
    assert all(
        torch.equal(a, b) and not torch.equal(a, c) for one, two, three in same for a, b, c in zip(one, two, three)
    )

    save_weights(actor.policy, PromptBuilder(policy_folder).processor, tmp_path, actor.device, SaveOptions())
    merged = load_policy(tmp_path / "huggingface", gradient_checkpointing=None).eval()
    with torch.no_grad():
        scores = merged(pack_groups(groups, merged.family)).log_probs
    trained = torch.cat([values for each in actor.log_probs(groups) for values in each])
    assert (scores - trained).abs().max() < 1e-5
    again = Actor(config(policy_folder, model=model), ROLLOUT, mesh)
    load_weights(again.policy, tmp_path)
    assert all(
        torch.equal(a, b)
        for one, two in zip(actor.log_probs(groups), again.log_probs(groups))
        for a, b in zip(one, two)
    )
