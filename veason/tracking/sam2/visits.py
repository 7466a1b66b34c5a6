"""In which order an object's frames are visited, and what each visit remembers of the earlier ones.

An object starts on its keyframe, is tracked forward to the end and then backward to the start, and the backward pass
still remembers the forward one: sam2's video predictor does the same when it propagates forward, then in reverse. A
frame is known here by its SLOT: the number of the visit, 0 for the keyframe. In a clip of up to `num_maskmem` frames
visit s remembers exactly slots 0 to s - 1, wherever the keyframe is, so objects with different keyframes advance as one
batch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reach:
    """How far a model remembers, from its YAML."""

    memories: int  # mask memories a frame attends to, the keyframe's included (num_maskmem)
    stride: int  # temporal stride between memories (memory_temporal_stride_for_eval)
    pointers: int  # object pointers a frame attends to (max_obj_ptrs_in_encoder); 0: the model uses none


@dataclass(frozen=True)
class Visit:
    """One visit of one object.

    Attributes:
        frame: the frame's index.
        memories: (slot, t_pos) of the mask memories, by slot; t_pos is 0 for the keyframe, else num_maskmem minus the
            distance in strides.
        pointers: (slot, distance in frames) of the object pointers, by slot.
    """

    frame: int
    memories: tuple[tuple[int, int], ...] = ()
    pointers: tuple[tuple[int, int], ...] = ()

    @property
    def slots(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What objects must have in common to be tracked in one batch."""
        return tuple(slot for slot, _ in self.memories), tuple(slot for slot, _ in self.pointers)


def visit_order(keyframe: int, total: int) -> list[int]:
    """All frames, forward from the keyframe and then backward."""
    return [*range(keyframe, total), *range(keyframe - 1, -1, -1)]


def plan_visits(keyframe: int, total: int, reach: Reach) -> list[Visit]:
    """The visits of an object that is prompted on `keyframe` of a clip of `total` frames."""
    frames = visit_order(keyframe, total)
    slot_of = {frame: slot for slot, frame in enumerate(frames)}
    visits = [Visit(keyframe)]
    for slot, frame in enumerate(frames[1:], start=1):
        step = 1 if frame < keyframe else -1  # towards the frames visited before, in time
        seen = {f: s for f, s in _window(frame, step, slot_of, slot, reach) if f != keyframe}
        memories = {0: 0}
        for t_pos in range(1, reach.memories):
            earlier = _remembered(frame, step, reach.memories - t_pos, reach.stride)
            if earlier in seen:
                memories[seen[earlier]] = t_pos
        pointers = {}
        if reach.pointers:
            near = range(1, min(total, reach.pointers))
            pointers = {0: abs(frame - keyframe)} | {
                seen[frame + step * d]: d for d in near if frame + step * d in seen
            }
        visits.append(Visit(frame, tuple(sorted(memories.items())), tuple(sorted(pointers.items()))))
    return visits


def last_uses(visits: list[Visit]) -> dict[int, int]:
    """slot -> the last visit that still needs it; a slot that is missing is never needed again once it was shown."""
    return {slot: number for number, visit in enumerate(visits) for slots in visit.slots for slot in slots}


def _window(frame: int, step: int, slot_of: dict[int, int], slot: int, reach: Reach):
    """(frame, slot) of the frames that were visited before `slot` and that the visit of `frame` could remember."""
    far = max(reach.pointers, (reach.memories + 1) * reach.stride)
    for distance in range(1, far + 1):
        earlier = frame + step * distance
        if slot_of.get(earlier, slot) < slot:
            yield earlier, slot_of[earlier]


def _remembered(frame: int, step: int, back: int, stride: int) -> int:
    """The frame `back` memories ago: the neighbour, before it every `stride`-th frame of the video."""
    if back == 1:
        return frame + step
    second = -(-(frame + 2) // stride) * stride if step > 0 else (frame - 2) // stride * stride
    return second + step * (back - 2) * stride
