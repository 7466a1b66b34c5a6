"""The groups that a worker keeps, and how they are divided into micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from verl.config.worker_sections import ActorConfig
from verl.models.packing import TokenizedGroup, first_fit_decreasing


@dataclass
class StoredGroup:
    """One prompt with its responses and their log-probabilities; stays on its worker from rollout to drop.

    Attributes:
        rollout_log_probs: fp32 [R_i] per response, as vLLM reported them when it sampled the tokens.
        ref_log_probs, old_log_probs: fp32 [R_i] per response, by the reference model and by the actor before its first
            update; None where not computed.
        sample_id: for messages.
    """

    group: TokenizedGroup
    rollout_log_probs: list[Tensor]
    ref_log_probs: list[Tensor] | None = None
    old_log_probs: list[Tensor] | None = None
    sample_id: str = ""


# What a rank with fewer micro-batches than the others passes through the model, so that all join the same collectives.
# It carries no weight.
DUMMY_GROUP = TokenizedGroup(
    prompt_ids=torch.zeros(1, dtype=torch.int64), response_ids=[torch.zeros(1, dtype=torch.int64)]
)

MicroBatchIndices = list[
    int
]  # positions, in a list of groups, of those that are packed together; empty: the dummy group


def make_micro_batches(
    groups: Sequence[TokenizedGroup], config: ActorConfig, update: bool, device: torch.device
) -> list[MicroBatchIndices]:
    """The micro-batches of a pass, as many on every rank; a collective.

    Args:
        update: those of an update, else of a pass that only computes log-probabilities; with a token budget they are
            the same.
    """
    batches = split_micro_batches(groups, config, update)
    return batches + [[]] * (max_over_ranks(len(batches), device) - len(batches))


def split_micro_batches(groups: Sequence[TokenizedGroup], config: ActorConfig, update: bool) -> list[MicroBatchIndices]:
    """The micro-batches of this rank alone; see `make_micro_batches`."""
    if config.max_tokens_per_micro_batch is not None:
        return first_fit_decreasing([group.tokens for group in groups], config.max_tokens_per_micro_batch)
    size = config.micro_batch_size_per_device_for_experience
    if update:
        size = config.micro_batch_size_per_device_for_update
    return [list(range(start, min(start + size, len(groups)))) for start in range(0, len(groups), size)]


def max_over_ranks(value: int, device: torch.device) -> int:
    """The largest over all ranks; a collective."""
    largest = torch.tensor(value, device=device)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest)
