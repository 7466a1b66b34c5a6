"""Frames as SAM 2's image encoder takes them: to the pixel what Pillow's default resize gives, but on the GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocess_frames(frames: Sequence[np.ndarray], size: int, device: torch.device) -> torch.Tensor:
    """Resize (bicubic) and normalize frames.

    Pillow resizes the rows, rounds to 8 bits, then resizes the columns and rounds again; so does this.

    Args:
        frames: uint8 [H, W, 3] RGB, of one size.

    Returns:
        float32 [n, 3, size, size] on `device`.
    """
    stacked = torch.from_numpy(np.stack(frames))
    if device.type == "cuda":
        stacked = stacked.pin_memory()
    pixels = stacked.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    for height, width in ((pixels.shape[2], size), (size, size)):
        if pixels.shape[2:] != (height, width):
            pixels = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True, align_corners=False)
            pixels = (pixels + 0.5).floor_().clamp_(0, 255)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, STD))
    return pixels.div_(255).sub_(mean).div_(std)
