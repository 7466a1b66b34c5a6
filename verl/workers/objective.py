"""The training objective of one row of groups, and figures whose parts add up to those of the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from verl.algorithms.aggregation import aggregate
from verl.algorithms.kl import KL_PENALTIES
from verl.algorithms.losses import POLICY_LOSSES, truncated_importance_weights
from verl.algorithms.registry import resolve
from verl.config.worker_sections import ActorConfig
from verl.models.packing import Group, PackedBatch
from verl.models.policy import TokenScores
from verl.models.transfer import sent
from verl.workers.groups import StoredGroup


@dataclass(frozen=True)
class Totals:
    """What the whole batch holds, over all ranks: the denominators that make an update independent of rows and ranks."""

    tokens: int  # of the responses
    sequences: int

    @classmethod
    def of(cls, groups: Sequence[Group], device: torch.device) -> Totals:
        """A collective."""
        return cls.count([len(ids) for group in groups for ids in group.response_ids], device)

    @classmethod
    def count(cls, lengths: Sequence[int], device: torch.device) -> Totals:
        """From the tokens of each of this rank's responses; a collective."""
        counts = torch.tensor([sum(lengths), len(lengths)], device=device)
        dist.all_reduce(counts)
        return cls(*counts.tolist())


def policy_objective(
    scores: TokenScores,
    batch: PackedBatch,
    members: Sequence[StoredGroup],
    advantages: Sequence[Sequence[np.ndarray]],
    totals: Totals,
    config: ActorConfig,
    response_length: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """This row's part of the batch's loss: policy loss + kl_loss_coef KL - entropy_coeff entropy.

    Without `old` log-probabilities the actor's own, detached, take their place: with one update per rollout batch the
    ratio is exactly 1.

    Args:
        members: the row's groups; none for an empty row, whose part is 0 and whose graph is whole.
        advantages: per group and response, float32 [R_i].
        response_length: the length limit, the constant of `seq-mean-token-sum-norm` (times the number of responses, so
            that it is a mean).

    Returns:
        A scalar, and the row's part of each figure.
    """
    device = scores.log_probs.device

    def padded(tensors: Sequence[Tensor]) -> Tensor:  # [responses, longest], 0 behind a response's end
        return sent(pad_sequence(list(tensors), batch_first=True), device)

    def kept(name: str) -> Tensor:  # log-probabilities that the members carry
        return (
            padded([values for member in members for values in getattr(member, name)])
            if members
            else log_probs.detach()
        )

    log_probs = padded(batch.split(scores.log_probs))
    mask = padded([torch.full((length,), float(bool(members))) for length in batch.lengths])
    gains = (
        padded([torch.tensor(values) for each in advantages for values in each]) if members else torch.zeros_like(mask)
    )
    old = kept("old") if members and members[0].old is not None else log_probs.detach()
    sampled = kept("rollout_log_probs")

    def reduced(values: Tensor) -> Tensor:
        return aggregate(
            values,
            mask,
            config.loss_agg_mode,
            batch_tokens=totals.tokens,
            batch_sequences=totals.sequences,
            norm=response_length * totals.sequences,
        )

    def token_mean(values: Tensor) -> Tensor:
        return (values.detach() * mask).sum() / totals.tokens

    weights = truncated_importance_weights(old, sampled, config.tis_cap) if config.tis_cap is not None else None
    policy = resolve(config.policy_loss, POLICY_LOSSES, "policy loss")(
        log_probs, old, gains, mask, **loss_options(config, weights)
    )
    policy_loss = reduced(policy.values)
    loss = policy_loss
    figures = {"actor/pg_loss": policy_loss.detach(), "rollout/log_prob_gap": token_mean((sampled - old).abs())}
    figures |= {f"actor/{name}": token_mean(values) for name, values in policy.metrics().items()}
    if weights is not None:
        figures["rollout/importance_weight"] = token_mean(weights)
    if config.use_kl_loss and config.kl_loss_coef != 0:
        divergence = resolve(config.kl_loss_type, KL_PENALTIES, "KL penalty")(log_probs, kept("reference"))
        loss = loss + config.kl_loss_coef * reduced(divergence)
        figures["actor/kl"] = token_mean(divergence)
    if scores.entropy is not None:
        entropy = padded(batch.split(scores.entropy))
        loss = loss - config.entropy_coeff * reduced(entropy)
        figures["actor/entropy"] = token_mean(entropy)
    return loss, figures | {"actor/loss": loss.detach()}


def loss_options(config: ActorConfig, weights: Tensor | None) -> dict[str, object]:
    """The keyword arguments of a policy loss; `seed`, the published one, knows the clip range alone."""
    options: dict[str, object] = {
        "clip_low": config.clip_ratio if config.clip_ratio_low is None else config.clip_ratio_low,
        "clip_high": config.clip_ratio if config.clip_ratio_high is None else config.clip_ratio_high,
    }
    if config.policy_loss != "seed":
        options["clip_dual"] = config.clip_ratio_dual
    if weights is not None:
        options["weights"] = weights
    return options


def add_over_ranks(sums: dict[str, Tensor], device: torch.device) -> dict[str, float]:
    """The figures of the whole batch. A collective; every rank has the same names, since each has passed at least one
    row, if only an empty one.
    """
    names = sorted(sums)
    values = torch.stack([sums[name].double() for name in names]).to(device)
    dist.all_reduce(values)
    return dict(zip(names, values.tolist()))
