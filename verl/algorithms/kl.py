"""Estimates of the divergence from the reference policy, per token.

`log_probs` are the policy's (p below), `ref_log_probs` the reference's (q), both [batch, length].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor


def kl(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """log(p / q): unbiased, high variance (k1 in J. Schulman, joschu.net/blog/kl-approx.html)."""
    return log_probs - ref_log_probs


def absolute(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """|log(p / q)|."""
    return (log_probs - ref_log_probs).abs()


def mse(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """log(p / q)^2 / 2: biased, low variance (k2 in J. Schulman's note)."""
    return 0.5 * (log_probs - ref_log_probs).square()


def low_var_kl(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """q / p - log(q / p) - 1: unbiased, low variance, never negative (k3 in J. Schulman's note), held within [-10, 10].

    The log-ratio is held within [-20, 20] before exp. The estimate is beyond 10 there, so only a gradient that was NaN
    changes.

    Source: SitongGong/Veason-R1 verl/trainer/core_algos.py kl_penalty; volcengine/verl verl/trainer/ppo/core_algos.py
    kl_penalty.
    """
    log_ratio = (ref_log_probs - log_probs).clamp(-20.0, 20.0)
    return (log_ratio.exp() - log_ratio - 1.0).clamp(-10.0, 10.0)


KL_PENALTIES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": kl,
    "abs": absolute,
    "mse": mse,
    "low_var_kl": low_var_kl,
}
