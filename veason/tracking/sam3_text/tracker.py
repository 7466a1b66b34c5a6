"""All objects that an expression names, found and tracked by SAM 3 alone: a baseline without a policy.

The expression is the prompt. On every frame SAM 3 detects what it names and tracks what it has found so far; the mask
of a frame is the union of the objects, empty where there is none.
Source: huggingface/transformers `src/transformers/models/sam3_video`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from veason.errors import DataError
from veason.registry import check_arguments
from veason.tracking.base import ReadFrame, compute_dtype
from veason.tracking.sam2.preprocessing import preprocess_frames
from veason.tracking.sam3_text.mask_operations import MaskOperations
from veason.tracking.sam3_text.text_session import CurrentFrame, TextSession, union_of
from veason.tracking.text_tracker import TextTracker
from veason.tracking.transformers.loading import RANDOM, SAM3_PIXELS, check_checkpoint_source, load_model

logger = logging.getLogger(__name__)

MODEL_CLASSES = {"sam3_video": "Sam3VideoModel"}
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
TEXT_TOKENS = 32  # of a prompt, begin and end included; the length that the processor pads to


class Sam3TextTracker(TextTracker):
    """SAM 3 with text prompts on one device.

    Args:
        model: `Sam3VideoModel`, on its device.
        tokenizer: of its text encoder.
        max_objects: tracked at a time, the best ones; the checkpoint's own limit (10,000) when None.
    """

    def __init__(self, model: Any, tokenizer: Any, max_objects: int | None = None) -> None:
        super().__init__(model.device)
        from transformers.models.sam3_video import modeling_sam3_video

        modeling_sam3_video.cv_utils_kernel = MaskOperations  # instead of a download
        self.model, self.tokenizer = model, tokenizer
        if max_objects is not None:
            model.max_num_objects = max_objects
        self.features = CachedImageFeatures(model.detector_model)
        for part, names in (
            (model.detector_model, ("pred_logits", "presence_logits", "pred_masks")),
            (model.tracker_model, ("pred_masks", "object_score_logits")),
        ):
            part.register_forward_hook(FiniteCheck(names))

    @classmethod
    def from_options(
        cls,
        device: str | torch.device,
        checkpoint: str | os.PathLike | None = None,
        config: str | os.PathLike | None = None,
        dtype: torch.dtype | str | None = None,
        **options: Any,
    ) -> Sam3TextTracker:
        """Load a model.

        Args:
            checkpoint: a folder of transformers, such as facebook/sam3 downloaded from the hub; or "random".
            config: for random weights: a folder with config.json and a tokenizer.
            dtype: a torch dtype or its name; bf16 on a GPU and fp32 on the CPU when None.
            options: the constructor's.
        """
        from transformers import AutoTokenizer

        device = torch.device(device)
        model = load_model(checkpoint, config, device, compute_dtype(device, dtype), MODEL_CLASSES)
        folder = tokenizer_folder(checkpoint, config)
        return cls(model, AutoTokenizer.from_pretrained(folder, local_files_only=True), **options)

    @classmethod
    def check_options(
        cls,
        checkpoint: str | os.PathLike | None = None,
        config: str | os.PathLike | None = None,
        **options: Any,
    ) -> None:
        """Refuse a checkpoint that is not there, of another kind or without a tokenizer, and unknown options."""
        options.pop("dtype", None)
        check_arguments(
            cls, options, "tracker_options", given=("model", "tokenizer"), also=("checkpoint", "config", "dtype")
        )
        check_checkpoint_source(checkpoint, config, tuple(MODEL_CLASSES))
        tokenizer_folder(checkpoint, config)

    @torch.inference_mode()
    def track_texts(
        self, read_frame: ReadFrame, total: int, texts: Sequence[str]
    ) -> Iterator[tuple[int, list[np.ndarray]]]:
        """As `TextTracker` says. Frames are encoded once for all texts, each of which has a session of its own.

        Raises:
            RuntimeError: the model computed something that is not finite.
        """
        frames = CurrentFrame(total)
        sessions = [TextSession(self.model, *self._tokens(text), frames) for text in texts]
        for frame in range(total):
            picture = read_frame(frame)
            pixels = preprocess_frames([picture], self.model.config.image_size, self.device, SAM3_PIXELS)
            frames.pixels = pixels[0].to(self.model.dtype)
            self.features.next_frame()
            for ready in zip(*(session.step(frame) for session in sessions), strict=True):
                yield ready[0].frame, [union_of(found, picture.shape[:2]).cpu().numpy() for found in ready]

    def _tokens(self, text: str) -> tuple[Tensor, Tensor]:
        """int64 [1, L] each: the text's tokens, and which of them are no padding."""
        if len(self.tokenizer(text).input_ids) > TEXT_TOKENS:
            logger.warning("SAM 3 takes %d tokens, the end is cut off: %r", TEXT_TOKENS, text)
        found = self.tokenizer(
            text, return_tensors="pt", padding="max_length", max_length=TEXT_TOKENS, truncation=True
        ).to(self.device)
        return found.input_ids, found.attention_mask


class CachedImageFeatures:
    """The detector's image features of one frame, computed once for all sessions; in the place of its own function."""

    def __init__(self, detector: Any) -> None:
        self.compute, self.found = detector.get_vision_features, None
        detector.get_vision_features = self

    def next_frame(self) -> None:
        self.found = None

    def __call__(self, pixel_values: Tensor) -> Any:
        if self.found is None:
            self.found = self.compute(pixel_values=pixel_values)
        return self.found


class FiniteCheck:
    """A forward hook on the outputs `names`: NaN > threshold is false, so a broken model would seem to find nothing."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def __call__(self, module: Any, _inputs: Any, outputs: Any) -> None:
        for name in self.names:
            if not getattr(outputs, name).isfinite().all():
                raise RuntimeError(f"{type(module).__name__} computed {name} that are not finite")


def tokenizer_folder(checkpoint: str | os.PathLike | None, config: str | os.PathLike | None) -> Path:
    """The folder of the tokenizer: the checkpoint's, or that of `config` for random weights. Raises DataError."""
    folder = Path((config if checkpoint == RANDOM else checkpoint) or "")
    folder = folder.parent if folder.is_file() else folder
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise DataError(f"no tokenizer in {folder}: {' or '.join(TOKENIZER_FILES)} is missing")
    return folder
