"""Qwen3-VL, the dense models (arXiv 2511.21631)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from verl.models.attention import replace_language_layers
from verl.models.families import ModelFamily
from verl.models.flops import ModelFlops
from verl.models.qwen3_vl.vision_tower import VisionMetadata, encode_images, make_vision_metadata
from verl.models.vision_attention import VisionAttention


class Qwen3VL(ModelFamily):
    """A vision tower without windows, whose inner layers are added to the first language layers (deepstack); queries
    and keys of the language model are normalized per head.
    """

    def replace_modules(self, model: Any) -> None:
        visual, language = self.vision_tower(model), self.language_model(model)
        tower, text = visual.config, language.config
        if text.hidden_act != "silu":
            raise ValueError(f"Qwen3-VL's language layers are gated by silu; the config names {text.hidden_act}")
        indexes = list(tower.deepstack_visual_indexes)
        if indexes != sorted(set(indexes)) or not all(0 <= index < tower.depth for index in indexes):
            raise ValueError(f"deepstack_visual_indexes={indexes} are no ascending numbers of {tower.depth} blocks")
        if len(indexes) > text.num_hidden_layers:
            raise ValueError(f"{len(indexes)} deepstack levels, but {text.num_hidden_layers} language layers")
        if math.isqrt(tower.num_position_embeddings) ** 2 != tower.num_position_embeddings:
            raise ValueError(f"num_position_embeddings={tower.num_position_embeddings} is no square grid")
        for block in visual.blocks:
            block.attn = VisionAttention(block.attn)
        replace_language_layers(language)

    def make_vision_metadata(self, grids: Sequence[tuple[int, int, int]]) -> VisionMetadata:
        return make_vision_metadata(grids, self.config.vision_config)

    def encode_images(self, model: Any, pixel_values: Tensor, metadata: VisionMetadata) -> tuple[Tensor, list[Tensor]]:
        return encode_images(self.vision_tower(model), pixel_values, metadata)

    def flops(self) -> ModelFlops:
        text, tower = self.config.text_config, self.config.vision_config
        width, layers = text.hidden_size, text.num_hidden_layers
        heads, kv_width = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
        weights = 2 * width * heads + 2 * width * kv_width + 3 * width * text.intermediate_size
        side, merged = tower.hidden_size, tower.spatial_merge_size**2
        block = 4 * side * side + 2 * side * tower.intermediate_size
        merger = (side * merged) ** 2 + side * merged * tower.out_hidden_size
        mergers = 1 + len(tower.deepstack_visual_indexes)
        return ModelFlops(
            per_token=2.0 * layers * weights,
            per_attention_pair=4.0 * layers * heads,
            per_label=2.0 * width * text.vocab_size,
            per_patch=2.0 * (tower.depth * block + mergers * merger / merged),
            per_patch_attention_pair=4.0 * tower.depth * side,
            patch_size=tower.patch_size,
        )

    def after_wake_up(self, model: Any) -> None:
        """Zeroes vLLM's deepstack buffers: they are plain tensors in the pool that the deepest sleep throws away, and a
        prompt without images adds them as they are.
        """
        for buffer in getattr(model, "deepstack_input_embeds", None) or ():
            buffer.zero_()
        model.deepstack_input_embeds_num_tokens = 0


FAMILY = Qwen3VL
