"""What the golden vectors do not cover, by numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from verl.algorithms.advantages import ADVANTAGE_ESTIMATORS, compute_advantages, grpo, required_inputs
from verl.algorithms.aggregation import aggregate
from verl.algorithms.dapo import has_score_variance, overlong_penalty
from verl.algorithms.losses import POLICY_LOSSES, truncated_importance_weights, vanilla
from verl.registry import load_by_name

MASK = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
REWARDS = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
INDEX = torch.tensor([7, 7])


def test_certainty_adds_its_own_normalized_advantage() -> None:
    found, _ = compute_advantages(
        "grpo_certainty", REWARDS, MASK, {"index": INDEX, "self_certainty": torch.tensor([5.0, 1.0])}
    )
    unit = 1 / math.sqrt(
        2
    )  # two scores differ by 2: unbiased std sqrt(2), so +-1/sqrt(2); certainties differ by 4: the same
    torch.testing.assert_close(found, torch.tensor([[-unit + unit], [unit - unit]]) * MASK, atol=1e-5, rtol=0)
    assert required_inputs("grpo_certainty") == {"index", "self_certainty"}


def test_an_estimator_of_ones_own() -> None:
    path = "verl.algorithms.advantages:grpo"
    assert load_by_name(path, ADVANTAGE_ESTIMATORS, "advantage estimator") is grpo
    assert torch.equal(compute_advantages(path, REWARDS, MASK, {"index": INDEX})[0], grpo(REWARDS, MASK, INDEX)[0])


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="asks for baselines"):
        compute_advantages("remax", REWARDS, MASK, {"index": INDEX, "baselines": None})
    with pytest.raises(ValueError, match="did you mean grpo"):
        compute_advantages("gprpo", REWARDS, MASK, {"index": INDEX})
    with pytest.raises(ValueError, match="unknown loss aggregation 'mean'"):
        aggregate(REWARDS, MASK, "mean")
    with pytest.raises(ValueError, match="more than one"):
        compute_advantages("reinforce_plus_plus", REWARDS, torch.tensor([[1.0, 0, 0], [0, 0, 0]]), {})


def test_parts_of_a_batch_add_up() -> None:
    values = torch.arange(6.0).view(2, 3)
    for mode, totals in (
        ("token-mean", {"batch_tokens": 5}),
        ("seq-mean-token-mean", {"batch_sequences": 2}),
        ("seq-mean-token-sum-norm", {"norm": 9}),
    ):
        parts = sum(aggregate(values[i : i + 1], MASK[i : i + 1], mode, **totals) for i in range(2))
        torch.testing.assert_close(parts, aggregate(values, MASK, mode, norm=totals.get("norm")))


@pytest.mark.parametrize("name", sorted(POLICY_LOSSES))
def test_at_the_old_policy_a_loss_is_the_policy_gradient(name: str) -> None:
    old = torch.tensor([[-1.0, -2.0, -0.5], [-0.3, -4.0, -1.0]])
    log_probs, advantages = old.clone().requires_grad_(), torch.tensor([[1.0], [-2.0]]) * MASK
    loss = POLICY_LOSSES[name](log_probs, old, advantages, MASK)
    torch.testing.assert_close(loss.values * MASK, -advantages)
    (loss.values * MASK).sum().backward()
    torch.testing.assert_close(log_probs.grad, -advantages)
    assert not loss.clipped.any()
    assert not loss.dual_clipped.any()


def test_importance_weights_are_cut_above_and_scale_the_loss() -> None:
    actor, rollout = torch.tensor([[-1.0, -1.0, -1.0]]), torch.tensor([[-1.0, -3.0, -0.5]])
    weights = truncated_importance_weights(actor, rollout, cap=2.0)
    torch.testing.assert_close(weights, torch.tensor([[1.0, 2.0, math.exp(-0.5)]]))
    ones = torch.ones(1, 3)
    torch.testing.assert_close(vanilla(actor, actor, ones, ones, weights=weights).values, -weights)


def test_groups_that_teach() -> None:
    assert has_score_variance([0.0, 0.0, 1.0])
    assert not has_score_variance([2.5, 2.5, 2.5])
    assert not has_score_variance([1.0, math.nan])


def test_overlong_penalty_falls_in_the_buffer() -> None:
    assert [overlong_penalty(length, 100, 20) for length in (0, 80, 90, 100, 130)] == [0.0, 0.0, -0.5, -1.0, -1.0]
    with pytest.raises(ValueError, match="max_response_length"):
        overlong_penalty(5, 100, 0)
