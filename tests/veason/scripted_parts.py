"""A policy that is a script and a tracker that fills its boxes: the pipeline without models."""

import numpy as np

from veason.tracking.base import BaseTracker


class ScriptedPolicy:
    """A policy that gives the answers of its script in order and records the questions."""

    def __init__(self, *answers):
        self.script, self.questions = list(answers), []

    def generate(self, questions):
        self.questions += questions
        return [self.script.pop(0) for _ in questions]


class BoxTracker(BaseTracker):
    """Fills its boxes on every frame, keyframe first, then forward, then backward."""

    max_frames = 10
    groups = 0

    def track_group(self, frames, prompts):
        self.groups += 1
        return super().track_group(frames, prompts)

    def track(self, read_frame, total, keyframe, boxes):
        for index in [*range(keyframe, total), *range(keyframe - 1, -1, -1)]:
            mask = np.zeros(read_frame(index).shape[:2], bool)
            for x1, y1, x2, y2 in boxes.astype(int):
                mask[y1:y2, x1:x2] = True
            yield index, mask
