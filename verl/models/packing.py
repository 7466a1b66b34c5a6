"""One sequence per group: the prompt once, then its responses, several groups in one row.

    row      | prompt A | response A0 | response A1 | prompt B | response B0 | ...
    segment  |    0     |      1      |      2      |    3     |      4      |
    parent   |    0     |      0      |      0      |    3     |      3      |

A token sees its own segment up to itself and, from a response, the whole prompt of its group. Every response keeps the
positions that it would have alone behind the prompt. So the row gives the log-probabilities and the gradients of the
sequences computed one by one, while the prompt and its images are computed once instead of once per response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from verl.models.qwen2_5_vl.vision import VisionPlan, plan_vision
from verl.models.transfer import mapped, sent


@dataclass(frozen=True)
class Group:
    """One prompt with its responses; supervised fine-tuning has one response.

    Attributes:
        prompt_ids: int64 [P], expanded: one `<|image_pad|>` per visual token.
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
        """Tokens that the group takes in a packed row."""
        return len(self.prompt_ids) + sum(len(ids) for ids in self.response_ids)


class Span(NamedTuple):
    """A segment [start, end) of the row, and the prompt [prompt_start, prompt_end) that it sees besides itself (empty
    for a prompt).
    """

    start: int
    end: int
    prompt_start: int
    prompt_end: int


@dataclass(frozen=True)
class PackedBatch:
    """Groups in one row of L tokens; N tokens of them are responses' and have a label.

    Attributes:
        input_ids: int64 [1, L].
        position_ids: int64 [3, 1, L], mRoPE positions in time, height and width.
        segments, parents: int32 [L], see the module's picture. Padding is a segment of its own.
        spans: the segments as intervals of the row.
        image_positions: int64 [visual tokens], where the vision tower's outputs go. Image tokens that a response writes
            are words.
        pixel_values: [patches, dim] of all prompts. A row without images carries one blank image that is placed
            nowhere, so that every rank runs the vision tower and its collectives.
        vision: how the tower attends over these patches.
        predictors: int64 [N], the position whose hidden state predicts the label (the prompt's last token for a first
            token).
        labels: int64 [N].
        response_of: int64 [N], the label's response, numbered through the row.
        lengths: tokens of each response, in that numbering.
        group_sizes: responses of each group.
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: Tensor
    parents: Tensor
    spans: tuple[Span, ...]
    image_positions: Tensor
    pixel_values: Tensor
    vision: VisionPlan
    predictors: Tensor
    labels: Tensor
    response_of: Tensor
    lengths: tuple[int, ...]
    group_sizes: tuple[int, ...]

    def to(self, device: torch.device | str) -> PackedBatch:
        return mapped(self, lambda tensor: sent(tensor, device))

    def pinned(self) -> PackedBatch:
        """In page-locked memory, from which a GPU takes it while it computes."""
        return mapped(self, Tensor.pin_memory)

    def split(self, values: Tensor) -> list[Tensor]:
        """Values per label [N, ...] as one tensor per response."""
        return list(values.split(self.lengths))


def pack_groups(groups: Sequence[Group], model_config: Any, multiple: int | None = None) -> PackedBatch:
    """Packs whole groups into one row.

    Args:
        groups: at least one; images follow the order of the groups.
        model_config: the model's `Qwen2_5_VLConfig`.
        multiple: the row is padded to a multiple of this; by default to whole FlexAttention blocks (128) where a GPU is
            present.

    Raises:
        ValueError: a prompt is empty, or its image tokens do not match its images.
    """
    if not groups:
        raise ValueError("no group to pack")
    if multiple is None:
        multiple = row_multiple()
    ids: list[Tensor] = []
    positions: list[Tensor] = []
    spans: list[Span] = []
    predictors: list[Tensor] = []
    image_positions: list[Tensor] = []
    cursor = 0
    for number, group in enumerate(groups):
        if len(group.prompt_ids) == 0:
            raise ValueError(f"group {number} has an empty prompt: nothing predicts its first response token")
        prompt_positions, next_position = mrope_positions(group.prompt_ids, group.image_grid_thw, model_config)
        ids.append(group.prompt_ids)
        positions.append(prompt_positions)
        prompt_start, prompt_end = cursor, cursor + len(group.prompt_ids)
        spans.append(Span(prompt_start, prompt_end, prompt_start, prompt_start))
        image_positions.append(cursor + (group.prompt_ids == model_config.image_token_id).nonzero()[:, 0])
        cursor = prompt_end
        for response in group.response_ids:
            length = len(response)
            ids.append(response)
            positions.append((next_position + torch.arange(length)).expand(3, -1))
            spans.append(Span(cursor, cursor + length, prompt_start, prompt_end))
            predictors.append(
                torch.tensor([prompt_end - 1, *range(cursor, cursor + length - 1)][:length], dtype=torch.int64)
            )
            cursor += length
    padding = -cursor % multiple
    if padding:
        ids.append(torch.zeros(padding, dtype=torch.int64))
        positions.append(torch.arange(padding).expand(3, -1))
        spans.append(Span(cursor, cursor + padding, cursor, cursor))

    responses = [response for group in groups for response in group.response_ids]
    lengths = tuple(len(response) for response in responses)
    segments, parents = number_segments(spans)
    pixel_values, grids = join_images(groups, model_config.vision_config)
    return PackedBatch(
        input_ids=torch.cat(ids)[None],
        position_ids=torch.cat(positions, dim=1)[:, None],
        segments=segments,
        parents=parents,
        spans=tuple(spans),
        image_positions=torch.cat(image_positions),
        pixel_values=pixel_values,
        vision=plan_vision(grids, model_config.vision_config),
        predictors=torch.cat(predictors) if predictors else torch.zeros(0, dtype=torch.int64),
        labels=torch.cat(responses) if responses else torch.zeros(0, dtype=torch.int64),
        response_of=torch.repeat_interleave(torch.tensor(lengths, dtype=torch.int64)),
        lengths=lengths,
        group_sizes=tuple(len(group.response_ids) for group in groups),
    )


def row_multiple() -> int:
    """Whole FlexAttention blocks where a GPU is present."""
    return 128 if torch.cuda.is_available() else 1


def number_segments(spans: Sequence[Span]) -> tuple[Tensor, Tensor]:
    """Per token of the row the number of its segment and of its group's prompt, int32 [L] each."""
    lengths = torch.tensor([span.end - span.start for span in spans])
    number_at = {span.start: number for number, span in enumerate(spans) if span.prompt_start == span.prompt_end}
    own = torch.arange(len(spans), dtype=torch.int32)
    parent = torch.tensor([number_at[span.prompt_start] for span in spans], dtype=torch.int32)
    return own.repeat_interleave(lengths), parent.repeat_interleave(lengths)


def join_images(groups: Sequence[Group], vision_config: Any) -> tuple[Tensor, tuple[tuple[int, int, int], ...]]:
    """The patches of all groups and their grids; one blank image where no group has any."""
    pixels = [group.pixel_values for group in groups if group.pixel_values is not None]
    grids = [
        tuple(row) for group in groups if group.image_grid_thw is not None for row in group.image_grid_thw.tolist()
    ]
    if pixels:  # from pinned memory the GPU takes them while it computes
        joined = torch.empty(
            sum(map(len, pixels)), pixels[0].shape[1], dtype=pixels[0].dtype, pin_memory=pixels[0].is_pinned()
        )
        return torch.cat(pixels, out=joined), tuple(grids)
    side = vision_config.spatial_merge_size
    dim = vision_config.in_channels * vision_config.temporal_patch_size * vision_config.patch_size**2
    return torch.zeros(side * side, dim), ((1, side, side),)


def mrope_positions(ids: Tensor, image_grid_thw: Tensor | None, model_config: Any) -> tuple[Tensor, int]:
    """Positions in time, height and width [3, P] of a prompt of text and still images, and the position that follows
    it.

    Text counts up by one in all three. An image's tokens share the time and count its merged rows and columns, from the
    position where it starts; what follows starts after its longer side (Qwen2-VL, arXiv 2409.12191, section 2.1).
    """
    merge = model_config.vision_config.spatial_merge_size
    grids = [] if image_grid_thw is None else [tuple(row) for row in image_grid_thw.tolist()]
    is_image = ids == model_config.image_token_id
    if bool((ids == model_config.video_token_id).any()):
        raise ValueError("the prompt holds video tokens; frames are given as images here")
    image_tokens = is_image.nonzero()[:, 0].tolist()
    expected = sum(t * h * w // merge**2 for t, h, w in grids)
    if len(image_tokens) != expected:
        raise ValueError(f"the prompt holds {len(image_tokens)} image tokens, its {len(grids)} images take {expected}")
    text = torch.arange(len(ids)).expand(3, -1)
    parts: list[Tensor] = []
    cursor = position = seen = 0
    for t, h, w in grids:
        start, count = image_tokens[seen], t * h * w // merge**2
        if image_tokens[seen + count - 1] != start + count - 1:
            raise ValueError(f"the tokens of an image of {t}x{h}x{w} patches are interrupted by text")
        parts.append(text[:, cursor:start] + (position - cursor))
        position += start - cursor
        parts.append(_image_positions(t, h // merge, w // merge) + position)
        position += max(h, w) // merge
        seen, cursor = seen + count, start + count
    parts.append(text[:, cursor:] + (position - cursor))
    return torch.cat(parts, dim=1), position + len(ids) - cursor


@lru_cache(maxsize=256)
def _image_positions(times: int, rows: int, columns: int) -> Tensor:
    """Time, row and column of each token of an image, int64 [3, tokens]."""
    return torch.cartesian_prod(torch.arange(times), torch.arange(rows), torch.arange(columns)).T


def fill_rows(tokens: Sequence[int], budget: int) -> list[list[int]]:
    """Which groups share a row: groups in order of falling size, each into the first row with room (first-fit
    decreasing).

    A group larger than the budget gets a row of its own: it is never cut. Rows and their groups come in order of their
        first group.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(tokens)), key=lambda i: (-tokens[i], i)):
        row = next((r for r, left in enumerate(room) if left >= tokens[index]), None)
        if row is None:
            rows.append([])
            room.append(budget)
            row = len(rows) - 1
        rows[row].append(index)
        room[row] -= tokens[index]
    return sorted((sorted(row) for row in rows), key=lambda row: row[0])
