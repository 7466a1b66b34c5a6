"""Propagates a batch of objects through a clip, every object from its own keyframes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from veason.tracking.sam2.network import ImageFeatures, Sam2Network, to_device
from veason.tracking.sam2.propagation import TrackStep, last_uses, plan_track_steps
from veason.tracking.tracker_prompts import ObjectPrompt

# The features of some frames, one row each, in the order asked for.
FeatureLookup = Callable[[Sequence[int]], ImageFeatures]


@dataclass(frozen=True)
class BatchObject:
    """One object of a batch; points and labels are per keyframe, a box is two points, its corners."""

    keyframes: tuple[int, ...]  # the frames it is prompted on, in order
    points: tuple[np.ndarray, ...]  # float32 [Q, 2] in pixels of the network's frame
    labels: tuple[tuple[int, ...], ...]  # [Q], as sam2 numbers them: 0, 1, and 2 and 3 of a box's corners
    start: int = 0  # where its clip begins in a row of clips

    @classmethod
    def make(cls, prompt: ObjectPrompt, start: int = 0) -> BatchObject:
        """An object whose prompt is in pixels of the network's frame."""
        given = [each.corners_and_points for each in prompt]
        points, labels = zip(*given, strict=True)
        return cls(
            tuple(each.frame for each in prompt),
            tuple(each.astype(np.float32) for each in points),
            tuple(tuple(each.tolist()) for each in labels),
            start,
        )

    @property
    def key(self) -> Hashable:
        """Equal for objects with equal masks."""
        return self.start, self.keyframes, self.labels, tuple(each.tobytes() for each in self.points)


class ObjectBatch:
    """A batch of objects and their memory bank, which holds nothing that no later step attends to.

    Args:
        network: the model's steps.
        objects: at least one.
        total: frames of the clip; of each clip where there are several in a row.
    """

    def __init__(self, network: Sam2Network, objects: Sequence[BatchObject], total: int):
        self.network, self.objects, self.total = network, objects, total
        distinct = {item.keyframes for item in objects}
        plans = {keyframes: plan_track_steps(keyframes, total, network.memory_config) for keyframes in distinct}
        self.plans = [plans[item.keyframes] for item in objects]
        self.last_use: dict[int, int] = defaultdict(int)  # step -> the last step that attends to it
        for plan in plans.values():
            for used, step in last_uses(plan).items():
                self.last_use[used] = max(self.last_use[used], step)
        self.memories: dict[int, Tensor] = {}  # step -> [N, L, M]
        self.pointers: dict[int, Tensor] = {}  # step -> [N, C]
        # Of all logits and scores: finite as long as every value was, and read without waiting for the device.
        self.checksum = torch.zeros((), device=network.device)

    def run(self, features_of: FeatureLookup) -> Iterator[tuple[list[int], Tensor]]:
        """Per step the frame of every object in its clip and its mask logits, float32 [N, 1, 4h, 4w]."""
        for step in range(self.total):
            frames = [plan[step].frame for plan in self.plans]
            # Not around the yield: both are the thread's, and the caller's code runs there.
            with torch.no_grad(), self.network.autocast():
                in_clip = [item.start + frame for item, frame in zip(self.objects, frames)]
                logits = self._track_step(step, features_of(in_clip))
            yield frames, logits

    def _track_step(self, step: int, features: ImageFeatures) -> Tensor:
        steps = [plan[step] for plan in self.plans]
        logits, pointers, scores = self._segment(step, steps, features)
        # sam2 hides NaN logits where the score is NaN, so both are added.
        self.checksum = self.checksum + logits.float().sum() + scores.float().sum()
        filled = self.network.fill_holes(logits)
        if step in self.last_use:
            self.memories[step] = self._encode_memory(
                [each.prompted for each in steps], features, logits, filled, scores
            )
            self.pointers[step] = pointers
        for past in [past for past in self.memories if self.last_use[past] <= step]:
            del self.memories[past], self.pointers[past]
        return filled

    def _segment(self, step: int, steps: list[TrackStep], features: ImageFeatures) -> tuple[Tensor, Tensor, Tensor]:
        """Objects with as many points, or that attend to the same steps, go through the network together."""
        same: dict[Hashable, list[int]] = defaultdict(list)
        for number, each in enumerate(steps):
            same[len(self.objects[number].labels[step]) if each.prompted else each.attended].append(number)
        if len(same) == 1:
            return self._segment_group(step, range(len(steps)), steps, features, None)
        outputs = []
        for numbers in same.values():
            rows = to_device(numbers, self.network.device)
            group = [steps[number] for number in numbers]
            outputs.append(self._segment_group(step, numbers, group, features[rows], rows))
        logits, pointers, scores = (_reorder(parts, same.values()) for parts in zip(*outputs, strict=True))
        return logits, pointers, scores

    def _segment_group(
        self, step: int, numbers: Sequence[int], steps: list[TrackStep], features: ImageFeatures, rows: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if not steps[0].prompted:
            return self._segment_same(steps, features, rows)
        points = torch.from_numpy(np.stack([self.objects[number].points[step] for number in numbers]))
        labels = to_device([self.objects[number].labels[step] for number in numbers], self.network.device).int()
        return self.network.segment_prompts(features, points.to(self.network.device, non_blocking=True), labels)

    def _encode_memory(
        self, prompted: list[bool], features: ImageFeatures, logits: Tensor, filled: Tensor, scores: Tensor
    ) -> Tensor:
        """Memories [N, L, M]; sam2 encodes a prompted mask with its holes filled, and a tracked one without."""
        encode, embedding = self.network.encode_memory, features.embedding
        if all(prompted) or not any(prompted):
            return encode(embedding, filled if prompted[0] else logits, scores, prompted[0])
        groups = [[number for number, each in enumerate(prompted) if each is kind] for kind in (True, False)]
        rows = [to_device(numbers, self.network.device) for numbers in groups]
        parts = [
            encode(embedding[row], masks[row], scores[row], kind)
            for row, masks, kind in zip(rows, (filled, logits), (True, False), strict=True)
        ]
        return _reorder(parts, groups)

    def _segment_same(
        self, steps: list[TrackStep], features: ImageFeatures, rows: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The objects of `rows` (None: all), whose `steps` attend to the same earlier steps."""
        take = (lambda x: x) if rows is None else (lambda x: x[rows])
        maps = [take(self.memories[used]) for used, _ in steps[0].memories]
        memory = torch.stack(maps, 1)
        tokens, positions = [memory.flatten(1, 2)], [self._map_positions(steps)]
        if steps[0].pointers:
            pointers = torch.stack([take(self.pointers[used]) for used, _ in steps[0].pointers], 1)  # [N, P, C]
            # a pointer is C / M tokens of M channels
            split = pointers.unflatten(2, (-1, memory.shape[-1])).flatten(1, 2)
            tokens.append(split.to(memory.dtype) if self.network.dtype != torch.float32 else split)
            positions.append(self._pointer_positions(steps, split.shape[1] // len(steps[0].pointers)))
        dtype = torch.result_type(tokens[0], tokens[-1])
        joined = torch.cat([part.to(dtype) for part in tokens], 1)
        return self.network.segment_from_memory(features, joined, torch.cat(positions, 1), len(maps))

    def _map_positions(self, steps: list[TrackStep]) -> Tensor:
        """The encoding of space and time of each memory map, [N, maps * L, M]."""
        table = self.network.model.maskmem_tpos_enc[:, 0, 0]  # the keyframe has t_pos 0 and the table's last row
        ages = to_device([[len(table) - t_pos - 1 for _, t_pos in step.memories] for step in steps], table.device)
        return (self.network.memory_position + table[ages][:, :, None]).flatten(1, 2)

    def _pointer_positions(self, steps: list[TrackStep], tokens: int) -> Tensor:
        """The encoding of time of each object pointer, [N, P * tokens, M]."""
        from sam2.modeling.sam2_utils import get_1d_sine_pe  # here: the module imports where nothing is tracked

        model = self.network.model
        if not model.add_tpos_enc_to_obj_ptrs:
            return torch.zeros(len(steps), len(steps[0].pointers) * tokens, model.mem_dim, device=self.network.device)
        farthest = min(self.total, model.max_obj_ptrs_in_encoder) - 1
        ages = [[distance / farthest for _, distance in step.pointers] for step in steps]
        width = model.hidden_dim if model.proj_tpos_enc_in_obj_ptrs else model.mem_dim
        return model.obj_ptr_tpos_proj(get_1d_sine_pe(to_device(ages, self.network.device), width)).repeat_interleave(
            tokens, 1
        )


def _reorder(parts: Sequence[Tensor], groups: Iterable[Sequence[int]]) -> Tensor:
    """The rows of several groups of objects in the objects' own order."""
    order = to_device([number for numbers in groups for number in numbers], parts[0].device)
    return torch.cat(list(parts))[order.argsort()]
