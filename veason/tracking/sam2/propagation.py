"""The order in which SAM 2 propagates an object through a clip, and which earlier frames each step attends to.

An object starts on its keyframe (sam2: the conditioning frame), is propagated forward to the end and then backward to
the start. The backward pass still attends to memories of the forward one, as in sam2's video predictor
(`propagate_in_video`, forward and then with reverse=True). A frame is identified by its step: 0 is the keyframe. In a
clip of up to `num_maskmem` frames, step s attends to exactly the steps 0 to s - 1, wherever the keyframe is, so objects
with different keyframes advance as one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryConfig:
    """The size of a model's memory bank, from its YAML.

    Attributes:
        num_maskmem: mask memories that a frame attends to, the keyframe's included.
        temporal_stride: frames between two memories (`memory_temporal_stride_for_eval`).
        max_pointers: object pointers that a frame attends to (`max_obj_ptrs_in_encoder`); 0: the model uses none.
    """

    num_maskmem: int
    temporal_stride: int
    max_pointers: int


@dataclass(frozen=True)
class TrackStep:
    """One frame of one object.

    Attributes:
        frame: the frame's index.
        memories: (step, t_pos) of the mask memories, in the order of steps; t_pos is 0 for the keyframe, else
            num_maskmem minus the distance in strides (sam2: `t_pos`).
        pointers: (step, distance in frames) of the object pointers, in the order of steps.
    """

    frame: int
    memories: tuple[tuple[int, int], ...] = ()
    pointers: tuple[tuple[int, int], ...] = ()

    @property
    def attended(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The steps of the memories and of the pointers; objects that share them can be tracked in one batch."""
        return tuple(step for step, _ in self.memories), tuple(step for step, _ in self.pointers)


def propagation_order(keyframe: int, total: int) -> list[int]:
    """All frames of a clip: forward from the keyframe, then backward from it."""
    return [*range(keyframe, total), *range(keyframe - 1, -1, -1)]


def plan_track_steps(keyframe: int, total: int, config: MemoryConfig) -> list[TrackStep]:
    """The steps of an object that is prompted on `keyframe` of a clip of `total` frames.

    Source: facebookresearch/sam2 `sam2/modeling/sam2_base.py`, `_prepare_memory_conditioned_features`.
    """
    frames = propagation_order(keyframe, total)
    step_of = {frame: step for step, frame in enumerate(frames)}
    steps = [TrackStep(keyframe)]
    for step, frame in enumerate(frames[1:], start=1):
        direction = 1 if frame < keyframe else -1  # towards the frames that were tracked before, in time
        tracked = {f: s for f, s in _earlier(frame, direction, step_of, step, config) if f != keyframe}
        memories = {0: 0}
        for t_pos in range(1, config.num_maskmem):
            memory = _memory_frame(frame, direction, config.num_maskmem - t_pos, config.temporal_stride)
            if memory in tracked:
                memories[tracked[memory]] = t_pos
        pointers = {}
        if config.max_pointers:
            near = range(1, min(total, config.max_pointers))
            pointers = {0: abs(frame - keyframe)} | {
                tracked[frame + direction * d]: d for d in near if frame + direction * d in tracked
            }
        steps.append(TrackStep(frame, tuple(sorted(memories.items())), tuple(sorted(pointers.items()))))
    return steps


def last_uses(steps: list[TrackStep]) -> dict[int, int]:
    """Step -> the last step that attends to it; a step that is missing is never attended to."""
    return {used: number for number, step in enumerate(steps) for part in step.attended for used in part}


def _earlier(
    frame: int, direction: int, step_of: dict[int, int], step: int, config: MemoryConfig
) -> Iterator[tuple[int, int]]:
    """(frame, step) of the frames that come before `step` and within the model's reach of `frame`."""
    far = max(config.max_pointers, (config.num_maskmem + 1) * config.temporal_stride)
    for distance in range(1, far + 1):
        earlier = frame + direction * distance
        if step_of.get(earlier, step) < step:
            yield earlier, step_of[earlier]


def _memory_frame(frame: int, direction: int, back: int, stride: int) -> int:
    """The frame `back` memories ago: the neighbour, before it every `stride`-th frame of the video."""
    if back == 1:
        return frame + direction
    second = -(-(frame + 2) // stride) * stride if direction > 0 else (frame - 2) // stride * stride
    return second + direction * (back - 2) * stride
