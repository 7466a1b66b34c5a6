"""Toy videos that are drawn while they are learned from: none is ever seen twice, and no file holds them.

A policy that starts from random weights needs some hundred thousand pictures before it finds shapes in those it has not
seen; of a few thousand videos it learns the answers by heart instead. `data.name: veason.toy.drawn:DrawnToys`
(configs/toy/sft.yaml).
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from os import PathLike
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

from veason.answers import format_answer
from veason.data.examples import Example, GroundTruth
from veason.frames import anchored_frames, resize_frame
from veason.masks import resize_nearest, scale_box
from veason.prompts import Message, build_messages, load_template
from veason.toy.expressions import Query, absent_queries, scene_queries
from veason.toy.facts import ObjectFacts, scene_facts
from veason.toy.hasty import hasty
from veason.toy.render import masks, paint, scene_batch, to_pixels, windows
from veason.toy.scene import HEIGHT, WIDTH, random_scene
from veason.toy.teacher import reasoning
from veason.toy.video import JPEG_QUALITY

LONGEST = "the shapes that are in view all the time"  # question: prompts are measured with it before any video is drawn


class DrawnToys:
    """Training data without an end; an example is a function of its seed alone, the index only counts.

    Args:
        root: not read, everything is drawn.
        sampled_frames: N of `veason.frames.training_frames`.
        keyframe_resize: side in pixels of the square frames.
        prompt_template: see `veason.prompts.load_template`.
        examples: of an episode.
        stills: the share of them that are one frame of one to four shapes that never move, from which finding is
            learned first; the others are whole videos.
        frames: of a video, give or take a fifth.
        absent: the share of videos that are asked for something that they do not show.
        haste: the share of answers about what happens in time that are a hasty teacher's (`veason.toy.hasty`); 0: all
            are right.
    """

    seeded: ClassVar[bool] = False  # as far as `outline` can tell

    def __init__(
        self,
        root: str | PathLike[str],
        sampled_frames: int = 6,
        keyframe_resize: int = 560,
        prompt_template: str | None = None,
        examples: int = 100_000,
        stills: float = 0.5,
        frames: int = 20,
        absent: float = 0.0,
        haste: float = 0.0,
    ) -> None:
        self.sampled_frames, self.size, self.examples, self.haste = sampled_frames, keyframe_resize, examples, haste
        self.stills, self.frames, self.absent = stills, frames, absent
        self.template = load_template(prompt_template)

    def __len__(self) -> int:
        return self.examples

    def sample_id(self, index: int) -> str:
        return f"drawn/{index}"

    def outline(self, index: int, seed: int) -> tuple[list[Message], list[tuple[int, int]]]:
        """As many frames and as long a question as there may be."""
        shown = max(1, self.sampled_frames - 1)
        return self._ask(LONGEST, range(100, 100 + shown)), [(self.size, self.size)] * shown

    def example(self, index: int, seed: int) -> Example:
        drawn = draw(seed, self.stills, self.frames, self.sampled_frames, self.absent)
        facts, query, times, keyframe = drawn.facts, drawn.query, drawn.times, drawn.keyframe
        answered = hasty(query, facts, keyframe, random.Random(~seed), self.haste)
        boxes = [self._boxes(query, facts, time) for time in times]
        places = [[round(side) for side in box] for box in self._boxes(answered, facts, keyframe)]
        answer = format_answer(reasoning(facts, answered, keyframe, self.size), keyframe, places)
        images = [resize_frame(_through_jpeg(picture), self.size) for picture in drawn.pictures]
        absent = scale_box(None, HEIGHT, WIDTH, self.size)
        truth = GroundTruth(times, [found or [absent] for found in boxes], resize_nearest(drawn.union, self.size))
        return Example(self.sample_id(index), self._ask(query.text, times), images, truth, answer)

    def _boxes(self, query: Query, facts: list[ObjectFacts], time: int) -> list[list[float]]:
        """Of the targets in view, as the model sees them."""
        return [scale_box(box, HEIGHT, WIDTH, self.size) for k in query.targets if (box := facts[k].boxes[time])]

    def _ask(self, expression: str, times: range | list[int]) -> list[Message]:
        return build_messages(expression, times, self.template, (self.size, self.size))


@dataclass(frozen=True)
class Drawn:
    """A video with one question, as far as it is shown.

    Attributes:
        facts: of its shapes, over all frames.
        keyframe: one of `times`, the frames shown.
        pictures: uint8 [shown, H, W, 3].
        union: uint8 [shown, H, W], the visible target.
    """

    facts: list[ObjectFacts]
    query: Query
    keyframe: int
    times: list[int]
    pictures: np.ndarray
    union: np.ndarray


def draw(seed: int, stills: float, frames: int, sampled_frames: int, absent: float = 0.0) -> Drawn:
    """The video of a seed. Only the frames that are shown get colours."""
    rng = random.Random(seed)
    still = rng.random() < stills
    queries: list[Query] = []
    while not queries:
        scene = (
            random_scene(rng, 1, still=True)
            if still
            else random_scene(rng, max(4, frames + rng.randint(-frames // 5, frames // 5)))
        )
        batch, (order,) = scene_batch([scene])
        places = windows(batch)
        visible, whole = (drawn[0].numpy()[:, np.argsort(order)] for drawn in masks(places))
        facts = scene_facts(scene, visible, whole)
        queries = scene_queries(facts, rng, 2, absent=0.0)
        if queries and rng.random() < absent:
            queries = [rng.choice(list(absent_queries(facts, rng)))]
    targets = np.array(queries[0].targets, dtype=int)
    seen = np.array([[box is not None for box in fact.boxes] for fact in facts])[targets]  # [targets, T]
    union = (visible[:, targets] & seen.T[..., None, None]).any(1)
    keyframe, times = anchored_frames(union.sum((1, 2)), sampled_frames, np.random.default_rng(rng.randrange(2**31)))
    (pictures,) = paint(
        batch, [place.at(times) for place in places], generator=torch.Generator().manual_seed(scene.ground_seed)
    )
    return Drawn(facts, queries[0], keyframe, times, to_pixels(pictures), union[times].astype(np.uint8))


def _through_jpeg(picture: np.ndarray) -> Image.Image:
    """A frame as it would come from a file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=JPEG_QUALITY)
    return Image.open(file).convert("RGB")
