"""Advantages of a batch of groups, against numbers worked out by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from verl.algorithms.advantages import PER_RESPONSE, compute_advantages
from verl.config.sections import AlgorithmConfig
from verl.protocol import GroupResult
from verl.trainer.group_advantages import compute_group_advantages, shaped_scores


def group(uid: int, totals: list[float], tokens: list[int], baseline: float | None = None) -> GroupResult:
    n = len(totals)
    return GroupResult(
        uid, f"v/{uid}", 10, ["text"] * n, tokens, [False] * n, totals, [{} for _ in totals], [None] * n, baseline
    )


def test_grpo_normalizes_within_each_group_of_ragged_responses() -> None:
    first, second = group(3, [1.0, 3.0], [2, 4]), group(5, [0.0, 1.0, 2.0], [1, 3, 2])
    result = compute_group_advantages([first, second], AlgorithmConfig(), limit=8)
    assert [each.uid for each in result] == [3, 5]
    assert [len(values) for each in result for values in each.advantages] == [2, 4, 1, 3, 2]
    # unbiased std of (1, 3) is sqrt(2), of (0, 1, 2) it is 1
    expected = [-1 / (2**0.5 + 1e-6), 1 / (2**0.5 + 1e-6), -1 / (1 + 1e-6), 0.0, 1 / (1 + 1e-6)]
    for values, number in zip([values for each in result for values in each.advantages], expected, strict=True):
        assert values.dtype == np.float32 and values == pytest.approx(np.full(len(values), number), abs=1e-6)


def test_a_group_of_one_keeps_its_score() -> None:
    (result,) = compute_group_advantages([group(0, [2.5], [3])], AlgorithmConfig(), limit=8)
    assert result.advantages[0] == pytest.approx([2.5] * 3, rel=1e-5)


def test_remax_subtracts_the_greedy_score_and_needs_it() -> None:
    config = AlgorithmConfig(adv_estimator="remax")
    (result,) = compute_group_advantages([group(0, [2.0, 5.0], [1, 2], baseline=3.0)], config, limit=8)
    assert [values.tolist() for values in result.advantages] == [[-1.0], [2.0, 2.0]]
    with pytest.raises(ValueError, match="baselines"):
        compute_group_advantages([group(0, [2.0], [1])], config, limit=8)


def test_reinforce_plus_plus_discounts_towards_the_first_token() -> None:
    config = AlgorithmConfig(adv_estimator="reinforce_plus_plus", gamma=0.5)
    (result,) = compute_group_advantages([group(0, [4.0], [3])], config, limit=8)
    returns = np.array([1.0, 2.0, 4.0])
    assert result.advantages[0] == pytest.approx((returns - returns.mean()) / returns.std(ddof=1), rel=1e-5)


def test_certainty_adds_its_own_normalized_part() -> None:
    config = AlgorithmConfig(adv_estimator="grpo_certainty")
    (result,) = compute_group_advantages(
        [group(7, [1.0, 3.0], [1, 1])], config, limit=8, self_certainty={7: [9.0, 5.0]}
    )
    assert [values.item() for values in result.advantages] == pytest.approx([0.0, 0.0], abs=1e-5)
    with pytest.raises(ValueError, match="self_certainty"):
        compute_group_advantages([group(7, [1.0, 3.0], [1, 1])], config, limit=8)


def test_overlong_responses_lose_score_in_a_line() -> None:
    config = AlgorithmConfig(overlong_buffer=4, overlong_penalty=2.0)
    assert shaped_scores(group(0, [3.0] * 4, [4, 6, 7, 8]), config, limit=8) == [3.0, 2.0, 1.5, 1.0]
    assert shaped_scores(group(0, [3.0], [8]), AlgorithmConfig(), limit=8) == [3.0]


def test_no_group_gives_nothing() -> None:
    assert compute_group_advantages([], AlgorithmConfig(), limit=8) == []


def test_a_batch_of_8192_groups_takes_a_second_and_no_square_of_memory() -> None:
    rng = np.random.default_rng(0)
    groups = [group(uid, rng.random(8).tolist(), rng.integers(50, 1024, 8).tolist()) for uid in range(8192)]
    taken = []
    for _ in range(3):
        start = time.process_time()
        result = compute_group_advantages(groups, AlgorithmConfig(), limit=1024)
        taken.append(time.process_time() - start)
    assert min(taken) < 1.0, taken
    scores = np.array(groups[-1].scores)
    expected = (scores - scores.mean()) / (scores.std(ddof=1) + 1e-6)
    assert [values[0] for values in result[-1].advantages] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", sorted(PER_RESPONSE - {"remax", "grpo_certainty"}))
def test_one_token_stands_for_a_response(name: str) -> None:
    """Against the estimator on the whole [batch, length]."""
    groups = [group(0, [1.0, 3.0, 2.0], [2, 4, 1]), group(1, [0.5, 0.25, 4.0], [3, 3, 5])]
    mask = torch.arange(5)[None, :] < torch.tensor([2, 4, 1, 3, 3, 5])[:, None]
    rewards = torch.zeros(6, 5)
    rewards[torch.arange(6), mask.sum(-1) - 1] = torch.tensor([1.0, 3.0, 2.0, 0.5, 0.25, 4.0])
    whole, _ = compute_advantages(name, rewards, mask.float(), {"index": torch.tensor([0, 0, 0, 1, 1, 1])})
    result = compute_group_advantages(groups, AlgorithmConfig(adv_estimator=name), limit=8)
    for values, row, kept in zip([values for each in result for values in each.advantages], whole, mask, strict=True):
        assert values.tolist() == row[kept].tolist()
