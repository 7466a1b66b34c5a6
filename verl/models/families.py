"""Model families: what training and rollouts need to know of a vision-language architecture.

A new family is a folder beside this file, named as config.json's model_type, whose `FAMILY` is a subclass of
`ModelFamily`. Packing, attention, log-probabilities, LoRA, sharding, checkpoints and rollouts then work as they are.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.core_model_loading import revert_weight_conversion

import verl.models
from verl.models.flops import ModelFlops
from verl.models.mrope import mrope_positions


def known_families() -> list[str]:
    """The model types that have a folder in this package."""
    return sorted(module.name for module in pkgutil.iter_modules(verl.models.__path__) if module.ispkg)


def load_family(model: Any, **overrides: Any) -> ModelFamily:
    """The family of a checkpoint folder, or of a config.

    Args:
        model: folder, or transformers' config.
        overrides: entries that replace those of the folder's config.json.

    Raises:
        FileNotFoundError: no config.json in the folder. ValueError: an unknown model_type.
    """
    if isinstance(model, str | Path):
        if not (Path(model) / "config.json").is_file():
            raise FileNotFoundError(f"no checkpoint at {model}: it has no config.json")
        model = AutoConfig.from_pretrained(model, **overrides)
    if model.model_type not in known_families():
        raise ValueError(f"no model family for model_type {model.model_type!r}; known: {', '.join(known_families())}")
    return importlib.import_module(f"verl.models.{model.model_type}").FAMILY(model)


class ModelFamily(ABC):
    """One architecture with the config of one checkpoint; can be pickled. The defaults are those of Qwen's layout.

    Attributes:
        config: transformers' config.
        image_token: text of the token that stands for an image in the chat template's output.
        vision_tokens: texts of the tokens that a policy must never write: an image token without an image breaks every
            later pass over the sequence.
        lora_target_pattern: regular expression over full names of the language model's linear layers.
    """

    image_token = "<|image_pad|>"
    vision_tokens = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
    lora_target_pattern = r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"

    def __init__(self, config: Any) -> None:
        self.config = config

    # -- loading and saving

    def from_config(self, dtype: torch.dtype) -> Any:
        """transformers' model with random weights."""
        return AutoModelForImageTextToText.from_config(self.config, dtype=dtype)

    def from_pretrained(self, path: str | Path, dtype: torch.dtype | None) -> Any:
        """transformers' model with the weights of a checkpoint folder, safetensors alone; dtype None is that of the
        files. Raises ValueError where some are missing.
        """
        options = {"config": self.config, "dtype": dtype or "auto", "use_safetensors": True}
        model, report = AutoModelForImageTextToText.from_pretrained(path, **options, output_loading_info=True)
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"{path} lacks {len(missing)} weights, among them {missing[0]}")
        return model

    def checkpoint_names(self) -> dict[str, str]:
        """The model's parameters by name -> their names in a checkpoint that `from_pretrained` of transformers and vLLM
        read.
        """
        with torch.device("meta"):
            plain = self.from_config(torch.float32)
        parameters = dict(plain.named_parameters())
        name_of = {id(parameter): name for name, parameter in parameters.items()}
        return {name_of[id(weight)]: key for key, weight in revert_weight_conversion(plain, parameters).items()}

    def save_config(self, folder: Path, dtype: torch.dtype, generation_config: Any) -> None:
        """Writes the configs of a checkpoint with weights of this dtype."""
        with torch.device("meta"):  # a plain model: FSDP2 renames the class of a sharded one
            plain = self.from_config(dtype)
        plain.config.architectures = [type(plain).__name__]
        plain.config.save_pretrained(folder)
        generation_config.save_pretrained(folder)

    # -- parts of the model

    def vision_tower(self, model: Any) -> Any:
        """The vision tower, with its `blocks`."""
        return model.model.visual

    def language_model(self, model: Any) -> Any:
        """The language model, with `embed_tokens`, `rotary_emb`, `layers` and `norm`."""
        return model.model.language_model

    @abstractmethod
    def replace_modules(self, model: Any) -> None:
        """Puts this package's attention, norms and MLPs in the place of transformers', with the same parameters under
        the same names. Raises ValueError for a config that they do not compute.
        """

    def lora_targets(self, names: Sequence[str], freeze_vision: bool) -> str:
        """The regular expression for `worker.actor.model.lora_target_modules`: "all-linear" (of the language model), or
        names of linear layers, of the vision tower too unless it is frozen.
        """
        if list(names) == ["all-linear"]:
            return self.lora_target_pattern
        within = r"model\.language_model\..*" if freeze_vision else ".*"
        return rf"{within}\.({'|'.join(names)})"

    # -- inputs

    @property
    def pixel_multiple(self) -> int:
        """What a side of an image must be a multiple of: a visual token's side, in pixels."""
        vision = self.config.vision_config
        return vision.patch_size * vision.spatial_merge_size

    def pixel_bounds(self, min_pixels: int | None, max_pixels: int | None) -> dict[str, int]:
        """Options of the image processor (transformers' and vLLM's) that bound its resizing; None: the checkpoint's."""
        bounds = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        return {name: value for name, value in bounds.items() if value is not None}

    def positions(self, ids: Tensor, image_grid_thw: Tensor | None) -> tuple[Tensor, int]:
        """Rotary positions of a prompt, int64 [3, P], and the position that follows it; see `mrope_positions`."""
        if bool((ids == self.config.video_token_id).any()):
            raise ValueError("the prompt holds video tokens; frames are given as images here")
        merge = self.config.vision_config.spatial_merge_size
        return mrope_positions(ids, image_grid_thw, self.config.image_token_id, merge)

    def dummy_image(self) -> tuple[Tensor, tuple[int, int, int]]:
        """Patches and grid of the smallest image, for a batch that has none."""
        vision = self.config.vision_config
        side, patch = vision.spatial_merge_size, vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        return torch.zeros(side * side, patch), (1, side, side)

    @abstractmethod
    def make_vision_metadata(self, grids: Sequence[tuple[int, int, int]]) -> Any:
        """How the tower attends over images of these grids: a pytree of tensors on the CPU, for `encode_images`."""

    @abstractmethod
    def encode_images(self, model: Any, pixel_values: Tensor, metadata: Any) -> tuple[Tensor, list[Tensor]]:
        """The visual tokens of all images, [tokens, hidden_size], and what is added to them after the first language
        layers, one [tokens, hidden_size] per layer (deepstack, arXiv 2406.04334; none for most families).
        """

    @abstractmethod
    def flops(self) -> ModelFlops:
        """FLOPs of a forward pass."""

    # -- rollouts

    def after_wake_up(self, model: Any) -> None:  # noqa: B027
        """Restores what vLLM's model loses in its deepest sleep beside its weights; nothing by default."""
