"""The training objective of one micro-batch, and metrics whose shares add up to those of the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from verl.algorithms.aggregation import aggregate
from verl.algorithms.kl import KL_PENALTIES
from verl.algorithms.losses import POLICY_LOSSES, truncated_importance_weights
from verl.config.worker_sections import ActorConfig
from verl.metric_types import Metrics, ReplicatedMetric
from verl.models.device_transfer import to_device
from verl.models.log_probs import TokenLogProbs
from verl.models.packing import PackedBatch
from verl.registry import load_by_name
from verl.workers.micro_batches import StoredGroup


@dataclass(frozen=True)
class GlobalTokenCounts:
    """Denominators over all ranks, which make an update independent of micro-batches and ranks."""

    tokens: int  # of the responses
    sequences: int

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> GlobalTokenCounts:
        """From the tokens of each of this rank's responses; a collective."""
        counts = torch.tensor([sum(lengths), len(lengths)], device=device)
        dist.all_reduce(counts)
        return cls(*counts.tolist())


def policy_objective(
    outputs: TokenLogProbs,
    batch: PackedBatch,
    members: Sequence[StoredGroup],
    advantages: Sequence[Sequence[np.ndarray]],
    counts: GlobalTokenCounts,
    config: ActorConfig,
    response_length: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """This micro-batch's share of the batch's loss: policy loss + kl_loss_coef KL - entropy_coeff entropy.

    Without `old_log_probs` the actor's own, detached, take their place: with one update per rollout batch the
    ratio is exactly 1.

    Args:
        members: the micro-batch's groups; none for the dummy group, whose share is 0 and whose graph is whole.
        advantages: per group and response, float32 [R_i].
        response_length: the length limit, the constant of `seq-mean-token-sum-norm` (times the number of responses, so
            that it is a mean).

    Returns:
        A scalar, and the micro-batch's share of each metric.
    """
    padded = partial(_padded, device=outputs.log_probs.device)

    def stored(name: str) -> Tensor:  # log-probabilities that the members carry
        if not members:
            return log_probs.detach()
        return padded([values for member in members for values in getattr(member, name)])

    def token_mean(values: Tensor) -> Tensor:
        return (values.detach() * mask).sum() / counts.tokens

    log_probs = padded(batch.split(outputs.log_probs))
    mask = padded([torch.full((length,), float(bool(members))) for length in batch.lengths])
    advantage = padded([torch.tensor(x) for each in advantages for x in each]) if members else torch.zeros_like(mask)
    old = stored("old_log_probs") if members and members[0].old_log_probs is not None else log_probs.detach()
    sampled = stored("rollout_log_probs")
    norm = response_length * counts.sequences
    whole_batch = partial(aggregate, batch_tokens=counts.tokens, batch_sequences=counts.sequences, norm=norm)

    weights = truncated_importance_weights(old, sampled, config.tis_cap) if config.tis_cap is not None else None
    policy_loss = load_by_name(config.policy_loss, POLICY_LOSSES, "policy loss")
    policy = policy_loss(log_probs, old, advantage, mask, **loss_options(config, weights))
    loss = whole_batch(policy.values, mask, config.loss_agg_mode)
    metrics = {"actor/pg_loss": loss.detach(), "rollout/log_prob_gap": token_mean((sampled - old).abs())}
    metrics |= {f"actor/{name}": token_mean(values) for name, values in policy.metrics().items()}
    if weights is not None:
        metrics["rollout/importance_weight"] = token_mean(weights)
    if config.with_ref:
        divergence = load_by_name(config.kl_loss_type, KL_PENALTIES, "KL penalty")(log_probs, stored("ref_log_probs"))
        loss = loss + config.kl_loss_coef * whole_batch(divergence, mask, config.loss_agg_mode)
        metrics["actor/kl"] = token_mean(divergence)
    if outputs.entropy is not None:
        entropy = padded(batch.split(outputs.entropy))
        loss = loss - config.entropy_coeff * whole_batch(entropy, mask, config.loss_agg_mode)
        metrics["actor/entropy"] = token_mean(entropy)
    return loss, metrics | {"actor/loss": loss.detach()}


def _padded(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """[responses, longest], 0 behind a response's end."""
    return to_device(pad_sequence(list(tensors), batch_first=True), device)


def loss_options(config: ActorConfig, weights: Tensor | None) -> dict[str, object]:
    """The keyword arguments of a policy loss; a clip range that is not set is left to the loss's own defaults."""
    options: dict[str, object] = {"clip_dual": config.clip_ratio_dual}
    for name, edge in (("clip_low", config.clip_ratio_low), ("clip_high", config.clip_ratio_high)):
        value = config.clip_ratio if edge is None else edge
        if value is not None:
            options[name] = value
    return options if weights is None else options | {"weights": weights}


def all_reduce_sum(sums: dict[str, Tensor], device: torch.device) -> Metrics:
    """The whole batch's metrics. A collective; ranks have the same names, if only from a dummy micro-batch."""
    names = sorted(sums)
    values = torch.stack([sums[name].double() for name in names]).to(device)
    dist.all_reduce(values)
    return {name: ReplicatedMetric(value) for name, value in zip(names, values.tolist())}
