"""Writes a tiny Qwen2.5-VL (or Qwen3-VL) checkpoint with random weights that transformers and vLLM load unchanged.

    python -m veason.toy.tiny_policy --output policy --seed 0
    python -m veason.toy.tiny_policy --output policy --hidden_size 256 --layers 6 --vision_hidden_size 192
    python -m veason.toy.tiny_policy --output policy --model_type qwen3_vl

It differs from Qwen2.5-VL-3B (Qwen3-VL-4B) only in numbers of config.json: model classes, windowed vision blocks,
special tokens and files are the same. For training from random weights, `--rope_theta 1000 --rope_sections 2 4 26`
gives image columns the high rotary frequencies of Qwen2.5-VL (with the published sections they get the lowest ones
only), and `--initializer_range 0.06` is about 1 / sqrt(hidden_size).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLForConditionalGeneration,
)
from transformers.utils.logging import disable_progress_bar

from veason.command_line import HelpFormatter, parse_arguments
from veason.toy.corpus import toy_sentences
from veason.toy.tiny_qwen3_vl import qwen3_config, qwen3_processor
from veason.toy.tokenizer import train_tokenizer

PATCH_SIZE, MERGE_SIZE, TEMPORAL_PATCH = 14, 2, 2


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


def rope_sections(head_dim: int) -> list[int]:
    """Rotary pairs for time, height and width, split as in Qwen2.5-VL: 1/4, 3/8, 3/8 (16, 24, 24 of 64)."""
    pairs = head_dim // 2
    space = 3 * pairs // 8
    return [pairs - 2 * space, space, space]


def policy_config(size: PolicySize, tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLConfig:
    """The model's config; the embedding is padded to a multiple of 64 rows, as in the published checkpoints."""

    def token(text: str) -> int:
        return tokenizer.get_vocab()[text]

    rows = -(-(len(tokenizer) + 1) // 64) * 64
    text = {
        "vocab_size": rows,
        "hidden_size": size.hidden_size,
        "intermediate_size": size.intermediate_size,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "max_position_embeddings": 32768,
        "max_window_layers": size.layers,
        "rms_norm_eps": 1e-6,
        "initializer_range": size.initializer_range,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": size.rope_theta,
            "mrope_section": list(size.rope_sections) or rope_sections(size.head_dim),
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
        "fullatt_block_indexes": list(range(1, size.vision_depth, 2)) or [0],
        "window_size": size.window_size,
        "patch_size": PATCH_SIZE,
        "spatial_merge_size": MERGE_SIZE,
        "temporal_patch_size": TEMPORAL_PATCH,
        "tokens_per_second": 2,
        "initializer_range": size.initializer_range,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=size.tie_embeddings,
    )


def build_processor(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLProcessor:
    """Qwen2.5-VL's processor with the published patch sizes, pixel statistics and limits."""
    pixels = {
        "size": {
            "shortest_edge": 4 * (PATCH_SIZE * MERGE_SIZE) ** 2,
            "longest_edge": 16384 * (PATCH_SIZE * MERGE_SIZE) ** 2,
        },
        "patch_size": PATCH_SIZE,
        "merge_size": MERGE_SIZE,
        "temporal_patch_size": TEMPORAL_PATCH,
    }
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**pixels),
        chat_template=tokenizer.chat_template,
    )


class TinyModel(NamedTuple):
    """How a tiny checkpoint of one model type is made."""

    model_class: Any
    make_config: Callable[[PolicySize, Qwen2Tokenizer], Any]
    make_processor: Callable[[Qwen2Tokenizer], Any]


MODELS = {
    "qwen2_5_vl": TinyModel(Qwen2_5_VLForConditionalGeneration, policy_config, build_processor),
    "qwen3_vl": TinyModel(Qwen3VLForConditionalGeneration, qwen3_config, qwen3_processor),
}


def write_policy(
    output: str | Path,
    size: PolicySize | None = None,
    seed: int = 0,
    model_type: str = "qwen2_5_vl",
    tokenizer: Qwen2Tokenizer | None = None,
) -> Any:
    """Writes config, tokenizer, processor, generation config and fp32 safetensors to `output`; returns the model.

    Args:
        tokenizer: by default one that is trained on the toy world's sentences.
    """
    size = size or PolicySize()
    model_class, make_config, make_processor = MODELS[model_type]
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer or train_tokenizer(toy_sentences(seed=0), size.vocab_size)
    config = make_config(size, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
    stop = [tokenizer.get_vocab()[text] for text in ("<|im_end|>", "<|endoftext|>")]
    model.generation_config = GenerationConfig(
        bos_token_id=stop[1],
        eos_token_id=stop,
        pad_token_id=stop[1],
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
    )
    disable_progress_bar()  # of one file
    model.save_pretrained(output)
    make_processor(tokenizer).save_pretrained(output)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--output", required=True, help="checkpoint folder")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    parser.add_argument("--model_type", choices=MODELS, default="qwen2_5_vl", help="the model family")
    for field in dataclasses.fields(PolicySize):
        text = f"{field.name} of the policy, see PolicySize"
        if isinstance(field.default, bool):
            parser.add_argument(
                f"--{field.name}", default=field.default, action=argparse.BooleanOptionalAction, help=text
            )
        elif isinstance(field.default, tuple):
            parser.add_argument(f"--{field.name}", default=field.default, type=int, nargs="+", help=text)
        else:
            parser.add_argument(f"--{field.name}", default=field.default, type=type(field.default), help=text)
    options = vars(parse_arguments(parser))
    output, seed, model_type = options.pop("output"), options.pop("seed"), options.pop("model_type")
    size = PolicySize(**options | {"rope_sections": tuple(options["rope_sections"])})
    model = write_policy(output, size, seed, model_type)
    count = sum(weight.numel() for weight in model.parameters())
    print(json.dumps({"output": str(output), "parameters": count, "megabytes_fp32": round(count * 4e-6, 2)}))


if __name__ == "__main__":
    main()
