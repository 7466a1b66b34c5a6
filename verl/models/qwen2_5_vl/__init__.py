"""Qwen2.5-VL (arXiv 2502.13923)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from verl.models.attention import replace_language_layers
from verl.models.families import ModelFamily
from verl.models.flops import ModelFlops
from verl.models.fused_kernels import GatedMLP, fused_rms_norm
from verl.models.qwen2_5_vl.vision_tower import VisionMetadata, encode_images, make_vision_metadata
from verl.models.vision_attention import VisionAttention


class Qwen2_5VL(ModelFamily):
    """Windowed vision tower, gated by silu like the language model, which has no q and k norms."""

    def replace_modules(self, model: Any) -> None:
        visual, language = self.vision_tower(model), self.language_model(model)
        if (kinds := set(language.config.layer_types)) != {"full_attention"}:
            raise ValueError(f"packed sequences need full attention in every layer, the config has {sorted(kinds)}")
        if visual.config.hidden_act != "silu" or language.config.hidden_act != "silu":
            raise ValueError("Qwen2.5-VL's blocks are gated by silu; the config names another activation")
        for block in visual.blocks:
            block.attn, block.mlp = VisionAttention(block.attn), GatedMLP(block.mlp)
            block.norm1, block.norm2 = fused_rms_norm(block.norm1), fused_rms_norm(block.norm2)
        visual.merger.ln_q = fused_rms_norm(visual.merger.ln_q)
        replace_language_layers(language)

    def make_vision_metadata(self, grids: Sequence[tuple[int, int, int]]) -> VisionMetadata:
        return make_vision_metadata(grids, self.config.vision_config)

    def encode_images(self, model: Any, pixel_values: Tensor, metadata: VisionMetadata) -> tuple[Tensor, list[Tensor]]:
        return encode_images(self.vision_tower(model), pixel_values, metadata), []

    def flops(self) -> ModelFlops:
        text, tower = self.config.text_config, self.config.vision_config
        width, layers = text.hidden_size, text.num_hidden_layers
        kv_width = width // text.num_attention_heads * text.num_key_value_heads
        weights = 2 * width * width + 2 * width * kv_width + 3 * width * text.intermediate_size
        side = tower.hidden_size
        block = 4 * side * side + 3 * side * tower.intermediate_size
        merged = tower.spatial_merge_size**2
        merger = (side * merged) ** 2 + side * merged * tower.out_hidden_size
        window = (tower.window_size // tower.patch_size) ** 2
        return ModelFlops(
            per_token=2.0 * layers * weights,
            per_attention_pair=4.0 * layers * width,
            per_label=2.0 * width * text.vocab_size,
            per_patch=2.0 * (tower.depth * block + merger / merged) + 4.0 * tower.depth * side * window,
            patch_size=tower.patch_size,
        )


FAMILY = Qwen2_5VL
