"""Trackers that find what a text names by themselves: no policy, no boxes.

A tracker of your own is a subclass of `TextTracker` with one method, `track_texts`; evaluation and prediction then ask
no policy. It cannot be trained with, since a reward scores the boxes of a policy.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from veason.errors import DataError
from veason.tracking.base import BaseTracker, ReadFrame, TrackedFrame, resize_masks
from veason.tracking.tracker_prompts import Prompt, TextPrompt


class TextTracker(BaseTracker):
    """A tracker out of one method, `track_texts`."""

    takes_text: ClassVar[bool] = True

    @abstractmethod
    def track_texts(
        self, read_frame: ReadFrame, total: int, texts: Sequence[str]
    ) -> Iterable[tuple[int, Sequence[np.ndarray]]]:
        """The union of the objects that each text names, on every frame of a video.

        Args:
            read_frame: frame index -> uint8 [H, W, 3] RGB.
            total: frames of the video.
            texts: at least one, no two alike.

        Returns:
            (index, per text a mask [H, W], bool or 0 and 1) of every frame once, in any order; a text of which nothing
            is there has an empty mask.
        """

    def track(self, read_frame: ReadFrame, total: int, keyframe: int, boxes: np.ndarray) -> Iterable[TrackedFrame]:
        raise DataError(f"{type(self).__name__} finds objects by a text and takes no boxes")

    def track_video(self, read_frame: ReadFrame, total: int, prompt: Prompt) -> Iterator[TrackedFrame]:
        (text,) = self._texts([prompt])
        masks = ((index, found[0]) for index, found in self.track_texts(read_frame, total, [text]))
        return self._checked(masks, total)

    def _track_clip(
        self, frames: Sequence[np.ndarray], prompts: Sequence[Prompt], size: tuple[int, int]
    ) -> list[Tensor]:
        """Masks of one clip, whose texts are looked for together."""
        texts = self._texts(prompts)
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return []
        masks = torch.zeros(len(distinct), len(frames), *frames[0].shape[:2], dtype=torch.bool)
        numbered = self.track_texts(frames.__getitem__, len(frames), distinct)
        for index, found in self._checked(((index, np.stack(found)) for index, found in numbered), len(frames)):
            masks[:, index] = torch.from_numpy(found)
        found_of = {text: resize_masks(each, size).to(self.device) for text, each in zip(distinct, masks)}
        return [found_of[text] for text in texts]

    def _texts(self, prompts: Sequence[Prompt]) -> list[str]:
        for prompt in prompts:
            if not isinstance(prompt, TextPrompt):
                raise DataError(f"{type(self).__name__} finds objects by a text and takes no boxes")
        return [prompt.text for prompt in prompts if isinstance(prompt, TextPrompt)]
