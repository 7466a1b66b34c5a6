"""Propagates a batch of objects through a clip, every object from its own keyframe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from veason.tracking.sam2.network import ImageFeatures, Network, to_device
from veason.tracking.sam2.propagation import TrackStep, last_uses, plan_track_steps

# The features of some frames, one row each, in the order asked for.
FeatureLookup = Callable[[Sequence[int]], ImageFeatures]


class ObjectBatch:
    """A batch of objects and their memory bank, which holds nothing that no later step attends to.

    Args:
        network: the model's steps.
        boxes: float32 [N, 4] in pixels of the network's frame.
        keyframes: the frame each box is on.
        total: frames of the clip.
        starts: where each object's clip begins in a row of clips of `total` frames each; by default there is one clip.
    """

    def __init__(
        self, network: Network, boxes: Tensor, keyframes: Sequence[int], total: int, starts: Sequence[int] | None = None
    ):
        self.network, self.boxes, self.total = network, boxes, total
        self.starts = starts or [0] * len(keyframes)
        plans = {keyframe: plan_track_steps(keyframe, total, network.memory_config) for keyframe in set(keyframes)}
        self.plans = [plans[keyframe] for keyframe in keyframes]
        self.last_use: dict[int, int] = defaultdict(int)  # step -> the last step that attends to it
        for plan in plans.values():
            for used, step in last_uses(plan).items():
                self.last_use[used] = max(self.last_use[used], step)
        self.memories: dict[int, Tensor] = {}  # step -> [N, L, M]
        self.pointers: dict[int, Tensor] = {}  # step -> [N, C]
        # Of all logits and scores: finite as long as every value was, and read without waiting for the device.
        self.checksum = boxes.new_zeros(())

    def run(self, features_of: FeatureLookup) -> Iterator[tuple[list[int], Tensor]]:
        """Per step the frame of every object in its clip and its mask logits, float32 [N, 1, 4h, 4w]."""
        for step in range(self.total):
            frames = [plan[step].frame for plan in self.plans]
            # Not around the yield: both are the thread's, and the caller's code runs there.
            with torch.no_grad(), self.network.autocast():
                in_clip = [start + frame for start, frame in zip(self.starts, frames)]
                logits = self._track_step(step, features_of(in_clip))
            yield frames, logits

    def _track_step(self, step: int, features: ImageFeatures) -> Tensor:
        if step == 0:
            logits, pointers, scores = self.network.segment_boxes(features, self.boxes)
        else:
            logits, pointers, scores = self._segment_from_memory([plan[step] for plan in self.plans], features)
        # sam2 hides NaN logits where the score is NaN, so both are added.
        self.checksum = self.checksum + logits.float().sum() + scores.float().sum()
        filled = self.network.fill_holes(logits)
        if step in self.last_use:  # sam2 encodes a prompted mask with its holes filled, and a tracked one without
            encoded = filled if step == 0 else logits
            self.memories[step] = self.network.encode_memory(features.embedding, encoded, scores, step == 0)
            self.pointers[step] = pointers
        for past in [past for past in self.memories if self.last_use[past] <= step]:
            del self.memories[past], self.pointers[past]
        return filled

    def _segment_from_memory(self, steps: list[TrackStep], features: ImageFeatures) -> tuple[Tensor, Tensor, Tensor]:
        """Objects that attend to the same steps go through the network together."""
        same: dict[tuple, list[int]] = defaultdict(list)
        for number, step in enumerate(steps):
            same[step.attended].append(number)
        if len(same) == 1:
            return self._segment_same(steps, features, None)
        outputs, order = [], [number for numbers in same.values() for number in numbers]
        for numbers in same.values():
            rows = to_device(numbers, self.boxes.device)
            outputs.append(self._segment_same([steps[number] for number in numbers], features[rows], rows))
        inverse = to_device(order, self.boxes.device).argsort()
        logits, pointers, scores = (torch.cat(parts)[inverse] for parts in zip(*outputs, strict=True))
        return logits, pointers, scores

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
            return self.boxes.new_zeros(len(steps), len(steps[0].pointers) * tokens, model.mem_dim)
        farthest = min(self.total, model.max_obj_ptrs_in_encoder) - 1
        device = self.boxes.device
        ages = to_device([[distance / farthest for _, distance in step.pointers] for step in steps], device)
        width = model.hidden_dim if model.proj_tpos_enc_in_obj_ptrs else model.mem_dim
        return model.obj_ptr_tpos_proj(get_1d_sine_pe(ages, width)).repeat_interleave(tokens, 1)
