"""One packed sequence per micro-batch: the prompts of several groups, each once, then the responses of all of them.

    tokens             | prompt A | prompt B | response A0 | response A1 | response B0 | ...
    segment_ids        |    0     |    1     |      2      |      3      |      4      |
    prompt_segment_ids |    0     |    1     |      0      |      0      |      1      |

A token sees its own segment up to itself and, from a response, the whole prompt of its group. Every response keeps the
positions that it would have alone behind the prompt. So the packed sequence gives the log-probabilities and the
gradients of the sequences computed one by one, while the prompt and its images are computed once instead of once per
response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from verl.models.device_transfer import pin_memory, to_device
from verl.models.families import ModelFamily


@dataclass(frozen=True)
class TokenizedGroup:
    """One prompt with its responses; supervised fine-tuning has one response.

    Attributes:
        prompt_ids: int64 [P], expanded: one image token per visual token.
        response_ids: one int64 [R_i] per response, the end-of-sequence token included where the model wrote it.
        pixel_values: float [patches, channels * temporal_patch * patch * patch] as the processor flattens them; None
            without images.
        image_grid_thw: int64 [images, 3], patches in time, height and width of each image.
    """

    prompt_ids: Tensor
    response_ids: Sequence[Tensor]
    pixel_values: Tensor | None = None
    image_grid_thw: Tensor | None = None

    @property
    def tokens(self) -> int:
        """Tokens that the group takes in a packed sequence."""
        return len(self.prompt_ids) + sum(len(ids) for ids in self.response_ids)


class Segment(NamedTuple):
    """A segment [start, end), and the prompt [prompt_start, prompt_end) that it sees too (empty for a prompt)."""

    start: int
    end: int
    prompt_start: int
    prompt_end: int

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def is_prompt(self) -> bool:
        return self.prompt_start == self.prompt_end


@dataclass(frozen=True)
class PackedBatch:
    """Groups in one packed sequence of L tokens; N of them are responses' and have a label. A pytree.

    Attributes:
        input_ids: int64 [1, L].
        position_ids: int64 [3, 1, L], mRoPE positions in time, height and width.
        segment_ids, prompt_segment_ids: int32 [L], the segment of each token and that of its group's prompt. Padding is
            a segment of its own.
        segments: all of them, in order.
        image_positions: int64 [visual tokens], where the vision tower's outputs go. Image tokens that a response writes
            are text.
        pixel_values: [patches, dim] of all prompts. A batch without images carries one dummy image whose output is not
            used, so that every rank runs the vision tower and its collectives.
        vision_metadata: how the tower attends over these patches (`ModelFamily.make_vision_metadata`).
        logit_positions: int64 [N], the position whose logits predict the label (the prompt's last token for a first
            token).
        labels: int64 [N].
        lengths: tokens of each response.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment_ids: Tensor
    prompt_segment_ids: Tensor
    segments: tuple[Segment, ...]
    image_positions: Tensor
    pixel_values: Tensor
    vision_metadata: Any
    logit_positions: Tensor
    labels: Tensor
    lengths: tuple[int, ...]

    def to(self, device: torch.device | str) -> PackedBatch:
        return to_device(self, device)

    def pinned(self) -> PackedBatch:
        return pin_memory(self)

    def split(self, values: Tensor) -> list[Tensor]:
        """Values per label [N, ...] as one tensor per response."""
        return list(values.split(self.lengths))


pytree.register_dataclass(PackedBatch)


def pack_groups(groups: Sequence[TokenizedGroup], family: ModelFamily, multiple: int | None = None) -> PackedBatch:
    """Packs whole groups into one sequence.

    Args:
        groups: at least one; images follow the order of the groups.
        multiple: the sequence is padded to a multiple of this; by default `padding_multiple()`.

    Raises:
        ValueError: a prompt is empty, or its image tokens do not match its images.
    """
    if not groups:
        raise ValueError("no group to pack")
    ids: list[Tensor] = []
    positions: list[Tensor] = []
    logits: list[Tensor] = [torch.zeros(0, dtype=torch.int64)]
    image_positions: list[Tensor] = []
    segments = make_segments(groups, padding_multiple() if multiple is None else multiple)
    own = iter(segments)
    starts: list[int] = []  # of the groups' responses, as rotary positions
    for number, (group, prompt) in enumerate(zip(groups, own)):
        if len(group.prompt_ids) == 0:
            raise ValueError(f"group {number} has an empty prompt: nothing predicts its first response token")
        prompt_positions, next_position = family.positions(group.prompt_ids, group.image_grid_thw)
        ids.append(group.prompt_ids)
        positions.append(prompt_positions)
        starts.append(next_position)
        image_positions.append(prompt.start + (group.prompt_ids == family.config.image_token_id).nonzero()[:, 0])
    for group, start in zip(groups, starts):
        for response, segment in zip(group.response_ids, own):
            length = len(response)
            ids.append(response)
            positions.append((start + torch.arange(length)).expand(3, -1))
            predicting = [segment.prompt_end - 1, *range(segment.start, segment.end - 1)][:length]
            logits.append(torch.tensor(predicting, dtype=torch.int64))
    for segment in own:  # padding
        ids.append(torch.zeros(segment.length, dtype=torch.int64))
        positions.append(torch.arange(segment.length).expand(3, -1))

    responses = [response for group in groups for response in group.response_ids]
    segment_ids, prompt_segment_ids = make_segment_ids(segments)
    pixel_values, grids = concatenate_images(groups, family)
    return PackedBatch(
        input_ids=torch.cat(ids)[None],
        position_ids=torch.cat(positions, dim=1)[:, None],
        segment_ids=segment_ids,
        prompt_segment_ids=prompt_segment_ids,
        segments=tuple(segments),
        image_positions=torch.cat(image_positions),
        pixel_values=pixel_values,
        vision_metadata=family.make_vision_metadata(grids),
        logit_positions=torch.cat(logits),
        labels=torch.cat(responses) if responses else torch.zeros(0, dtype=torch.int64),
        lengths=tuple(len(response) for response in responses),
    )


def padding_multiple() -> int:
    """Whole FlexAttention blocks where a GPU is present."""
    return 128 if torch.cuda.is_available() else 1


def make_segments(groups: Sequence[TokenizedGroup], multiple: int) -> list[Segment]:
    """The groups' prompts, their responses in the same order, and padding where the tokens are no multiple."""
    segments: list[Segment] = []
    end = 0
    for group in groups:
        start, end = end, end + len(group.prompt_ids)
        segments.append(Segment(start, end, start, start))
    for group, prompt in zip(groups, tuple(segments)):
        for response in group.response_ids:
            start, end = end, end + len(response)
            segments.append(Segment(start, end, prompt.start, prompt.end))
    if padding := -end % multiple:
        segments.append(Segment(end, end + padding, end, end))
    return segments


def make_segment_ids(segments: Sequence[Segment]) -> tuple[Tensor, Tensor]:
    """Per token the number of its segment and of its group's prompt, int32 [L] each."""
    lengths = torch.tensor([segment.length for segment in segments])
    number_at = {segment.start: number for number, segment in enumerate(segments) if segment.is_prompt}
    segment_ids = torch.arange(len(segments), dtype=torch.int32)
    prompts = torch.tensor([number_at[segment.prompt_start] for segment in segments], dtype=torch.int32)
    return segment_ids.repeat_interleave(lengths), prompts.repeat_interleave(lengths)


def concatenate_images(
    groups: Sequence[TokenizedGroup], family: ModelFamily
) -> tuple[Tensor, list[tuple[int, int, int]]]:
    """The patches of all groups and their grids; one dummy image where no group has any."""
    pixels = [group.pixel_values for group in groups if group.pixel_values is not None]
    grids = [group.image_grid_thw.tolist() for group in groups if group.image_grid_thw is not None]
    if not pixels:
        dummy, grid = family.dummy_image()
        return dummy, [grid]
    # in pinned memory where they are: the GPU copies them while it computes
    patches, dtype = sum(map(len, pixels)), pixels[0].dtype
    joined = torch.empty(patches, pixels[0].shape[1], dtype=dtype, pin_memory=pixels[0].is_pinned())
    return torch.cat(pixels, out=joined), [tuple(grid) for own in grids for grid in own]


def first_fit_decreasing(tokens: Sequence[int], budget: int) -> list[list[int]]:
    """Which groups share a micro-batch of at most `budget` tokens: bin packing, the largest group first, each into the
    first micro-batch with room.

    A group larger than the budget gets a micro-batch of its own: it is never cut. Micro-batches and their groups come
    in order of their first group.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(tokens)), key=lambda i: (-tokens[i], i)):
        number = next((b for b, left in enumerate(room) if left >= tokens[index]), len(bins))
        if number == len(bins):
            bins.append([])
            room.append(budget)
        bins[number].append(index)
        room[number] -= tokens[index]
    return sorted((sorted(members) for members in bins), key=lambda members: members[0])
