"""What a run will take, before it is started: memory of each GPU, seconds of a step, bytes of a checkpoint.

Memory of weights, gradients and moments follows from the model's parameters. Activations, SAM 2 and times are scaled
from measured runs (`verl.trainer.baseline_runs`) by tokens, FLOPs and GPUs; expect them to be off by a fifth. What
PyTorch's allocator keeps of freed memory is not in them, see `ALLOCATOR_SHARE`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from verl.config import Config
from verl.models.families import ModelFamily, load_family
from verl.models.qwen2_5_vl.published_configs import SIZES, published_config
from verl.trainer.baseline_runs import BaselineRun
from verl.workers.memory import GIB

PARAMETERS = {"3b": 3_754_622_976, "7b": 8_292_166_656}  # of the published checkpoints
DTYPE_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
SAM2_GIB = 1.4  # hiera-large beside a 3B policy on one H100 (docs/performance.md)
ACTIVATIONS_GIB = 14.6  # of an update of 14,000 tokens at width 2048, the peak less what is resident (same page)
ACTIVATION_TOKENS, ACTIVATION_WIDTH = 14_000, 2048
# What the same pass takes more where no language layer, or no block of the vision tower, recomputes (same page).
LANGUAGE_GIB, VISION_GIB = 40.0, 25.7
# The measured peak over the estimate, at most, where weights stay gathered: two H200 peaked at 105 GiB, estimated 87.
# Not measured, read in FSDP2's source: the allocator keeps what is freed for the CUDA stream that it was allocated on,
# FSDP2 gathers and sums on streams of its own, and while the GPU has room, nothing makes it give that back.
ALLOCATOR_SHARE = 1.25
STORED_RATIO = 2.8  # without gradient checkpointing: SFT of 3B, 48 GiB for 16,384 tokens (same page)
TARGET_TOKENS = 256  # of a chain of thought with its boxes
FIXED_DECODING = 0.42  # share of generation that does not shrink with the sequences (docs/scaling.md, 16 to 2 prompts)


@dataclass(frozen=True)
class ModelSize:
    """A policy's dimensions.

    Attributes:
        label: "3b" or "7b" where its dimensions are those of a published checkpoint.
        total, trained: parameters.
        width: of the language model.
    """

    family: ModelFamily
    label: str | None
    total: int
    trained: int
    width: int


@dataclass(frozen=True)
class StepTokens:
    """The tokens of a step: per prompt and response, and how many there are."""

    prompts: int
    rollouts: int
    prompt_tokens: int
    response_tokens: int
    images: tuple[tuple[int, int], ...]

    @property
    def tokens(self) -> int:
        return self.prompts * (self.prompt_tokens + self.rollouts * self.response_tokens)


def find_model(config: Config) -> tuple[ModelSize, str] | None:
    """The policy's dimensions and where they are from; None where neither a checkpoint nor a name tells them."""
    model = config.worker.actor.model
    if model.model_path and (Path(model.model_path) / "config.json").is_file():
        family = load_family(model.model_path, **model.override_config)
        return measure_model(family, config), f"config.json of {model.model_path}"
    for name, value in (
        ("the path", model.model_path or ""),
        ("trainer.experiment_name", config.trainer.experiment_name),
    ):
        found = re.search(rf"(?<![a-z0-9])({'|'.join(SIZES)})(?![a-z0-9])", value.lower())
        if found:
            family = load_family(published_config(found[1]))
            return measure_model(family, config), f"assumed to be Qwen2.5-VL-{found[1].upper()}, by {name}"
    return None


def measure_model(family: ModelFamily, config: Config) -> ModelSize:
    """Counts the parameters of a model without weights."""
    options = config.worker.actor.model
    with torch.device("meta"):
        model = family.from_config(torch.bfloat16)
    total = sum(weight.numel() for weight in model.parameters())
    vision = sum(weight.numel() for weight in family.vision_tower(model).parameters())
    trained = total - vision if options.freeze_vision_tower else total
    if options.lora_rank > 0:
        targets = family.lora_targets(options.lora_target_modules.split(","), options.freeze_vision_tower)
        layers = [layer for name, layer in model.named_modules() if re.fullmatch(targets, name)]
        trained = sum(
            options.lora_rank * (layer.in_features + layer.out_features)
            for layer in layers
            if isinstance(layer, nn.Linear)
        )
    label = next((name for name, count in PARAMETERS.items() if abs(total / count - 1) < 0.05), None)
    return ModelSize(family, label, total, trained, family.config.text_config.hidden_size)


def estimate_tokens(
    config: Config, size: ModelSize | None, prompt_tokens: float | None, is_supervised: bool
) -> StepTokens:
    """The tokens of a step with responses of the longest length; in fine-tuning of the usual one.

    Args:
        prompt_tokens: mean of the data; None estimates them from the frames.
    """
    data = config.data
    frames = max(1, data.sampled_frames - 1)
    multiple = size.family.pixel_multiple if size is not None else 28
    estimated = 150 + frames * ((data.keyframe_resize // multiple) ** 2 + 10)
    return StepTokens(
        prompts=data.rollout_batch_size,
        rollouts=1 if is_supervised else config.worker.rollout.n,
        prompt_tokens=round(prompt_tokens or estimated),
        response_tokens=min(TARGET_TOKENS, data.max_response_length) if is_supervised else data.max_response_length,
        images=((data.keyframe_resize, data.keyframe_resize),) * frames,
    )


def estimate_bytes(config: Config, size: ModelSize, needs_rollout: bool, gpu_bytes: float | None) -> dict[str, float]:
    """Bytes of each component on one GPU, as `verl.workers.memory.memory_plan` takes them.

    Args:
        needs_rollout: whether the workers generate and score.
        gpu_bytes: memory of one GPU, None where it is not known.
    """
    worker, trainer = config.worker, config.trainer
    world = trainer.nnodes * trainer.n_gpus_per_node
    shards = world if worker.actor.fsdp.fsdp_size == -1 else worker.actor.fsdp.fsdp_size
    ref_shards = world if worker.ref.fsdp.fsdp_size == -1 else worker.ref.fsdp.fsdp_size
    lora = worker.actor.model.lora_rank > 0
    stored = DTYPE_BYTES[worker.actor.fsdp.torch_dtype or "fp32"]
    frozen = DTYPE_BYTES[worker.actor.fsdp.torch_dtype or (worker.actor.fsdp.mp_param_dtype if lora else "fp32")]
    frozen_shards = 1 if lora and not worker.actor.fsdp.enable_full_shard else shards
    base = size.total if lora else size.total - size.trained
    fsdp = worker.actor.fsdp
    whole = fsdp.reduce_gradients_once or shards == 1  # as in `Actor.training_bytes`
    sizes: dict[str, float] = {
        "weights": size.trained * stored / shards + base * frozen / frozen_shards,
        "gradients": size.trained * (DTYPE_BYTES[fsdp.mp_reduce_dtype] if whole else stored / shards),
        "optimizer": size.trained * 8 / shards,
    }
    if not fsdp.enable_full_shard:  # a copy of each weight that is trained or cast stays for the whole update
        gathered = size.trained if lora else size.total
        sizes["gathered"] = gathered * (stored if trainer.device == "cpu" else DTYPE_BYTES[fsdp.mp_param_dtype])
    if needs_rollout:
        if worker.actor.with_ref and not lora:
            sizes["ref"] = size.total * DTYPE_BYTES[worker.ref.fsdp.torch_dtype or "bf16"] / ref_shards
        engine = size.total * DTYPE_BYTES[worker.rollout.dtype] / worker.rollout.tensor_parallel_size
        if worker.rollout.kv_cache_gib is not None:
            engine += worker.rollout.kv_cache_gib * GIB
        elif gpu_bytes is not None:
            engine = max(engine, worker.rollout.gpu_memory_utilization * gpu_bytes)
        sizes["engine"] = engine
        if worker.reward.tracker == "sam2" and size.label is not None:
            sizes["scorer"] = SAM2_GIB * GIB
    return sizes


def activation_bytes(config: Config, size: ModelSize, tokens: StepTokens) -> float | None:
    """Bytes that an update takes on top; None for a model unlike those that were measured."""
    if size.label is None:
        return None
    share = _micro_batch(config, tokens) / ACTIVATION_TOKENS * size.width / ACTIVATION_WIDTH
    model = config.worker.actor.model
    if not model.enable_gradient_checkpointing:
        return ACTIVATIONS_GIB * GIB * share * STORED_RATIO
    kept = LANGUAGE_GIB * (1 - model.gradient_checkpointing_language)
    kept += VISION_GIB * (1 - model.gradient_checkpointing_vision)
    return (ACTIVATIONS_GIB + kept) * GIB * share


def _micro_batch(config: Config, tokens: StepTokens) -> float:
    """Tokens of a pass in training: whole groups, one at least."""
    actor = config.worker.actor
    group = tokens.prompt_tokens + tokens.rollouts * tokens.response_tokens
    if actor.max_tokens_per_micro_batch is None:
        return actor.micro_batch_size_per_device_for_update * group
    return max(group, actor.max_tokens_per_micro_batch)


def estimate_seconds(config: Config, size: ModelSize, tokens: StepTokens, baseline: BaselineRun) -> dict[str, float]:
    """Seconds of each phase of a step on GPUs like the baseline's."""
    model, world = config.worker.actor.model, config.trainer.nnodes * config.trainer.n_gpus_per_node
    flops = size.family.flops()
    trained = flops.with_backward(model.lora_rank > 0, not model.freeze_vision_tower and model.lora_rank == 0)
    measured = load_family(published_config(baseline.model)).flops()
    measured_trained = measured.with_backward(baseline.lora_rank > 0, baseline.lora_rank == 0)
    images = ((baseline.frame_side, baseline.frame_side),) * baseline.frames
    before = [baseline.response_tokens] * baseline.rollouts
    now = [tokens.response_tokens] * tokens.rollouts
    gpus = world / baseline.gpus

    def ratio(of: Any, of_measured: Any) -> float:
        done = of.group_flops(tokens.prompt_tokens, now, tokens.images) * tokens.prompts
        return done / (of_measured.group_flops(baseline.prompt_tokens, before, images) * baseline.prompts) / gpus

    engines = world / config.worker.rollout.tensor_parallel_size
    measured_engines = baseline.gpus / baseline.tensor_parallel
    sequences = tokens.prompts * tokens.rollouts / engines
    sequences /= baseline.prompts * baseline.rollouts / measured_engines
    length = tokens.response_tokens / baseline.response_tokens
    larger = size.total / PARAMETERS[baseline.model]  # a decoding step reads every weight
    generation = larger * length * (FIXED_DECODING + (1 - FIXED_DECODING) * sequences)
    factors: Mapping[str, float] = {
        "weights to vLLM": larger,
        "generation": generation,
        "reward": tokens.prompts / baseline.prompts * len(tokens.images) / baseline.frames / gpus,
        "reference": ratio(flops, measured),
        "update": ratio(trained, measured_trained) * config.worker.actor.ppo_epochs,
    }
    seconds = {phase: taken * factors[phase] for phase, taken in baseline.seconds.items()}
    if model.lora_rank == 0 and "reference" in seconds and not config.worker.actor.use_kl_loss:
        del seconds["reference"]
    return seconds


def checkpoint_bytes(config: Config, size: ModelSize) -> dict[str, float]:
    """Bytes of one checkpoint by component."""
    options = config.worker.actor.model
    merged = options.lora_rank == 0 or options.lora_merge
    stored = DTYPE_BYTES[config.worker.actor.fsdp.torch_dtype or ("bf16" if options.lora_rank > 0 else "fp32")]
    components = {"weights": size.total * stored if merged else 0.0, "optimizer": size.trained * 8.0}
    return components | ({"adapter": size.trained * 4.0} if options.lora_rank > 0 else {})
