"""The policy: Qwen2.5-VL behind one call that takes a packed row and gives the log-probabilities of its responses.

Everything happens inside `Policy.forward`, so FSDP2 sees one root and its blocks:

    for block in policy.blocks():
        fully_shard(block, mp_policy=mixed)
    fully_shard(policy, mp_policy=mixed)

with `mixed = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)`.
Activations follow the weights' dtype by themselves, and what stays fp32 on its way into a block (the tower's rotary
angles) must not be cast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLConfig

from verl.models.attention import TextAttention, row_mask
from verl.models.fused import GatedMLP, allow_entries, torch_norm
from verl.models.log_probs import TokenScores, token_log_probs
from verl.models.lora import LoraOptions, add_lora
from verl.models.packing import PackedBatch
from verl.models.qwen2_5_vl.vision import VisionAttention, encode_images


class Policy(nn.Module):
    """Scores the responses of packed groups.

    Attributes:
        model: transformers' `Qwen2_5_VLForConditionalGeneration`; its parameters keep their names, with LoRA those that
            peft gives them.
        config: the model's `Qwen2_5_VLConfig`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        layer_types = set(model.config.text_config.layer_types)
        if layer_types != {"full_attention"}:
            raise ValueError(f"packed rows need full attention in every layer, the config has {sorted(layer_types)}")
        self._exchange_parts(model.model.visual, model.model.language_model)
        self.model = model
        self.config = model.config
        self.lora: LoraOptions | None = None

    @staticmethod
    def _exchange_parts(visual: Any, language: Any) -> None:
        """Puts this package's attention, norms and gated products in the place of transformers', with the same
        parameters and names.
        """
        if visual.config.hidden_act != "silu" or language.config.hidden_act != "silu":
            raise ValueError("Qwen2.5-VL's blocks are gated by silu; the config names another activation")
        for block in visual.blocks:
            block.attn, block.mlp = VisionAttention(block.attn), GatedMLP(block.mlp)
            block.norm1, block.norm2 = torch_norm(block.norm1), torch_norm(block.norm2)
        visual.merger.ln_q = torch_norm(visual.merger.ln_q)
        for layer in language.layers:
            layer.self_attn, layer.mlp = TextAttention(layer.self_attn), GatedMLP(layer.mlp)
            layer.input_layernorm = torch_norm(layer.input_layernorm)
            layer.post_attention_layernorm = torch_norm(layer.post_attention_layernorm)
        language.norm = torch_norm(language.norm)

    def forward(
        self, batch: PackedBatch, temperature: float = 1.0, entropy: bool = False, certainty: bool = False
    ) -> TokenScores:
        """Log-probabilities of the row's response tokens, in the order of `PackedBatch.labels`.

        Args:
            batch: on the model's device.
            temperature: logits are divided by it, as in sampling.
            entropy, certainty: also these of each token's distribution.
        """
        hidden = self._hidden_states(batch)[batch.predictors]
        return token_log_probs(hidden, self.model.lm_head.weight, batch.labels, temperature, entropy, certainty)

    def _hidden_states(self, batch: PackedBatch) -> Tensor:
        """The language model's last hidden states [L, hidden_size]."""
        base = self.model.model
        embeddings = base.language_model.embed_tokens(batch.input_ids[0])
        images = self._image_features(batch).to(embeddings.dtype)
        if len(batch.image_positions):
            embeddings = embeddings.index_copy(0, batch.image_positions, images)
        else:  # only the blank image: it adds nothing but its place in the graph
            embeddings = embeddings + 0 * images.sum()
        output = base.language_model(
            inputs_embeds=embeddings[None],
            position_ids=batch.position_ids,
            attention_mask={"full_attention": row_mask(batch)},
            use_cache=False,
        )
        return output.last_hidden_state[0]

    def _image_features(self, batch: PackedBatch) -> Tensor:
        visual = self.model.model.visual
        trained = any(parameter.requires_grad for parameter in visual.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
            return encode_images(visual, batch.pixel_values, batch.vision)

    def blocks(self) -> list[nn.Module]:
        """The units of sharding, in the order of the forward pass: the tower's blocks, then the language model's
        layers.
        """
        return [*self.model.model.visual.blocks, *self.model.model.language_model.layers]

    def freeze_vision(self) -> None:
        """Takes the vision tower out of training; its pass then keeps no activations."""
        self.model.model.visual.requires_grad_(False)

    def checkpoint_activations(self) -> None:
        """Keeps only each block's input for the backward pass. In effect in train mode."""
        self.model.gradient_checkpointing_enable({"use_reentrant": False})

    def compile_layers(self, backend: str = "inductor") -> None:
        """Makes each language layer one compiled function, hooks of sharding left outside. One compilation serves all
        layers; the first length of a row that is met takes one, the second one that all others share. For CUDA:
        elsewhere attention differs with every row.
        """
        allow_entries()
        for layer in self.model.model.language_model.layers:
            layer.forward = torch.compile(layer.forward, backend=backend, fullgraph=True)

    @classmethod
    def from_config(
        cls, config: Qwen2_5_VLConfig, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Policy:
        """A policy with random weights, made on the device; on `meta` it has shapes only."""
        with torch.device(device):
            return cls(Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=dtype))


def load_policy(
    path: str | Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    lora: LoraOptions | None = None,
    gradient_checkpointing: bool = True,
    freeze_vision: bool = False,
    overrides: dict[str, Any] | None = None,
) -> Policy:
    """A policy from a Hugging Face checkpoint folder, in train mode.

    Args:
        path: folder with config.json and safetensors.
        dtype: of the weights held (the master weights); the compute dtype is the sharding's business.
        lora: freeze the base and train an adapter of this shape.
        overrides: entries that replace those of the checkpoint's config.json.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: another architecture, or weights missing from the checkpoint.
    """
    if not (Path(path) / "config.json").is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: it has no config.json")
    config: Any = AutoConfig.from_pretrained(path, **(overrides or {}))
    if config.model_type != "qwen2_5_vl":
        raise ValueError(f"{path} holds a {config.model_type} model; the engine trains qwen2_5_vl")
    with torch.device(device):
        loaded: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            path, config=config, dtype=dtype, output_loading_info=True
        )
    model, report = loaded
    if report["missing_keys"]:
        raise ValueError(
            f"{path} lacks {len(report['missing_keys'])} weights, among them {sorted(report['missing_keys'])[0]}"
        )
    policy = Policy(model)
    if freeze_vision:
        policy.freeze_vision()
    if lora is not None:
        add_lora(policy.model, lora)
        policy.lora = lora
    if gradient_checkpointing:
        policy.checkpoint_activations()
    return policy.train()
