"""Tracks a batch of objects through a clip, every object from its own keyframe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from veason.tracking.sam2.network import Features, Network, to_device
from veason.tracking.sam2.visits import Visit, last_uses, plan_visits

# The features of some frames, one row each, in the order asked for.
Seen = Callable[[Sequence[int]], Features]


class ObjectBatch:
    """The state of a batch of objects: what each remembers, by slot, and nothing that no later visit needs.

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
        plans = {keyframe: plan_visits(keyframe, total, network.reach) for keyframe in set(keyframes)}
        self.plans = [plans[keyframe] for keyframe in keyframes]
        self.needed: dict[int, int] = defaultdict(int)  # slot -> the last visit that remembers it
        for plan in plans.values():
            for slot, visit in last_uses(plan).items():
                self.needed[slot] = max(self.needed[slot], visit)
        self.memories: dict[int, Tensor] = {}  # slot -> [N, L, M]
        self.pointers: dict[int, Tensor] = {}  # slot -> [N, C]
        self.checksum = boxes.new_zeros(
            ()
        )  # of all that was segmented: finite as long as every value was, and no wait for the device

    def run(self, seen: Seen) -> Iterator[tuple[list[int], Tensor]]:
        """Visit by visit the frame of every object in its clip and its mask logits, float32 [N, 1, 4h, 4w]."""
        for slot in range(self.total):
            frames = [plan[slot].frame for plan in self.plans]
            with (
                torch.no_grad(),
                self.network.autocast(),
            ):  # not around the yield: both are the thread's, and the caller's code runs there
                logits = self._visit(slot, seen([start + frame for start, frame in zip(self.starts, frames)]))
            yield frames, logits

    def _visit(self, slot: int, features: Features) -> Tensor:
        if slot == 0:
            logits, pointers, scores = self.network.prompt(features, self.boxes)
        else:
            logits, pointers, scores = self._track([plan[slot] for plan in self.plans], features)
        self.checksum = (
            self.checksum + logits.float().sum() + scores.float().sum()
        )  # sam2 hides NaN logits where the score is NaN
        filled = self.network.fill(logits)
        if slot in self.needed:  # sam2 remembers a prompted mask as it is shown, and a tracked one as it came
            self.memories[slot] = self.network.remember(
                features.top, filled if slot == 0 else logits, scores, slot == 0
            )
            self.pointers[slot] = pointers
        for past in [past for past in self.memories if self.needed[past] <= slot]:
            del self.memories[past], self.pointers[past]
        return filled

    def _track(self, visits: list[Visit], features: Features) -> tuple[Tensor, Tensor, Tensor]:
        """Objects that remember the same slots go through the network together."""
        alike: dict[tuple, list[int]] = defaultdict(list)
        for number, visit in enumerate(visits):
            alike[visit.slots].append(number)
        if len(alike) == 1:
            return self._track_alike(visits, features, None)
        outputs, order = [], [number for numbers in alike.values() for number in numbers]
        for numbers in alike.values():
            rows = to_device(numbers, self.boxes.device)
            outputs.append(self._track_alike([visits[number] for number in numbers], features[rows], rows))
        back = to_device(order, self.boxes.device).argsort()
        logits, pointers, scores = (torch.cat(parts)[back] for parts in zip(*outputs, strict=True))
        return logits, pointers, scores

    def _track_alike(
        self, visits: list[Visit], features: Features, rows: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        take = (lambda x: x) if rows is None else (lambda x: x[rows])
        maps = [take(self.memories[slot]) for slot, _ in visits[0].memories]
        memory, where = torch.stack(maps, 1), self._map_positions(visits)
        pieces, places = [memory.flatten(1, 2)], [where]
        if visits[0].pointers:
            pointers = torch.stack([take(self.pointers[slot]) for slot, _ in visits[0].pointers], 1)  # [N, P, C]
            tokens = pointers.unflatten(2, (-1, memory.shape[-1])).flatten(
                1, 2
            )  # a pointer is C / M tokens of M channels
            pieces.append(tokens.to(memory.dtype) if self.network.dtype != torch.float32 else tokens)
            places.append(self._pointer_positions(visits, tokens.shape[1] // len(visits[0].pointers)))
        kind = torch.result_type(pieces[0], pieces[-1])
        return self.network.track(features, torch.cat([x.to(kind) for x in pieces], 1), torch.cat(places, 1), len(maps))

    def _map_positions(self, visits: list[Visit]) -> Tensor:
        """Where each remembered map is in space and time, [N, maps * L, M]."""
        table = self.network.model.maskmem_tpos_enc[:, 0, 0]  # the keyframe has t_pos 0 and the table's last row
        ages = to_device([[len(table) - t_pos - 1 for _, t_pos in visit.memories] for visit in visits], table.device)
        return (self.network.memory_position + table[ages][:, :, None]).flatten(1, 2)

    def _pointer_positions(self, visits: list[Visit], tokens: int) -> Tensor:
        """Where each remembered pointer is in time, [N, P * tokens, M]."""
        from sam2.modeling.sam2_utils import (
            get_1d_sine_pe,
        )  # here, so that this module imports where nothing is tracked

        model = self.network.model
        if not model.add_tpos_enc_to_obj_ptrs:
            return self.boxes.new_zeros(len(visits), len(visits[0].pointers) * tokens, model.mem_dim)
        farthest = min(self.total, model.max_obj_ptrs_in_encoder) - 1
        ages = to_device(
            [[distance / farthest for _, distance in visit.pointers] for visit in visits], self.boxes.device
        )
        width = model.hidden_dim if model.proj_tpos_enc_in_obj_ptrs else model.mem_dim
        return model.obj_ptr_tpos_proj(get_1d_sine_pe(ages, width)).repeat_interleave(tokens, 1)
