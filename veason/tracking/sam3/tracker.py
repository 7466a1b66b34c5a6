"""SAM 3's tracker, with all objects of a group in one batch as `veason.tracking.sam2` has them.

Equal to transformers' `Sam3TrackerVideoModel` for the same prompts, frames and weights; of more than 4 keyframes of one
object, the nearest 4 are attended to in both, and the others as sam2 does it.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import torch

from veason.resolve import check_arguments
from veason.tracking.base import compute_dtype
from veason.tracking.sam2.preprocessing import PixelFormat
from veason.tracking.sam2.tracker import Sam2Tracker, check_package
from veason.tracking.sam3.loading import KINDS, load_sam3
from veason.tracking.transformers.loading import SAM3_PIXELS, check_source


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
        """Load a model.

        Args:
            checkpoint: a folder of transformers, such as facebook/sam3 downloaded from the hub; or "random".
            config: for random weights: a config.json, a folder with one, or sam3_tracker_video.
            dtype: a torch dtype or its name; bf16 on a GPU and fp32 on the CPU when None.
            options: the constructor's.
        """
        device = torch.device(device)
        dtype = compute_dtype(device, dtype)
        return cls(load_sam3(checkpoint, config, device), dtype, **options)

    @classmethod
    def check_options(
        cls, config: str | os.PathLike | None = None, checkpoint: str | os.PathLike | None = None, **options: Any
    ) -> None:
        """Refuse a checkpoint that is not there or of another kind, and unknown options."""
        check_arguments(cls, options, "tracker_options", given=("model",), also=("checkpoint", "config"))
        check_package("sam3")
        check_source(checkpoint, config, tuple(KINDS))
