"""SAM 3's tracker, with all objects of a group in one batch as `veason.tracking.sam2` has them.

Equal to transformers' `Sam3TrackerVideoModel` for the same prompts, frames and weights; of more than 4 keyframes of one
object, the nearest 4 are attended to in both, and the others as sam2 does it.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import torch

from veason.registry import check_arguments
from veason.tracking.base import compute_dtype
from veason.tracking.sam2.preprocessing import PixelFormat
from veason.tracking.sam2.tracker import Sam2Tracker, check_package
from veason.tracking.sam3.loading import MODEL_CLASSES, load_sam3
from veason.tracking.transformers.loading import SAM3_PIXELS, check_checkpoint_source


class Sam3Tracker(Sam2Tracker):
    """SAM 3's tracker on one device; arguments as in `Sam2Tracker`."""

    pixels: ClassVar[PixelFormat] = SAM3_PIXELS

    @classmethod
    def from_options(
        cls,
        device: str | torch.device,
        checkpoint: str | os.PathLike | None = None,
        config: str | os.PathLike | None = None,
        dtype: torch.dtype | str | None = None,
        **options: Any,
    ) -> Sam3Tracker:
        """Load a model, such as a folder of facebook/sam3; arguments as in `TransformersTracker.from_options`."""
        device = torch.device(device)
        return cls(load_sam3(checkpoint, config, device), compute_dtype(device, dtype), **options)

    @classmethod
    def check_options(
        cls, config: str | os.PathLike | None = None, checkpoint: str | os.PathLike | None = None, **options: Any
    ) -> None:
        """Refuse a checkpoint that is not there or of another kind, and unknown options."""
        check_arguments(cls, options, "tracker_options", given=("model",), also=("checkpoint", "config"))
        check_package("sam3")
        check_checkpoint_source(checkpoint, config, tuple(MODEL_CLASSES))
