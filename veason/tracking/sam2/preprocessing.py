"""Frames as an image encoder takes them; for SAM 2 to the pixel what Pillow's default resize gives, but on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PixelFormat:
    """How frames are resized and normalized.

    Attributes:
        mean, std: of the red, green and blue values between 0 and 1.
        resample: "bicubic" or "bilinear", with antialiasing.
    """

    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    resample: str = "bicubic"


SAM2_PIXELS = PixelFormat()


def preprocess_frames(
    frames: Sequence[np.ndarray], size: int, device: torch.device, pixels: PixelFormat = SAM2_PIXELS
) -> torch.Tensor:
    """Resize and normalize frames.

    Pillow resizes the rows, rounds to 8 bits, then resizes the columns and rounds again; so does this.

    Args:
        frames: uint8 [H, W, 3] RGB, of one size.

    Returns:
        float32 [n, 3, size, size] on `device`.
    """
    stacked = torch.from_numpy(np.stack(frames))
    if device.type == "cuda":
        stacked = stacked.pin_memory()
    values = stacked.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    for height, width in ((values.shape[2], size), (size, size)):
        if values.shape[2:] != (height, width):
            values = F.interpolate(values, (height, width), mode=pixels.resample, antialias=True, align_corners=False)
            values = (values + 0.5).floor_().clamp_(0, 255)
    mean, std = (torch.tensor(each, device=device).view(3, 1, 1) for each in (pixels.mean, pixels.std))
    return values.div_(255).sub_(mean).div_(std)
