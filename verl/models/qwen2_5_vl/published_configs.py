"""Dimensions of the published checkpoints, for plans and measurements without their weights.

From the config.json of Qwen/Qwen2.5-VL-3B-Instruct and Qwen/Qwen2.5-VL-7B-Instruct.
"""

from __future__ import annotations

from typing import Any

from transformers import Qwen2_5_VLConfig

SIZES = ("3b", "7b")


def published_config(size: str) -> Qwen2_5_VLConfig:
    """The config of Qwen2.5-VL-3B ("3b") or -7B ("7b")."""
    text: dict[str, Any] = {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
    }
    if size == "7b":
        text |= {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "vocab_size": 152064}
        text |= {"num_attention_heads": 28, "num_key_value_heads": 4}
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
    return make_config(text, vision | {"out_hidden_size": text["hidden_size"]}, tied=size == "3b")


def make_config(text: dict[str, Any], vision: dict[str, Any], tied: bool) -> Qwen2_5_VLConfig:
    """A config of other dimensions, whose heads have 128 of them.

    Args:
        tied: the output layer shares the weights of the embedding.
    """
    rope = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1000000.0}
    text = text | {"rms_norm_eps": 1e-6, "rope_parameters": rope, "max_position_embeddings": 128000}
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied)
