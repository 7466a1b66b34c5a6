"""Policy losses per token; `verl.algorithms.aggregation` makes one number of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicyLossOutput:
    """Per token, [batch, length].

    Attributes:
        values: the loss, differentiable in the log-probabilities.
        clipped: 1 where the clip range limits the loss.
        dual_clipped: 1 where the dual clip does.
        ppo_kl: old minus new log-probability, whose mean estimates KL(old || new).
    """

    values: Tensor
    clipped: Tensor
    dual_clipped: Tensor
    ppo_kl: Tensor

    def metrics(self) -> dict[str, Tensor]:
        """What to log: the mean of each over all tokens of the batch."""
        return {"pg_clipfrac": self.clipped, "pg_clipfrac_lower": self.dual_clipped, "ppo_kl": self.ppo_kl}


def vanilla(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    clip_dual: float | None = 3.0,
    bound: float | None = 20.0,
    weights: Tensor | None = None,
) -> PolicyLossOutput:
    """PPO's clipped ratio, with a higher upper edge and the dual clip where asked for.

    Args:
        clip_low, clip_high: the ratio counts within [1 - low, 1 + high] (PPO, arXiv 1707.06347, equation 7;
            clip-higher: DAPO, arXiv 2503.14476, equation 10).
        clip_dual: with a negative advantage the loss is at most -clip_dual * advantage (dual clip, arXiv 1912.09729,
            equation 5); None for none.
        bound: the log-ratio is held within [-bound, bound] before exp; None for not.
        weights: [batch, length], multiplies the loss (`truncated_importance_weights`).

    Source: volcengine/verl verl/trainer/ppo/core_algos.py compute_policy_loss_vanilla; without dual clip and bound
    SitongGong/Veason-R1 verl/trainer/core_algos.py compute_policy_loss.
    """
    del mask  # the ratio of a token needs no other
    log_ratio = _bounded(log_probs - old_log_probs, bound)
    return _clipped(log_ratio, -log_ratio.detach(), advantages, clip_low, clip_high, clip_dual, weights)


def gspo(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
    clip_dual: float | None = None,
    bound: float | None = None,
    weights: Tensor | None = None,
) -> PolicyLossOutput:
    """The clipped ratio of whole responses, exp(mean log-ratio), with each token's own gradient (GSPO-token).

    Belongs with `seq-mean-token-mean` and a clip range far below PPO's. `bound`: by default the log-ratio is only held
    below 10.

    Source: Zheng et al., GSPO (arXiv 2507.18071), equations 13 to 17; volcengine/verl verl/trainer/ppo/core_algos.py
    compute_policy_loss_gspo; with clip_dual=3 and bound=20 hiyouga/EasyR1 verl/trainer/core_algos.py
    compute_policy_loss, loss_type "gspo_token".
    """
    difference = log_probs - old_log_probs
    log_ratio = _sequence_mean(difference, mask).detach()[:, None] + log_probs - log_probs.detach()
    log_ratio = log_ratio.clamp(max=10.0) if bound is None else _bounded(log_ratio, bound)
    return _clipped(log_ratio, -difference.detach(), advantages, clip_low, clip_high, clip_dual, weights)


def gspo_sequence(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
    clip_dual: float | None = 3.0,
    bound: float | None = 20.0,
    weights: Tensor | None = None,
) -> PolicyLossOutput:
    """The clipped ratio of whole responses, with the gradient of the response's mean (GSPO).

    Source: Zheng et al., GSPO (arXiv 2507.18071), equations 5 to 7; hiyouga/EasyR1 verl/trainer/core_algos.py
    compute_policy_loss, loss_type "gspo".
    """
    difference = log_probs - old_log_probs
    log_ratio = _bounded(_sequence_mean(difference, mask)[:, None] * mask, bound)
    return _clipped(log_ratio, -difference.detach(), advantages, clip_low, clip_high, clip_dual, weights)


def _bounded(log_ratio: Tensor, bound: float | None) -> Tensor:
    return log_ratio if bound is None else log_ratio.clamp(-bound, bound)


def _sequence_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(-1) / mask.sum(-1).clamp(min=1)


def _clipped(
    log_ratio: Tensor,
    ppo_kl: Tensor,
    advantages: Tensor,
    low: float,
    high: float,
    dual: float | None,
    weights: Tensor | None,
) -> PolicyLossOutput:
    ratio = log_ratio.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1.0 - low, 1.0 + high)
    values = torch.maximum(unclipped, clipped)
    clipped = (clipped > unclipped).to(values.dtype)
    dual_clipped = torch.zeros_like(clipped)
    if dual is not None:
        ceiling = -advantages * dual
        dual_clipped = ((values > ceiling) & (advantages < 0)).to(values.dtype)
        values = torch.where(advantages < 0, torch.minimum(values, ceiling), values)
    if weights is not None:
        values = values * weights
    return PolicyLossOutput(values, clipped, dual_clipped, ppo_kl)


def truncated_importance_weights(old_log_probs: Tensor, rollout_log_probs: Tensor, cap: float = 2.0) -> Tensor:
    """min(p_actor / p_rollout, cap) per token, no gradient: corrects for tokens being drawn by the rollout engine's
    arithmetic.

    Source: Yao et al., Your Efficient RL Framework Secretly Brings You Off-Policy RL Training
    (fengyao.notion.site/off-policy-rl, 2025); volcengine/verl, rollout importance sampling, token level.
    """
    return (old_log_probs - rollout_log_probs).detach().clamp(max=math.log(cap)).exp()


POLICY_LOSSES: Mapping[str, Callable[..., PolicyLossOutput]] = {
    "vanilla": vanilla,
    "gspo": gspo,
    "gspo_sequence": gspo_sequence,
}
