"""From the scores of a batch of groups to an advantage for every token, on the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from verl.algorithms.advantages import PER_RESPONSE, compute_advantages
from verl.algorithms.dapo import overlong_penalty
from verl.config.sections import AlgorithmConfig
from verl.protocol import GroupAdvantages, GroupResult


def compute_group_advantages(
    groups: Sequence[GroupResult],
    config: AlgorithmConfig,
    limit: int,
    self_certainty: Mapping[int, Sequence[float]] | None = None,
) -> list[GroupAdvantages]:
    """Applies the estimator that `algorithm.adv_estimator` names to all groups at once.

    Args:
        groups: with finite scores.
        limit: data.max_response_length, for overlong shaping.
        self_certainty: uid -> one number per response, for grpo_certainty.

    Returns:
        one entry per group: per response its tokens' advantages, float32 [response_tokens].
    """
    if not groups:
        return []
    lengths = np.array([tokens for group in groups for tokens in group.response_tokens])
    scores = np.array([score for group in groups for score in shaped_scores(group, config, limit)], dtype=np.float32)
    per_response = config.adv_estimator in PER_RESPONSE
    # [batch, longest], or [batch, 1]: the score stands on a response's last token
    seen = np.ones_like(lengths) if per_response else lengths
    mask = (torch.arange(int(seen.max()))[None, :] < torch.from_numpy(seen)[:, None]).float()
    rewards = torch.zeros_like(mask)
    rewards[torch.arange(len(seen)), torch.from_numpy(seen) - 1] = torch.from_numpy(scores)
    sizes = torch.tensor([len(group.scores) for group in groups])
    inputs: dict[str, torch.Tensor | None] = {"index": torch.arange(len(groups)).repeat_interleave(sizes)}
    baselines = [group.baseline for group in groups if group.baseline is not None]
    if len(baselines) == len(groups):
        inputs["baselines"] = torch.tensor(baselines, dtype=torch.float32).repeat_interleave(sizes)
    if self_certainty is not None:
        inputs["self_certainty"] = torch.tensor([value for group in groups for value in self_certainty[group.uid]])
    options = {"gamma": config.gamma} if config.adv_estimator == "reinforce_plus_plus" else {}
    advantages, _ = compute_advantages(config.adv_estimator, rewards, mask, inputs, **options)
    table = advantages.numpy()
    if per_response:
        rows = iter([np.full(length, row[0], np.float32) for row, length in zip(table, lengths)])
    else:
        rows = iter([row[:length].copy() for row, length in zip(table, lengths)])
    return [GroupAdvantages(group.uid, [next(rows) for _ in group.scores]) for group in groups]


def shaped_scores(group: GroupResult, config: AlgorithmConfig, limit: int) -> list[float]:
    """The group's scores, less the penalty for length where `algorithm.overlong_buffer` asks for it."""
    if not config.overlong_buffer:
        return group.scores
    buffer, factor = config.overlong_buffer, config.overlong_penalty
    penalties = [overlong_penalty(tokens, limit, buffer, factor) for tokens in group.response_tokens]
    return [total + penalty for total, penalty in zip(group.scores, penalties)]
