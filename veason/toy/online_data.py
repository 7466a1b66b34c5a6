"""Training data of toy videos rendered on the fly: no example is repeated, and nothing is stored.

A policy from random weights needs hundreds of thousands of frames before it detects shapes in unseen videos; on a fixed
set of a few thousand videos it overfits. Select it with `data.name: veason.toy.online_data:OnlineToyData`
(configs/toy/pretrain.yaml).
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
from veason.data.examples import GroundTruth, TrainingExample
from veason.frames import anchored_frames, resize_frame
from veason.masks import resize_nearest, scale_box
from veason.prompts import Message, build_messages, load_template
from veason.toy.expressions import Query, absent_queries, scene_queries
from veason.toy.facts import ObjectFacts, scene_facts
from veason.toy.noisy_teacher import noisy_query
from veason.toy.render import draw_frames, draw_masks, object_crops, scene_tensors, to_pixels
from veason.toy.scene import HEIGHT, WIDTH, random_scene
from veason.toy.teacher import rounded_box, write_reasoning
from veason.toy.toy_video import JPEG_QUALITY

LONGEST_EXPRESSION = "the shapes that are in view all the time"  # bounds the prompt length before a video is rendered


class OnlineToyData:
    """Training data in which an example is a function of its seed alone; the index only counts.

    Args:
        root: not read.
        sampled_frames: N of `veason.frames.training_frames`.
        keyframe_resize: side in pixels of the square frames.
        prompt_template: see `veason.prompts.load_template`.
        examples: examples per episode.
        still_ratio: share of examples that are a single frame of one to four static objects; the others are whole
            videos.
        frames: mean frames of a video, varied by up to a fifth.
        absent_ratio: share of videos with an expression whose target is absent.
        noise_ratio: share of reasoning expressions that the noisy teacher answers wrongly (`veason.toy.noisy_teacher`).
        coordinate_range: coordinates are asked for and answered from 0 to this; None: pixels of the frames.
    """

    depends_on_seed: ClassVar[bool] = False  # `messages_and_sizes` does not depend on the seed

    def __init__(
        self,
        root: str | PathLike[str],
        sampled_frames: int = 6,
        keyframe_resize: int = 560,
        prompt_template: str | None = None,
        examples: int = 100_000,
        still_ratio: float = 0.5,
        frames: int = 20,
        absent_ratio: float = 0.0,
        noise_ratio: float = 0.0,
        coordinate_range: int | None = None,
    ) -> None:
        self.sampled_frames, self.size, self.examples = sampled_frames, keyframe_resize, examples
        self.still_ratio, self.frames = still_ratio, frames
        self.absent_ratio, self.noise_ratio = absent_ratio, noise_ratio
        self.template, self.coordinate_range = load_template(prompt_template), coordinate_range

    def __len__(self) -> int:
        return self.examples

    def sample_id(self, index: int) -> str:
        return f"online/{index}"

    def messages_and_sizes(self, index: int, seed: int) -> tuple[list[Message], list[tuple[int, int]]]:
        """An upper bound of any example: the most frames and the longest expression."""
        shown = max(1, self.sampled_frames - 1)
        return self._messages(LONGEST_EXPRESSION, range(100, 100 + shown)), [(self.size, self.size)] * shown

    def example(self, index: int, seed: int) -> TrainingExample:
        video = sample_video(seed, self.still_ratio, self.frames, self.sampled_frames, self.absent_ratio)
        facts, query, indices, keyframe = video.facts, video.query, video.indices, video.keyframe
        answered = noisy_query(query, facts, keyframe, random.Random(~seed), self.noise_ratio)
        boxes = [self._boxes(query, facts, index) for index in indices]
        shown = [box for k in answered.targets if (box := facts[k].boxes[keyframe])]
        answer_boxes = [rounded_box(box, self.size, self.coordinate_range) for box in shown]
        text = write_reasoning(facts, answered, keyframe, self.size, self.coordinate_range)
        answer = format_answer(text, keyframe, answer_boxes)
        images = [resize_frame(_through_jpeg(frame), self.size) for frame in video.shown_frames]
        absent = scale_box(None, HEIGHT, WIDTH, self.size)
        ground_truth = GroundTruth(
            indices, [found or [absent] for found in boxes], resize_nearest(video.target_masks, self.size)
        )
        messages = self._messages(query.text, indices)
        return TrainingExample(
            self.sample_id(index), messages, images, ground_truth, answer, coordinate_range=self.coordinate_range
        )

    def _boxes(self, query: Query, facts: list[ObjectFacts], index: int) -> list[list[float]]:
        """Boxes of the visible targets in pixels of the resized frame."""
        return [scale_box(box, HEIGHT, WIDTH, self.size) for k in query.targets if (box := facts[k].boxes[index])]

    def _messages(self, expression: str, indices: range | list[int]) -> list[Message]:
        return build_messages(expression, indices, self.template, (self.size, self.size), self.coordinate_range)


@dataclass(frozen=True)
class SampledVideo:
    """A video with one expression, rendered at the shown frames only.

    Attributes:
        facts: facts about its objects over all frames.
        keyframe: one of `indices`, the indices of the shown frames.
        shown_frames: uint8 [shown, H, W, 3].
        target_masks: uint8 [shown, H, W], the visible pixels of all targets.
    """

    facts: list[ObjectFacts]
    query: Query
    keyframe: int
    indices: list[int]
    shown_frames: np.ndarray
    target_masks: np.ndarray


def sample_video(
    seed: int, still_ratio: float, frames: int, sampled_frames: int, absent_ratio: float = 0.0
) -> SampledVideo:
    """The video of a seed; masks of all frames are computed, colours of the shown frames only."""
    rng = random.Random(seed)
    still = rng.random() < still_ratio
    queries: list[Query] = []
    while not queries:
        length = 1 if still else max(4, frames + rng.randint(-frames // 5, frames // 5))
        scene = random_scene(rng, length, still)
        tensors = scene_tensors(scene)
        crops = object_crops(tensors)
        visible, amodal = draw_masks(tensors, crops)
        facts = scene_facts(scene, visible, amodal)
        queries = scene_queries(facts, rng, 2, absent=0.0)
        if queries and rng.random() < absent_ratio:
            queries = [rng.choice(list(absent_queries(facts, rng)))]
    targets = np.array(queries[0].targets, dtype=int)
    seen = np.array([[box is not None for box in fact.boxes] for fact in facts])[targets]  # [targets, T]
    union = (visible[:, targets] & seen.T[..., None, None]).any(1)
    keyframe, indices = anchored_frames(union.sum((1, 2)), sampled_frames, np.random.default_rng(rng.randrange(2**31)))
    noise = torch.Generator().manual_seed(scene.background_seed)
    shown = draw_frames(tensors, [crop.at(indices) for crop in crops], noise)
    return SampledVideo(facts, queries[0], keyframe, indices, to_pixels(shown), union[indices].astype(np.uint8))


def _through_jpeg(frame: np.ndarray) -> Image.Image:
    """The frame after JPEG compression, as if it came from a file."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=JPEG_QUALITY)
    return Image.open(file).convert("RGB")
