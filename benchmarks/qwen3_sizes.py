"""The dimensions of Qwen3-VL's dense models, for the benchmarks (config.json of Qwen/Qwen3-VL-*-Instruct)."""

from __future__ import annotations

from typing import Any

from transformers import Qwen3VLConfig

SIDE = 640  # of a frame, pixels: as many visual tokens as 560 gives in Qwen2.5-VL
LANGUAGE = {  # hidden_size, intermediate_size, num_hidden_layers, num_attention_heads
    "qwen3_2b": (2048, 6144, 28, 16),
    "qwen3_4b": (2560, 9728, 36, 32),
    "qwen3_8b": (4096, 12288, 36, 32),
}
TOWER = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_visual_indexes": [5, 11, 17]}
TOWER_8B = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "deepstack_visual_indexes": [8, 16, 24]}


def qwen3_model_config(size: str) -> Qwen3VLConfig:
    """The config of one of `LANGUAGE`."""
    hidden, intermediate, layers, heads = LANGUAGE[size]
    large = size == "qwen3_8b"
    text: dict[str, Any] = {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 128000,
        "tie_word_embeddings": not large,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5000000.0,
            "mrope_section": [24, 20, 20],
            "mrope_interleaved": True,
        },
    }
    vision = (TOWER_8B if large else TOWER) | {"num_heads": 16, "out_hidden_size": hidden}
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=not large)
