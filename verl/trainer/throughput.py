"""Model FLOPs of packed groups, and the share of the device's peak that a step used (MFU, arXiv:2204.02311).

Counted is what the mathematics needs: a prompt once per group, its images once, attention over what a token may see;
recomputed activations are not. A matrix multiplication takes 2 FLOPs per weight and token, its backward pass twice
that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl.protocol import GroupResult

# Dense bf16 peak in FLOP/s by a part of the device's name, from the vendors' data sheets; the first match counts.
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
    return next((peak for part, peak in PEAKS.items() if part in name), None)


@dataclass(frozen=True)
class ModelFlops:
    """Forward FLOPs of Qwen2.5-VL.

    Attributes:
        token: per token of the language model, attention aside.
        pair: per (query, key) pair, over all layers.
        head: per response token, the vocabulary's matrix.
        patch: per image patch, the tower's attention within windows included.
    """

    token: float
    pair: float
    head: float
    patch: float

    @classmethod
    def of(cls, config: Any) -> ModelFlops:
        """From a `Qwen2_5_VLConfig`."""
        text, tower = config.text_config, config.vision_config
        width, layers = text.hidden_size, text.num_hidden_layers
        kv_width = width // text.num_attention_heads * text.num_key_value_heads
        weights = 2 * width * width + 2 * width * kv_width + 3 * width * text.intermediate_size
        side = tower.hidden_size
        block = 4 * side * side + 3 * side * tower.intermediate_size
        merged = tower.spatial_merge_size**2
        merger = (side * merged) ** 2 + side * merged * tower.out_hidden_size
        window = (tower.window_size // tower.patch_size) ** 2
        return cls(
            token=2.0 * layers * weights,
            pair=4.0 * layers * width,
            head=2.0 * width * text.vocab_size,
            patch=2.0 * (tower.depth * block + merger / merged) + 4.0 * tower.depth * side * window,
        )

    def with_backward(self, adapter: bool, tower: bool) -> ModelFlops:
        """Forward and backward pass together: three times the forward pass where weights are trained, twice where only
        what flows through them is needed, once where nothing behind them is trained.

        Args:
            adapter: a low-rank adapter is trained instead of the language model's own weights.
            tower: the vision tower is trained.
        """
        through = 2.0 if adapter else 3.0
        return ModelFlops(
            self.token * through, self.pair * 3, self.head * through, self.patch * (3.0 if tower else 1.0)
        )

    def group(self, prompt: int, responses: Sequence[int], patches: int) -> float:
        """One pass over one packed group: tokens of the prompt and of each response, patches of its images."""
        written = sum(responses)
        pairs = prompt * prompt / 2 + sum(length * prompt + length * length / 2 for length in responses)
        return self.token * (prompt + written) + self.pair * pairs + self.head * written + self.patch * patches


def throughput_metrics(
    seen: Sequence[GroupResult],
    trained: Sequence[GroupResult],
    patches: Mapping[int, int],
    seconds: Mapping[str, float],
    passes: Mapping[str, int],
    flops: ModelFlops,
    update_flops: ModelFlops,
    peak: float | None,
) -> dict[str, float]:
    """Rates of one step.

    Args:
        seen: groups that were generated; trained: those that were trained on.
        patches: uid -> image patches.
        seconds: of the stages rollout, score, reference, advantage, update.
        passes: passes over the trained groups per stage ("reference", "update").
        flops: of a forward pass; update_flops: of forward and backward together.
        peak: FLOP/s of all devices together; None reports no MFU.
    """
    written = sum(sum(group.response_tokens) for group in seen)
    read = sum(group.prompt_tokens for group in seen)
    packed = sum(group.prompt_tokens + sum(group.response_tokens) for group in trained)
    total = sum(seconds.get(stage, 0.0) for stage in ("rollout", "score", "reference", "advantage", "update"))
    figures = {
        "perf/tokens_per_second": (read + written) / total,
        "perf/generated_per_second": written / seconds["rollout"],
    }
    if seconds.get("update"):
        figures["perf/updated_per_second"] = packed * passes["update"] / seconds["update"]
    if peak is not None:
        generate = sum(flops.group(group.prompt_tokens, group.response_tokens, patches[group.uid]) for group in seen)
        done = {
            stage: passes[stage]
            * sum(of.group(group.prompt_tokens, group.response_tokens, patches[group.uid]) for group in trained)
            for stage, of in (("reference", flops), ("update", update_flops))
        }
        figures["perf/mfu"] = (generate + sum(done.values())) / (total * peak)
        figures |= {
            f"perf/mfu_{stage}": work / (seconds[stage] * peak) for stage, work in done.items() if seconds.get(stage)
        }
    return figures
