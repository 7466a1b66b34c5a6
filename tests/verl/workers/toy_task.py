"""A task small enough for tests of the backend: noisy pictures, a question about them, a score for any text."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

SIZES = ((56, 84), (84, 56), (56, 56), (112, 84))


@dataclass
class ToyExample:
    sample_id: str
    messages: list[dict[str, Any]]
    images: list[Image.Image]
    ground_truth: Any
    response: str | None = None


@dataclass
class ToyScore:
    total: float
    parts: dict[str, float]
    failure: str | None = None


@dataclass
class ToyData:
    """`count` prompts of one to three pictures of several sizes."""

    count: int = 32
    with_response: bool = False
    skipped_samples: dict[str, str] = field(default_factory=dict)

    def __len__(self):
        return self.count

    def sample_id(self, index):
        return f"toy/{index}"

    def messages_and_sizes(self, index, seed):
        del seed
        sizes = [SIZES[(index + number) % len(SIZES)] for number in range(1 + index % 3)]
        content = [
            part
            for number in range(len(sizes))
            for part in ({"type": "text", "text": f"<{number}>"}, {"type": "image"})
        ]
        question = {"type": "text", "text": f"Which of the {index} moving shapes leaves first? " * (1 + index % 2)}
        system = {"role": "system", "content": [{"type": "text", "text": "You are a helpful assistant."}]}
        return [system, {"role": "user", "content": [*content, question]}], sizes

    def example(self, index, seed):
        messages, sizes = self.messages_and_sizes(index, seed)
        rng = np.random.default_rng((index, seed))
        images = [Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)) for height, width in sizes]
        response = f"<think>picture {index}</think><answer>{index % 4}</answer>" if self.with_response else None
        return ToyExample(self.sample_id(index), messages, images, ground_truth=index, response=response)


@dataclass
class ToyScorer:
    """The share of vowels; `nan_at` names prompts that cannot be scored, `fail_at` one that raises."""

    nan_at: tuple[int, ...] = ()
    fail_at: int | None = None
    seen: list[int] = field(default_factory=list)

    def score(self, example, responses):
        self.seen.append(example.ground_truth)
        if example.ground_truth == self.fail_at:
            raise OSError("the tracker's file is gone")
        shares = [sum(letter in "aeiou" for letter in text) / (len(text) or 1) for text in responses]
        nan = float("nan")
        return [ToyScore(nan if example.ground_truth in self.nan_at else share, {"vowels": share}) for share in shares]


def make_scorer(device, **options):
    del device
    return ToyScorer(**options)


def by_value():
    """Lets Ray workers unpickle this module's classes: they cannot import a test module."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
