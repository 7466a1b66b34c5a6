"""Multimodal rotary positions (mRoPE) of text and still images, as Qwen2-VL and its successors number them."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def mrope_positions(ids: Tensor, image_grid_thw: Tensor | None, image_token_id: int, merge: int) -> tuple[Tensor, int]:
    """Positions in time, height and width, int64 [3, P], and the position that follows the prompt.

    Text counts up by one in all three. An image's tokens share the time and count its merged rows and columns, from the
    position where it starts; what follows starts after its longer side (Qwen2-VL, arXiv 2409.12191, section 2.1).

    Args:
        ids: int64 [P], one image token per visual token.
        image_grid_thw: int64 [images, 3], in patches; None without images.
        merge: side of a visual token, in patches.

    Raises:
        ValueError: the image tokens do not match the images.
    """
    grids = [] if image_grid_thw is None else [tuple(row) for row in image_grid_thw.tolist()]
    image_tokens = (ids == image_token_id).nonzero()[:, 0].tolist()
    expected = sum(t * h * w // merge**2 for t, h, w in grids)
    if len(image_tokens) != expected:
        raise ValueError(f"the prompt holds {len(image_tokens)} image tokens, its {len(grids)} images take {expected}")
    text = torch.arange(len(ids)).expand(3, -1)
    chunks: list[Tensor] = []
    cursor = position = seen = 0
    for t, h, w in grids:
        start, count = image_tokens[seen], t * h * w // merge**2
        if image_tokens[seen + count - 1] != start + count - 1:
            raise ValueError(f"the tokens of an image of {t}x{h}x{w} patches are interrupted by text")
        chunks.append(text[:, cursor:start] + (position - cursor))
        position += start - cursor
        chunks.append(_image_positions(t, h // merge, w // merge) + position)
        position += max(h, w) // merge
        seen, cursor = seen + count, start + count
    chunks.append(text[:, cursor:] + (position - cursor))
    return torch.cat(chunks, dim=1), position + len(ids) - cursor


@lru_cache(maxsize=256)
def _image_positions(times: int, rows: int, columns: int) -> Tensor:
    """Time, row and column of each token of an image, int64 [3, tokens]."""
    return torch.cartesian_prod(torch.arange(times), torch.arange(rows), torch.arange(columns)).T
