"""Config and processor of a tiny Qwen3-VL, for `veason.toy.tiny_policy`.

It differs from Qwen3-VL-4B only in numbers: heads are wider than hidden_size / heads, deepstack adds inner layers of
the tower to the first language layers, mRoPE is interleaved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen3VLConfig, Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

if TYPE_CHECKING:
    from veason.toy.tiny_policy import PolicySize

PATCH_SIZE, MERGE_SIZE, TEMPORAL_PATCH = 16, 2, 2
POSITIONS = 16  # side of the learned grid; 48 in the published checkpoints
MAX_LEVELS = 3  # of deepstack, as published


def rope_sections(head_dim: int) -> list[int]:
    """Rotary pairs for time, height and width, split as in Qwen3-VL: 24, 20, 20 of 64."""
    pairs = head_dim // 2
    space = 5 * pairs // 16
    return [pairs - 2 * space, space, space]


def qwen3_config(size: PolicySize, tokenizer: Qwen2Tokenizer) -> Qwen3VLConfig:
    """The model's config; the embedding is padded to a multiple of 64 rows, as in the published checkpoints.

    Raises:
        ValueError: `rope_sections` are given; interleaved, time, height and width all get high and low frequencies.
    """
    if size.rope_sections:
        raise ValueError(f"rope_sections={size.rope_sections}: Qwen3-VL interleaves its rotary pairs, leave it out")

    def token(text: str) -> int:
        return tokenizer.get_vocab()[text]

    head_dim = 2 * size.head_dim
    text = {
        "vocab_size": -(-(len(tokenizer) + 1) // 64) * 64,
        "hidden_size": size.hidden_size,
        "intermediate_size": size.intermediate_size,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "initializer_range": size.initializer_range,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": size.rope_theta,
            "mrope_section": rope_sections(head_dim),
            "mrope_interleaved": True,
        },
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "tie_word_embeddings": size.tie_embeddings,
    }
    vision = {
        "depth": size.vision_depth,
        "hidden_size": size.vision_hidden_size,
        "intermediate_size": size.vision_intermediate_size,
        "num_heads": size.vision_heads,
        "out_hidden_size": size.hidden_size,
        "patch_size": PATCH_SIZE,
        "spatial_merge_size": MERGE_SIZE,
        "temporal_patch_size": TEMPORAL_PATCH,
        "num_position_embeddings": POSITIONS**2,
        "deepstack_visual_indexes": list(range(min(size.vision_depth - 1, size.layers, MAX_LEVELS))),
        "initializer_range": size.initializer_range,
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=size.tie_embeddings,
    )


def qwen3_processor(tokenizer: Qwen2Tokenizer) -> Qwen3VLProcessor:
    """Qwen3-VL's processor with the published patch sizes and pixel statistics; its lower limit is one that leaves toy
    frames as they are.
    """
    side = PATCH_SIZE * MERGE_SIZE
    pixels = {
        "size": {"shortest_edge": 4 * side**2, "longest_edge": 16384 * side**2},
        "patch_size": PATCH_SIZE,
        "merge_size": MERGE_SIZE,
        "temporal_patch_size": TEMPORAL_PATCH,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**pixels),
        chat_template=tokenizer.chat_template,
    )
