"""Single frames of shapes that never move, drawn while they are learned from: no frame is ever seen twice, and no file holds it.

A policy that starts from random weights needs some hundred thousand pictures before it finds shapes in those it has not seen; a few
thousand videos it would rather learn by heart. `configs/toy_sft.yaml` mixes such frames with the records of whole videos.
"""

from __future__ import annotations

import io
import os
import random
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from PIL import Image

from veason.answers import format_answer
from veason.cot_data import CoTData
from veason.examples import Example, GroundTruth
from veason.frames import resize_frame
from veason.masks import resize_nearest, scale_box
from veason.prompts import Message, build_messages
from veason.toy.scene import HEIGHT, WIDTH, random_scene
from veason.toy.teacher import reasoning
from veason.toy.video import JPEG_QUALITY, ToyVideo
from veason.toy.world import draw_video

LONGEST = "the shapes that are in view all the time"  # question about a still: prompts are measured with it before any is drawn


class CoTWithStills(CoTData):
    """The records of a toy world, and as many drawn frames an episode as one likes: `data.name: veason.toy.stills:CoTWithStills`.

    Args:
        stills: frames an episode, `data.options.stills`; a frame and its question depend on the request's seed alone.
        further: as for `CoTData`.
    """

    seeded: ClassVar[bool] = False  # as far as `outline` can tell

    def __init__(
        self,
        root: str | os.PathLike[str],
        meta_file: str | os.PathLike[str] | None = None,
        keyframe_resize: int = 560,
        exclude: str | os.PathLike[str] | Iterable[str] | None = None,
        prompt_template: str | None = None,
        on_bad_sample: str = "raise",
        stills: int = 0,
    ) -> None:
        super().__init__(root, meta_file, keyframe_resize, exclude, prompt_template, on_bad_sample)
        self.stills = stills

    def __len__(self) -> int:
        return len(self.samples) + self.stills

    def sample_id(self, index: int) -> str:
        return super().sample_id(index) if index < len(self.samples) else f"still/{index - len(self.samples)}"

    def response(self, index: int) -> str | None:
        return super().response(index) if index < len(self.samples) else None  # known when it is drawn

    def outline(self, index: int, seed: int) -> tuple[list[Message], list[tuple[int, int]]]:
        if index < len(self.samples):
            return super().outline(index, seed)
        return self._ask(LONGEST), [(self.size, self.size)]  # what it asks is known when it is drawn

    def example(self, index: int, seed: int) -> Example:
        if index < len(self.samples):
            return super().example(index, seed)
        video = _draw(seed)
        (query,), facts = video.queries, video.facts
        places = [scale_box(facts[k].boxes[0], HEIGHT, WIDTH, self.size) for k in query.targets]
        answer = format_answer(reasoning(facts, query, 0, self.size), 0, [[round(side) for side in place] for place in places])
        truth = GroundTruth([0], [places], resize_nearest(video.union(query.targets).astype(np.uint8), self.size))
        return Example(self.sample_id(index), self._ask(query.text), [resize_frame(_through_jpeg(video), self.size)], truth, answer)

    def _ask(self, expression: str) -> list[Message]:
        return build_messages(expression, [0], self.template, (self.size, self.size))


def _draw(seed: int) -> ToyVideo:
    """One frame, and one question about a shape that can be seen in it."""
    rng = random.Random(seed)
    while True:
        video = draw_video(f"still_{seed}", random_scene(rng, frames=1, still=True), 1, rng.randrange(2**31), absent=0.0)
        if video.queries:
            return video


def _through_jpeg(video: ToyVideo) -> Image.Image:
    """The frame as it would come from a file."""
    file = io.BytesIO()
    Image.fromarray(video.frames[0]).save(file, "JPEG", quality=JPEG_QUALITY)
    return Image.open(file).convert("RGB")
