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
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    GenerationConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3VLForConditionalGeneration,
)
from transformers.utils.logging import disable_progress_bar

from veason.command_line import HelpFormatter, parse_arguments
from veason.toy.tiny_policy_config import PolicySize, qwen2_5_config, qwen2_5_processor, qwen3_config, qwen3_processor
from veason.toy.tokenizer import train_tokenizer
from veason.toy.tokenizer_corpus import toy_sentences


class TinyModelBuilder(NamedTuple):
    """How a tiny checkpoint of one model type is made."""

    model_class: Any
    make_config: Callable[[PolicySize, Qwen2Tokenizer], Any]
    make_processor: Callable[[Qwen2Tokenizer], Any]


TINY_MODELS = {
    "qwen2_5_vl": TinyModelBuilder(Qwen2_5_VLForConditionalGeneration, qwen2_5_config, qwen2_5_processor),
    "qwen3_vl": TinyModelBuilder(Qwen3VLForConditionalGeneration, qwen3_config, qwen3_processor),
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
    model_class, make_config, make_processor = TINY_MODELS[model_type]
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
    parser.add_argument("--model_type", choices=TINY_MODELS, default="qwen2_5_vl", help="the model family")
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
