"""A tiny random Qwen3-VL, for the groups of `tiny_qwen.random_group`."""

from __future__ import annotations

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from tests.verl.models.tiny_qwen import END, IMAGE, START, VIDEO

LORA_VISION = r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.linear_fc[12])"


def tiny_config(tied: bool = True) -> Qwen3VLConfig:
    """Three language layers whose heads are wider than hidden_size / heads, as in the 4B model; three vision blocks
    with two deepstack levels, and a learned grid of 6 x 6 positions that no image of the tests fits exactly.
    """
    text = {
        "vocab_size": 256,
        "hidden_size": 128,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5000000.0,
            "mrope_section": [12, 10, 10],
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": tied,
    }
    vision = {
        "depth": 3,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_heads": 2,
        "patch_size": 4,
        "out_hidden_size": 128,
        "num_position_embeddings": 36,
        "deepstack_visual_indexes": [0, 1],
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        tie_word_embeddings=tied,
    )


def tiny_model(seed: int = 0, tied: bool = True) -> Qwen3VLForConditionalGeneration:
    """Weights large enough that attention, positions, norms, images and deepstack all matter to the output."""
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration._from_config(tiny_config(tied), attn_implementation="sdpa").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif parameter.ndim > 1:
                small = "embed_tokens" in name or "lm_head" in name
                deviation = 0.06 if small else 0.5 if "pos_embed" in name else 1.5 * parameter[0].numel() ** -0.5
                parameter.normal_(std=deviation)
            elif name.endswith("bias"):
                parameter.normal_(std=0.2)
    return model
