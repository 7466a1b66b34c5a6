"""Sizes, configs and processors of a tiny Qwen2.5-VL and a tiny Qwen3-VL, for `veason.toy.tiny_policy`.

They differ from Qwen2.5-VL-3B and Qwen3-VL-4B only in numbers. In Qwen3-VL heads are wider than hidden_size / heads,
deepstack adds inner layers of the tower to the first language layers, and mRoPE is interleaved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLProcessor,
)
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

MERGE_SIZE, TEMPORAL_PATCH = 2, 2
QWEN2_5_PATCH, QWEN3_PATCH = 14, 16  # pixels
POSITIONS = 16  # side of Qwen3-VL's learned grid; 48 in the published checkpoints
MAX_LEVELS = 3  # of deepstack, as published


@dataclass(frozen=True)
class PolicySize:
    """The sizes of a tiny policy; vLLM requires at least 32 channels per head (`hidden_size / heads`)."""

    hidden_size: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    intermediate_size: int = 256
    vision_hidden_size: int = 64
    vision_depth: int = 2  # every second block attends to the whole image, the others to windows
    vision_heads: int = 2
    vision_intermediate_size: int = 128
    window_size: int = 112  # pixels
    vocab_size: int = 1500  # bytes and merges, without the special tokens
    tie_embeddings: bool = True
    initializer_range: float = 0.02  # standard deviation of the random weights
    rope_theta: float = 1000000.0
    # Rotary pairs for time, height and width, the highest frequencies first; empty: split as in Qwen2.5-VL.
    rope_sections: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for width, heads, name in (
            (self.hidden_size, self.heads, "hidden_size"),
            (self.vision_hidden_size, self.vision_heads, "vision_hidden_size"),
        ):
            if width % heads or (width // heads) % 4:
                raise ValueError(f"{name}={width} does not split into {heads} heads of a multiple of 4 channels")
        if self.head_dim < 32:
            raise ValueError(
                f"hidden_size={self.hidden_size} / heads={self.heads} is below 32 channels a head, which vLLM refuses"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
        if self.rope_sections and (len(self.rope_sections) != 3 or sum(self.rope_sections) != self.head_dim // 2):
            raise ValueError(
                f"rope_sections={self.rope_sections} are not three numbers that add up to {self.head_dim // 2}"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.heads


def rope_sections(head_dim: int, sixteenths: int) -> list[int]:
    """Rotary pairs for time, height and width; `sixteenths` of all for each of the latter two, 6 in Qwen2.5-VL (16, 24,
    24 of 64 pairs) and 5 in Qwen3-VL (24, 20, 20).
    """
    pairs = head_dim // 2
    space = sixteenths * pairs // 16
    return [pairs - 2 * space, space, space]


def qwen2_5_config(size: PolicySize, tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLConfig:
    """The config of a tiny Qwen2.5-VL."""
    text = {
        "max_window_layers": size.layers,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": size.rope_theta,
            "mrope_section": list(size.rope_sections) or rope_sections(size.head_dim, 6),
        },
    }
    vision = {
        "fullatt_block_indexes": list(range(1, size.vision_depth, 2)) or [0],
        "window_size": size.window_size,
        "patch_size": QWEN2_5_PATCH,
        "tokens_per_second": 2,
    }
    return Qwen2_5_VLConfig(**_config_arguments(size, tokenizer, text, vision))


def qwen3_config(size: PolicySize, tokenizer: Qwen2Tokenizer) -> Qwen3VLConfig:
    """The config of a tiny Qwen3-VL.

    Raises:
        ValueError: `rope_sections` are given; interleaved, time, height and width all get high and low frequencies.
    """
    if size.rope_sections:
        raise ValueError(f"rope_sections={size.rope_sections}: Qwen3-VL interleaves its rotary pairs, leave it out")
    head_dim = 2 * size.head_dim
    text = {
        "head_dim": head_dim,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": size.rope_theta,
            "mrope_section": rope_sections(head_dim, 5),
            "mrope_interleaved": True,
        },
    }
    vision = {
        "patch_size": QWEN3_PATCH,
        "num_position_embeddings": POSITIONS**2,
        "deepstack_visual_indexes": list(range(min(size.vision_depth - 1, size.layers, MAX_LEVELS))),
    }
    return Qwen3VLConfig(**_config_arguments(size, tokenizer, text, vision))


def _config_arguments(
    size: PolicySize, tokenizer: Qwen2Tokenizer, text: dict[str, Any], vision: dict[str, Any]
) -> dict[str, Any]:
    """A config's arguments: a family's own, and those that both families share.

    The embedding is padded to a multiple of 64 rows, as in the published checkpoints.
    """
    tokens = tokenizer.get_vocab()
    text |= {
        "vocab_size": -(-(len(tokenizer) + 1) // 64) * 64,
        "hidden_size": size.hidden_size,
        "intermediate_size": size.intermediate_size,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "initializer_range": size.initializer_range,
        "bos_token_id": tokens["<|endoftext|>"],
        "eos_token_id": tokens["<|im_end|>"],
        "tie_word_embeddings": size.tie_embeddings,
    }
    vision |= {
        "depth": size.vision_depth,
        "hidden_size": size.vision_hidden_size,
        "intermediate_size": size.vision_intermediate_size,
        "num_heads": size.vision_heads,
        "out_hidden_size": size.hidden_size,
        "spatial_merge_size": MERGE_SIZE,
        "temporal_patch_size": TEMPORAL_PATCH,
        "initializer_range": size.initializer_range,
    }
    return {
        "text_config": text,
        "vision_config": vision,
        "image_token_id": tokens["<|image_pad|>"],
        "video_token_id": tokens["<|video_pad|>"],
        "vision_start_token_id": tokens["<|vision_start|>"],
        "vision_end_token_id": tokens["<|vision_end|>"],
        "tie_word_embeddings": size.tie_embeddings,
    }


def qwen2_5_processor(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLProcessor:
    """Qwen2.5-VL's processor with the published patch sizes, pixel statistics and limits."""
    pixels = _pixel_arguments(QWEN2_5_PATCH)
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**pixels),
        chat_template=tokenizer.chat_template,
    )


def qwen3_processor(tokenizer: Qwen2Tokenizer) -> Qwen3VLProcessor:
    """Qwen3-VL's processor with the published patch sizes and pixel statistics; its lower limit is one that leaves toy
    frames as they are.
    """
    pixels = {**_pixel_arguments(QWEN3_PATCH), "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**pixels),
        chat_template=tokenizer.chat_template,
    )


def _pixel_arguments(patch_size: int) -> dict[str, Any]:
    """Arguments of an image processor: the patch sizes, and limits of 4 and 16,384 tokens an image."""
    token_pixels = (patch_size * MERGE_SIZE) ** 2
    return {
        "size": {"shortest_edge": 4 * token_pixels, "longest_edge": 16384 * token_pixels},
        "patch_size": patch_size,
        "merge_size": MERGE_SIZE,
        "temporal_patch_size": TEMPORAL_PATCH,
    }
