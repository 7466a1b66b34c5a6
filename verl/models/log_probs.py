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

from verl.models.fused_kernels import compile_on_cuda

HALF = (torch.bfloat16, torch.float16)
CHUNK = 1024  # tokens: 0.6 GB of fp32 logits at a vocabulary of 152k


class TokenLogProbs(NamedTuple):
    """Per token fp32 [N].

    Attributes:
        log_probs: log-probability of the label, in nats.
        entropy: of the token's distribution, in nats; None where not asked for.
        self_certainty: log-sum-exp minus mean logit, without gradient; None where not asked for.
    """

    log_probs: Tensor
    entropy: Tensor | None = None
    self_certainty: Tensor | None = None


def token_log_probs(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    temperature: float = 1.0,
    entropy: bool = False,
    self_certainty: bool = False,
    chunk: int = CHUNK,
) -> TokenLogProbs:
    """log softmax(hidden weight^T / temperature) at the labels, and what else is asked for of that softmax.

    Args:
        hidden: [N, hidden_size]; weight: [vocabulary, hidden_size], the output layer; labels: int64 [N].
        temperature: above 0, as the tokens were sampled with.
    """
    if temperature <= 0:
        raise ValueError(f"log-probabilities need a temperature above 0, got {temperature}")
    outputs = _ChunkedLogProbs.apply(hidden, weight, labels, temperature, entropy, self_certainty, chunk)
    log_probs, entropies, certainties = outputs
    return TokenLogProbs(log_probs, entropies if entropy else None, certainties if self_certainty else None)


def _scaled_logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """fp32 [rows, vocabulary], fresh memory."""
    if hidden.is_cuda and hidden.dtype in HALF:
        logits = torch.mm(hidden, weight.T, out_dtype=torch.float32)
    else:
        logits = torch.mm(hidden, weight.T).float()
    return logits if temperature == 1.0 else logits.div_(temperature)


@compile_on_cuda
def _log_softmax_at(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of each row, and the log-probability of its label."""
    normalizers = logits.logsumexp(-1)
    return normalizers, logits.gather(-1, labels[:, None])[:, 0] - normalizers


@compile_on_cuda
def _entropy(logits: Tensor, normalizers: Tensor) -> Tensor:
    return torch.special.entr((logits - normalizers[:, None]).exp()).sum(-1)


@compile_on_cuda
def _logits_gradient(
    logits: Tensor,
    normalizers: Tensor,
    labels: Tensor,
    grad_log_probs: Tensor,
    entropies: Tensor | None,
    grad_entropies: Tensor | None,
    temperature: float,
    dtype: torch.dtype,
) -> Tensor:
    """d log p_y = onehot_y - p;  d entropy = -p (log p + entropy); both over the temperature, in one pass."""
    log_p = logits - normalizers[:, None]
    factor = -grad_log_probs[:, None]
    if entropies is not None and grad_entropies is not None:
        factor = factor - grad_entropies[:, None] * (log_p + entropies[:, None])
    is_label = torch.arange(logits.shape[1], device=logits.device) == labels[:, None]
    grad = log_p.exp() * factor + torch.where(is_label, grad_log_probs[:, None], 0.0)
    return (grad / temperature).to(dtype)


class _ChunkedLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        temperature: float,
        entropy: bool,
        self_certainty: bool,
        chunk: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        log_probs = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        normalizers = torch.empty_like(log_probs)
        entropies = torch.empty_like(log_probs) if entropy else log_probs.new_empty(0)
        certainties = torch.empty_like(log_probs) if self_certainty else log_probs.new_empty(0)
        for start in range(0, len(labels), chunk):
            rows = slice(start, start + chunk)
            logits = _scaled_logits(hidden[rows], weight, temperature)
            normalizers[rows], log_probs[rows] = _log_softmax_at(logits, labels[rows])
            if self_certainty:
                certainties[rows] = normalizers[rows] - logits.mean(-1)
            if entropy:
                entropies[rows] = _entropy(logits, normalizers[rows])
        ctx.save_for_backward(hidden, weight, labels, normalizers, entropies)
        ctx.temperature, ctx.entropy, ctx.chunk = temperature, entropy, chunk
        ctx.mark_non_differentiable(certainties)
        return log_probs, entropies, certainties

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_log_probs, grad_entropies, _ = grads
        hidden, weight, labels, normalizers, entropies = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for start in range(0, len(labels), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            logits = _scaled_logits(hidden[rows], weight, ctx.temperature)
            of_entropy = (entropies[rows], grad_entropies[rows]) if ctx.entropy else (None, None)
            chosen = (labels[rows], grad_log_probs[rows])
            grad = _logits_gradient(logits, normalizers[rows], *chosen, *of_entropy, ctx.temperature, hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = grad @ weight
            if grad_weight is not None and grad.dtype in HALF and grad.is_cuda:
                torch.addmm(grad_weight, grad.T, hidden[rows], out_dtype=torch.float32, out=grad_weight)
            elif grad_weight is not None:
                grad_weight += grad.T @ hidden[rows]
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), *[None] * 5
