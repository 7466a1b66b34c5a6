"""From a loss per token to one number, with explicit denominators.

A batch that is cut into micro-batches or over ranks gives the same update only if every shard divides by the whole
batch's tokens or sequences: hand those over as `batch_tokens` and `batch_sequences`, and add the shards up.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

EmptyResponseMode = Literal["skip", "zero", "nan"]
AGGREGATIONS = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")


def aggregate(
    values: Tensor,
    mask: Tensor,
    mode: str = "token-mean",
    *,
    batch_tokens: float | None = None,
    batch_sequences: float | None = None,
    norm: float | None = None,
    empty: EmptyResponseMode = "skip",
) -> Tensor:
    """One scalar from values [batch, length].

    Args:
        mode: `token-mean`: over all tokens (DAPO, arXiv 2503.14476, equation 12). `seq-mean-token-sum`,
            `seq-mean-token-mean`: a sum or mean over each response, then the mean over responses (the latter is GRPO's,
            arXiv 2402.03300, equation 3, and what Veason-R1's micro-batches of one sequence come to).
            `seq-mean-token-sum-norm`: the sum over all tokens, divided by a constant (Dr. GRPO, arXiv 2503.20783).
        batch_tokens, batch_sequences: denominators of the whole batch; by default those of `mask`.
        norm: that constant; by default the length of `mask`.
        empty: a response without tokens is left out of the mean over responses (volcengine/verl agg_loss), counts as
            zero (hiyouga/EasyR1 average_loss), or, in a mean over its tokens, makes the result NaN
            (SitongGong/Veason-R1 agg_loss).
    """
    if mode == "token-mean":
        return masked_mean(values, mask, batch_tokens)
    sums = (values * mask).sum(-1)
    tokens = mask.sum(-1)
    if mode == "seq-mean-token-sum-norm":
        return sums.sum() / (mask.shape[-1] if norm is None else norm)
    if batch_sequences is None:
        batch_sequences = float((tokens > 0).sum()) if empty == "skip" else float(len(mask))
    if mode == "seq-mean-token-sum":
        return sums.sum() / batch_sequences
    if mode == "seq-mean-token-mean":
        means = sums / tokens if empty == "nan" else sums / tokens.clamp(min=1)
        return means.sum() / batch_sequences
    raise ValueError(f"unknown loss aggregation {mode!r}; known: {', '.join(AGGREGATIONS)}")


def masked_mean(values: Tensor, mask: Tensor, tokens: float | None = None) -> Tensor:
    """The mean of values where the mask is 1. Values elsewhere do not count, but must be finite."""
    return (values * mask).sum() / (mask.sum() if tokens is None else torch.as_tensor(tokens, device=values.device))
