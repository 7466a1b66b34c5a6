"""The order in which SAM 2 propagates an object through a clip, and which earlier frames each step attends to.

An object starts on its keyframes (sam2: conditioning frames), which are segmented from their prompts alone; it is then
propagated forward from the first keyframe to the end and backward from there to the start. The backward pass still
attends to memories of the forward one, as in sam2's video predictor (`propagate_in_video`, forward and then with
reverse=True). A frame is identified by its step: 0 is the first keyframe. In a clip of up to `num_maskmem` frames with
one keyframe, step s attends to exactly the steps 0 to s - 1, wherever the keyframe is, so objects with different
keyframes advance as one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryConfig:
    """The size of a model's memory bank; in brackets the keys of its YAML."""

    num_maskmem: int  # mask memories that a frame attends to, the keyframe's included
    temporal_stride: int  # frames between two memories (memory_temporal_stride_for_eval)
    max_pointers: int  # object pointers that a frame attends to (max_obj_ptrs_in_encoder); 0: the model uses none
    max_keyframes: int = -1  # nearest keyframes that a frame attends to (max_cond_frames_in_attn); -1: all
    past_pointers: bool = True  # pointers of later keyframes are left out (only_obj_ptrs_in_the_past_for_eval)
    signed_pointers: bool = True  # a pointer's distance has a sign (use_signed_tpos_enc_to_obj_ptrs)


@dataclass(frozen=True)
class TrackStep:
    """One frame of one object.

    Attributes:
        frame: the frame's index.
        memories: (step, t_pos) of the mask memories, in the order of steps; t_pos is 0 for a keyframe, else
            num_maskmem minus the distance in strides (sam2: `t_pos`). Empty for a keyframe.
        pointers: (step, distance in frames) of the object pointers, in the order of steps.
    """

    frame: int
    memories: tuple[tuple[int, int], ...] = ()
    pointers: tuple[tuple[int, int], ...] = ()

    @property
    def prompted(self) -> bool:
        """Whether the frame is a keyframe: segmented from its prompt, without memories."""
        return not self.memories

    @property
    def attended(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The steps of the memories and of the pointers; objects that share them can be tracked in one batch."""
        return tuple(step for step, _ in self.memories), tuple(step for step, _ in self.pointers)


def propagation_order(keyframes: Sequence[int], total: int) -> list[int]:
    """All frames of a clip: the keyframes, forward from the first one, then backward from it."""
    first, given = min(keyframes), set(keyframes)
    return [*sorted(given), *(frame for frame in range(first, total) if frame not in given), *range(first - 1, -1, -1)]


def plan_track_steps(keyframes: Sequence[int], total: int, config: MemoryConfig) -> list[TrackStep]:
    """The steps of an object that is prompted on `keyframes` of a clip of `total` frames.

    Source: facebookresearch/sam2 `sam2/modeling/sam2_base.py`, `_prepare_memory_conditioned_features`.
    """
    frames = propagation_order(keyframes, total)
    step_of = {frame: step for step, frame in enumerate(frames)}
    given = set(keyframes)
    steps = [TrackStep(frame) for frame in frames[: len(given)]]
    for step, frame in enumerate(frames[len(given) :], start=len(given)):
        direction = 1 if frame < frames[0] else -1  # towards the frames that were tracked before, in time
        nearest = _nearest_keyframes(frame, sorted(given), config.max_keyframes)
        # a keyframe that is not among the nearest counts as a tracked frame
        tracked = {f: s for f, s in _earlier(frame, direction, step_of, step, config) if f not in nearest}
        memories = {step_of[keyframe]: 0 for keyframe in nearest}
        for t_pos in range(1, config.num_maskmem):
            memory = _memory_frame(frame, direction, config.num_maskmem - t_pos, config.temporal_stride)
            if memory in tracked:
                memories[tracked[memory]] = t_pos
        pointers = {}
        if config.max_pointers:
            near = range(1, min(total, config.max_pointers))
            pointers = _keyframe_pointers(frame, direction, nearest, step_of, config) | {
                tracked[frame + direction * d]: d for d in near if frame + direction * d in tracked
            }
        steps.append(TrackStep(frame, tuple(sorted(memories.items())), tuple(sorted(pointers.items()))))
    return steps


def _nearest_keyframes(frame: int, keyframes: Sequence[int], limit: int) -> list[int]:
    """The last keyframe before `frame`, the first one after it, then the nearest ones, up to `limit` (-1: all).

    Source: facebookresearch/sam2 `sam2/modeling/sam2_utils.py`, `select_closest_cond_frames`.
    """
    if limit == -1 or len(keyframes) <= limit:
        return list(keyframes)
    before, after = [k for k in keyframes if k < frame], [k for k in keyframes if k >= frame]
    chosen = [*before[-1:], *after[:1]]
    further = sorted((k for k in keyframes if k not in chosen), key=lambda k: abs(k - frame))
    return [*chosen, *further[: limit - len(chosen)]]


def _keyframe_pointers(
    frame: int, direction: int, keyframes: Sequence[int], step_of: dict[int, int], config: MemoryConfig
) -> dict[int, int]:
    """Step -> distance in frames of the keyframes whose object pointers `frame` attends to."""
    distances = {keyframe: (keyframe - frame) * direction for keyframe in keyframes}  # negative: still to come
    return {
        step_of[keyframe]: distance if config.signed_pointers else abs(distance)
        for keyframe, distance in distances.items()
        if distance >= 0 or not config.past_pointers
    }


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
