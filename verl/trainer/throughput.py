"""Tokens per second of a step, and the share of the device's peak that it used (MFU, arXiv 2204.02311)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from verl.metric_types import Metrics
from verl.models.flops import ModelFlops
from verl.protocol import GroupResult

STEP_PHASES = ("rollout", "score_wait", "ref", "old_log_prob", "advantage", "update")  # of `PhaseTimer`

# Dense bf16 peak in FLOP/s by a substring of the device's name, from the vendors' data sheets; the first match counts.
PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
}


def device_peak(name: str) -> float | None:
    """Peak FLOP/s of a device by its name; None where it is not known (then no MFU is reported)."""
    return next((peak for substring, peak in PEAKS.items() if substring in name), None)


def throughput_metrics(
    seen: Sequence[GroupResult],
    trained: Sequence[GroupResult],
    images: Mapping[int, Sequence[tuple[int, int]]],
    seconds: Mapping[str, float],
    passes_per_group: Mapping[str, int],
    flops: ModelFlops,
    update_flops: ModelFlops,
    peak: float | None,
) -> Metrics:
    """Rates of one step.

    Args:
        seen: groups that were generated; trained: those that were trained on.
        images: uid -> (height, width) of the prompt's images, in pixels.
        seconds: of the phases of `STEP_PHASES`.
        passes_per_group: passes over the trained groups per phase ("ref", "old_log_prob", "update").
        flops: of a forward pass; update_flops: of forward and backward together.
        peak: FLOP/s of all devices together; None reports no MFU.
    """
    written = sum(sum(group.response_tokens) for group in seen)
    read = sum(group.prompt_tokens for group in seen)
    packed = sum(group.prompt_tokens + sum(group.response_tokens) for group in trained)
    total = sum(seconds.get(phase, 0.0) for phase in STEP_PHASES)
    metrics = {
        "perf/tokens_per_second": (read + written) / total,
        "perf/rollout_tokens_per_second": written / seconds["rollout"],
    }
    if seconds.get("update"):
        metrics["perf/update_tokens_per_second"] = packed * passes_per_group["update"] / seconds["update"]
    if peak is not None:

        def cost(groups: Sequence[GroupResult], of: ModelFlops) -> float:
            return sum(
                of.group_flops(group.prompt_tokens, group.response_tokens, images[group.uid]) for group in groups
            )

        of_phase = {"ref": flops, "old_log_prob": flops, "update": update_flops}
        done = {phase: passes_per_group[phase] * cost(trained, of) for phase, of in of_phase.items()}
        metrics["perf/mfu"] = (cost(seen, flops) + sum(done.values())) / (total * peak)
        for phase, work in done.items():
            if seconds.get(phase):
                metrics[f"perf/mfu_{phase}"] = work / (seconds[phase] * peak)
    return metrics
