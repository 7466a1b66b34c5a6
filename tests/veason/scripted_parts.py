"""A policy that is a script and a tracker that fills its boxes: the pipeline without models."""

import numpy as np


class Script:
    """A policy that says what it was told to, and keeps what it was asked."""

    def __init__(self, *answers):
        self.script, self.asked = list(answers), []

    def answers(self, questions):
        self.asked += questions
        return [self.script.pop(0) for _ in questions]


class BoxTracker:
    """Fills its boxes on every frame, keyframe first, then forward, then backward."""

    max_frames = 10

    def track_group(self, frames, prompts):
        self.groups = getattr(self, "groups", 0) + 1
        return [
            np.stack(
                [mask for _, mask in sorted(self.track_video(frames.__getitem__, len(frames), p), key=lambda m: m[0])]
            )
            for p in prompts
        ]

    def track_video(self, read_frame, total, prompt):
        for index in [*range(prompt.keyframe, total), *range(prompt.keyframe - 1, -1, -1)]:
            mask = np.zeros(read_frame(index).shape[:2], bool)
            for x1, y1, x2, y2 in prompt.boxes.astype(int):
                mask[y1:y2, x1:x2] = True
            yield index, mask
