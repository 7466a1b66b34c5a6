"""Log-probabilities (and entropy) of chosen tokens without ever holding [tokens, vocabulary].

The output layer is applied to a chunk of tokens at a time, in the forward and again in the backward pass, so the peak
is one chunk of logits whatever the number of tokens. On CUDA the logits are fp32 sums of half-precision products;
everything after them (log-sum-exp, probabilities, entropy) is fp32, and the gradient of the output layer is summed over
chunks in fp32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK = 1024  # tokens: 0.6 GB of fp32 logits at a vocabulary of 152k


class TokenScores(NamedTuple):
    """Per token fp32 [N].

    Attributes:
        log_probs: log-probability of the label, in nats.
        entropy: of the token's distribution, in nats; None where not asked for.
        certainty: log-sum-exp minus mean logit, without gradient; None where not asked for.
    """

    log_probs: Tensor
    entropy: Tensor | None = None
    certainty: Tensor | None = None


def token_log_probs(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    temperature: float = 1.0,
    entropy: bool = False,
    certainty: bool = False,
    chunk: int = CHUNK,
) -> TokenScores:
    """log softmax(hidden weight^T / temperature) at the labels, and what else is asked for of that softmax.

    Args:
        hidden: [N, hidden_size]; weight: [vocabulary, hidden_size], the output layer; labels: int64 [N].
        temperature: above 0, as the tokens were sampled with.
    """
    if temperature <= 0:
        raise ValueError(f"log-probabilities need a temperature above 0, got {temperature}")
    scores = _ChunkedLogProbs.apply(hidden, weight, labels, temperature, entropy, certainty, chunk)
    log_probs, entropies, certainties = scores
    return TokenScores(log_probs, entropies if entropy else None, certainties if certainty else None)


def _scaled_logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """fp32 [rows, vocabulary], fresh memory."""
    if hidden.is_cuda and hidden.dtype in (torch.bfloat16, torch.float16):
        logits = torch.mm(hidden, weight.T, out_dtype=torch.float32)
    else:
        logits = torch.mm(hidden, weight.T).float()
    return logits if temperature == 1.0 else logits.div_(temperature)


class _ChunkedLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        temperature: float,
        entropy: bool,
        certainty: bool,
        chunk: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        log_probs = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        normalisers = torch.empty_like(log_probs)
        entropies = torch.empty_like(log_probs) if entropy else log_probs.new_empty(0)
        certainties = torch.empty_like(log_probs) if certainty else log_probs.new_empty(0)
        for start in range(0, len(labels), chunk):
            rows = slice(start, start + chunk)
            logits = _scaled_logits(hidden[rows], weight, temperature)
            normalisers[rows] = logits.logsumexp(-1)
            log_probs[rows] = logits.gather(-1, labels[rows, None])[:, 0] - normalisers[rows]
            if certainty:
                certainties[rows] = normalisers[rows] - logits.mean(-1)
            if entropy:
                logits -= normalisers[rows, None]
                entropies[rows] = torch.special.entr(logits.exp_()).sum(-1)
        ctx.save_for_backward(hidden, weight, labels, normalisers, entropies)
        ctx.temperature, ctx.entropy, ctx.chunk = temperature, entropy, chunk
        ctx.mark_non_differentiable(certainties)
        return log_probs, entropies, certainties

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_log_probs, grad_entropies, _ = grads
        hidden, weight, labels, normalisers, entropies = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for start in range(0, len(labels), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            # d log p_y = onehot_y - p;  d entropy = -p (log p + entropy)
            log_p = _scaled_logits(hidden[rows], weight, ctx.temperature).sub_(normalisers[rows, None])
            factor = -grad_log_probs[rows, None]
            if ctx.entropy:
                factor = factor - grad_entropies[rows, None] * (log_p + entropies[rows, None])
            grad_logits = log_p.exp_().mul_(factor)
            grad_logits.scatter_add_(-1, labels[rows, None], grad_log_probs[rows, None])
            grad = grad_logits.div_(ctx.temperature).to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = grad @ weight
            if grad_weight is not None:
                grad_weight += grad.T @ hidden[rows]
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), *[None] * 5
