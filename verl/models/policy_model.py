"""The policy: a vision-language model behind one call that takes a packed batch and gives the log-probabilities of its
responses.

Everything happens inside `PolicyModel.forward`, so FSDP2 sees one root and its blocks:

    for block in policy.blocks():
        fully_shard(block, mp_policy=mixed)
    fully_shard(policy, mp_policy=mixed)

with `mixed = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)`.
Activations follow the weights' dtype by themselves, and what stays fp32 on its way into a block (the tower's rotary
embeddings) must not be cast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from verl.models.attention import packed_mask
from verl.models.families import load_family
from verl.models.fused_kernels import configure_dynamo
from verl.models.log_probs import TokenLogProbs, token_log_probs
from verl.models.lora import LoraOptions, add_lora
from verl.models.packing import PackedBatch


class PolicyModel(nn.Module):
    """Scores the responses of packed groups.

    Attributes:
        model: transformers' model; its parameters keep their names, with LoRA those that peft gives them.
        family, config: of the model.
        attn_implementation: of the language model, see `packed_mask`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.family = load_family(model.config)
        self.family.replace_modules(model)
        self.model = model
        self.config = model.config
        self.lora: LoraOptions | None = None
        self.attn_implementation = "auto"

    def forward(
        self, batch: PackedBatch, temperature: float = 1.0, entropy: bool = False, self_certainty: bool = False
    ) -> TokenLogProbs:
        """Log-probabilities of the response tokens, in the order of `PackedBatch.labels`.

        Args:
            batch: on the model's device.
            temperature: logits are divided by it, as in sampling.
            entropy, self_certainty: also these of each token's distribution.
        """
        hidden = self._hidden_states(batch)[batch.logit_positions]
        return token_log_probs(hidden, self.model.lm_head.weight, batch.labels, temperature, entropy, self_certainty)

    def _hidden_states(self, batch: PackedBatch) -> Tensor:
        """The language model's last hidden states [L, hidden_size]."""
        language, positions = self.family.language_model(self.model), batch.image_positions
        hidden = language.embed_tokens(batch.input_ids[0])
        images, deepstack_features = self._encode_images(batch)
        if len(positions):
            hidden = hidden.index_copy(0, positions, images.to(hidden.dtype))
        else:  # the dummy image adds nothing but its place in the graph
            hidden = hidden + 0 * sum(tokens.to(hidden.dtype).sum() for tokens in (images, *deepstack_features))
        mask = packed_mask(batch, hidden.dtype, self.attn_implementation)
        hidden = hidden[None]
        rotary = language.rotary_emb(hidden, batch.position_ids)
        for number, layer in enumerate(language.layers):
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
            if number < len(deepstack_features) and len(positions):
                hidden = hidden.index_add(1, positions, deepstack_features[number][None].to(hidden.dtype))
        return language.norm(hidden)[0]

    def _encode_images(self, batch: PackedBatch) -> tuple[Tensor, list[Tensor]]:
        tower = self.family.vision_tower(self.model)
        trained = any(parameter.requires_grad for parameter in tower.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
            return self.family.encode_images(self.model, batch.pixel_values, batch.vision_metadata)

    def blocks(self) -> list[nn.Module]:
        """The units of sharding, in the order of the forward pass: the tower's blocks, then the language layers."""
        return [*self.family.vision_tower(self.model).blocks, *self.family.language_model(self.model).layers]

    def freeze_vision(self) -> None:
        """Takes the vision tower out of training; its pass then keeps no activations."""
        self.family.vision_tower(self.model).requires_grad_(False)

    def enable_gradient_checkpointing(self, language: float = 1.0, vision: float = 1.0) -> None:
        """Keeps only a block's input for the backward pass, in train mode.

        Args:
            language, vision: shares of the language layers and of the tower's blocks, the first ones, that do so; the
                others keep their activations.
        """
        self.model.gradient_checkpointing_enable({"use_reentrant": False})
        parts = (
            (self.family.language_model(self.model).layers, language),
            (self.family.vision_tower(self.model).blocks, vision),
        )
        for blocks, share in parts:
            for number, block in enumerate(blocks):
                block.gradient_checkpointing = number < round(share * len(blocks))

    def compile_layers(self, backend: str = "inductor") -> None:
        """Makes each layer and each block of the tower one compiled function, hooks of sharding left outside. One
        compilation serves all layers; the first length that is met takes one, the second one that all others share.
        The tower's blocks are compiled for all lengths at once: blocks of windows and of whole images have different
        ones, and a block that is recomputed must not find another compilation than it had. For CUDA: elsewhere
        attention differs with every batch.
        """
        configure_dynamo()
        tower = set(self.family.vision_tower(self.model).blocks)
        for block in self.blocks():
            dynamic = True if block in tower else None
            block.forward = torch.compile(block.forward, backend=backend, fullgraph=True, dynamic=dynamic)

    @classmethod
    def from_config(
        cls, config: Any, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> PolicyModel:
        """A policy with random weights, made on the device; on `meta` it has shapes only."""
        with torch.device(device):
            return cls(load_family(config).from_config(dtype))


def load_policy(
    path: str | Path,
    dtype: torch.dtype | None = torch.float32,
    lora: LoraOptions | None = None,
    gradient_checkpointing: tuple[float, float] | None = (1.0, 1.0),
    freeze_vision: bool = False,
    overrides: dict[str, Any] | None = None,
    attn_implementation: str = "auto",
) -> PolicyModel:
    """A policy from a Hugging Face checkpoint folder, in train mode.

    Args:
        path: folder with config.json and safetensors.
        dtype: of the weights held (the master weights); the compute dtype is the sharding's business. None: that of the
            files, which are then mapped into memory and not read before a weight is used.
        lora: freeze the base and train an adapter of this shape.
        gradient_checkpointing: shares of the language layers and of the vision tower's blocks that recompute their
            activations; None: no block does.
        overrides: entries that replace those of the checkpoint's config.json.
        attn_implementation: see `packed_mask`.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: another architecture, or weights missing from the checkpoint.
    """
    policy = PolicyModel(load_family(path, **(overrides or {})).from_pretrained(path, dtype))
    if freeze_vision:
        policy.freeze_vision()
    if lora is not None:
        add_lora(policy.model, lora)
        policy.lora = lora
    if gradient_checkpointing is not None:
        policy.enable_gradient_checkpointing(*gradient_checkpointing)
    policy.attn_implementation = attn_implementation
    return policy.train()
