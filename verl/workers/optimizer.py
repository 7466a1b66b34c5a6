"""AdamW, its learning-rate schedule, and the clipped step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from verl.config.worker_sections import OptimConfig
from verl.metric_types import CountMetric, Metrics, ReplicatedMetric
from verl.workers.optimizer_offload import OptimizerOffloader


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimConfig) -> AdamW:
    """AdamW over the parameters that are trained; one fused kernel where they are on a GPU."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise ValueError("nothing is trained: every weight is frozen")
    (beta1, beta2), decay, fused = config.betas, config.weight_decay, trained[0].is_cuda
    return AdamW(trained, lr=config.lr, betas=(beta1, beta2), eps=config.eps, weight_decay=decay, fused=fused)


def learning_rate_factor(update: int, config: OptimConfig) -> float:
    """The learning rate of an update (0 for the first) as a share of its peak, `lr`."""
    total = config.training_steps
    warmup = int(config.lr_warmup_steps_ratio * max(total, 0))
    if update < warmup:
        return (update + 1) / (warmup + 1)
    if config.lr_scheduler_type == "constant":
        return 1.0
    if total < 1:
        kind = config.lr_scheduler_type
        raise ValueError(f"a {kind} schedule needs the updates of the whole run (worker.actor.optim.training_steps)")
    progress = min(1.0, (update - warmup) / max(1, total - warmup))
    decay = {"cosine": 0.5 * (1.0 + math.cos(math.pi * progress)), "linear": 1.0 - progress}[config.lr_scheduler_type]
    return config.min_lr_ratio + (1.0 - config.min_lr_ratio) * decay


def build_schedule(optimizer: AdamW, config: OptimConfig) -> LambdaLR:
    return LambdaLR(optimizer, lambda update: learning_rate_factor(update, config))


def clip_and_step(
    optimizer: AdamW, schedule: LambdaLR, max_norm: float | None, offloader: OptimizerOffloader | None = None
) -> Metrics:
    """Clips the gradient to `max_norm` over all ranks (None or 0: not at all), steps, and clears the gradient. With a
    gradient that is not finite the weights stay as they are, `actor/skipped_updates` is 1, and the schedule goes on.
    With `offloader` the moments come from the host and go back.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, max_norm or math.inf)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()  # the norm over all shards, not this rank's
    rate, finite = optimizer.param_groups[0]["lr"], math.isfinite(norm)  # the same on every rank
    if finite:
        (offloader or optimizer).step()
    with warnings.catch_warnings():  # that the schedule steps without the optimizer is what is meant
        warnings.simplefilter("ignore", UserWarning)
        schedule.step()
    optimizer.zero_grad(set_to_none=True)
    skipped = CountMetric(not finite)
    return {
        "actor/grad_norm": ReplicatedMetric(norm.item()),
        "actor/lr": ReplicatedMetric(rate),
        "actor/skipped_updates": skipped,
    }
