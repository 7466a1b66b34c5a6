"""The groups that a worker keeps, and how they are laid out in rows for a pass."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from verl.config.worker_sections import ActorConfig
from verl.models.packing import Group, fill_rows
from verl.protocol import GroupResult


@dataclass
class StoredGroup:
    """One prompt with its responses and what is known about them; stays on its worker from rollout to drop.

    Attributes:
        name: of the sample, for errors.
        rollout_log_probs: fp32 [R_i] per response, as vLLM reported them when it drew the tokens.
        reference, old: fp32 [R_i] per response, from the frozen model and from the actor before its first update; None
            where not computed.
        result: what the driver hears of the group, once it is scored.
    """

    name: str
    group: Group
    rollout_log_probs: list[Tensor]
    result: Future[GroupResult]
    reference: list[Tensor] | None = None
    old: list[Tensor] | None = None


# What a rank with fewer rows than the others passes through the model, so that all join the same collectives. It
# carries no weight.
EMPTY = Group(prompt_ids=torch.zeros(1, dtype=torch.int64), response_ids=[torch.zeros(1, dtype=torch.int64)])


@dataclass(frozen=True)
class Row:
    """Positions, in a list of groups, of those that share a row; none stands for an empty row."""

    members: list[int] = field(default_factory=list)


def lay_out(groups: Sequence[Group], config: ActorConfig, update: bool, device: torch.device) -> list[Row]:
    """The rows of a pass, as many on every rank.

    Args:
        update: rows of an update, else of a pass that only computes log-probabilities; with a token budget they are the
            same.
    """
    rows = [Row(members) for members in split_rows(groups, config, update)]
    return rows + [Row()] * (most_rows(len(rows), device) - len(rows))


def split_rows(groups: Sequence[Group], config: ActorConfig, update: bool) -> list[list[int]]:
    """Positions of the groups that share a row, on this rank alone; see `lay_out`."""
    if config.max_tokens_per_micro_batch is not None:
        return fill_rows([group.tokens for group in groups], config.max_tokens_per_micro_batch)
    size = (
        config.micro_batch_size_per_device_for_update if update else config.micro_batch_size_per_device_for_experience
    )
    return [list(range(start, min(start + size, len(groups)))) for start in range(0, len(groups), size)]


def most_rows(rows: int, device: torch.device) -> int:
    """The rows of the rank that has the most; a collective."""
    most = torch.tensor(rows, device=device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)
