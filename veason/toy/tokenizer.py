"""A byte-level BPE tokenizer of about 1,500 tokens with Qwen2.5-VL's special tokens, trained on toy sentences.

Like Qwen's tokenizer it splits numbers into digits, encodes any byte, and has no special token for `<think>` and
`<answer>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# The pre-tokenization of Qwen2's tokenizer: single digits, words with their leading space, punctuation, white space.
_SPLIT_PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# Renders the same text as Qwen2.5-VL's template: a default system turn, `<|vision_start|><|image_pad|><|vision_end|>`
# for an image, numbered images on request (`add_vision_id`), and the header of the assistant's turn
# (`add_generation_prompt`).
CHAT_TEMPLATE = """
{%- set seen = namespace(images=0, videos=0) -%}
{%- macro vision(label, number, pad) -%}
{%- if add_vision_id %}{{ label }} {{ number }}: {% endif -%}
<|vision_start|>{{ pad }}<|vision_end|>
{%- endmacro -%}
{%- if messages and messages[0]['role'] != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' or 'image' in part or 'image_url' in part -%}
{%- set seen.images = seen.images + 1 -%}
{{- vision('Picture', seen.images, '<|image_pad|>') -}}
{%- elif part['type'] == 'video' or 'video' in part -%}
{%- set seen.videos = seen.videos + 1 -%}
{{- vision('Video', seen.videos, '<|video_pad|>') -}}
{%- elif 'text' in part -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
""".strip()


def train_tokenizer(sentences: Iterable[str], vocab_size: int) -> Qwen2Tokenizer:
    """Trains the tokenizer; `vocab_size` counts the 256 bytes and the merges, without the special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        min_frequency=2,
    )
    bpe.train_from_iterator(sentences, trainer)
    learned = json.loads(bpe.to_str())["model"]  # merges as pairs
    specials = {token: len(learned["vocab"]) + i for i, token in enumerate(SPECIAL_TOKENS)}
    tokenizer = Qwen2Tokenizer(
        vocab={**learned["vocab"], **specials},
        merges=[tuple(pair) for pair in learned["merges"]],  # type: ignore[misc]  # pairs are what the BPE takes
        unk_token=None,  # type: ignore[arg-type]  # every byte has a token
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=131072,
    )
    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS], special_tokens=True
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
