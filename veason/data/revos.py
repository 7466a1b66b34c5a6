"""ReVOS (Yan et al., ECCV 2024): referring, reasoning and absent targets, one or several objects.

ROOT/JPEGImages/<video>/<frame>.jpg
ROOT/meta_expressions_{train,valid}_.json    videos -> video -> frames, height, width, expressions
                                             expressions -> exp_id -> exp, obj_id, anno_id, type_id
ROOT/mask_dict.json                          anno_id -> one RLE or null per frame of the video
ROOT/mask_dict_foreground.json               video -> masks_rle, every object of the video
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from veason import masks
from veason.data.base import VideoSample
from veason.data.layouts import MaskDictBenchmark
from veason.data.mask_index import MaskIndex
from veason.errors import DataError


class ReVOS(MaskDictBenchmark):
    name = "revos"
    splits: ClassVar[dict[str, str]] = {
        "valid": "meta_expressions_valid_.json",
        "train": "meta_expressions_train_.json",
    }

    @property
    def folder(self) -> Path:
        """The root, wherever the annotation file lies: a selection or a chain-of-thought set may stand elsewhere."""
        return self.root

    @property
    def foreground_path(self) -> Path:
        return self.root / "mask_dict_foreground.json"

    @cached_property
    def foreground_index(self) -> MaskIndex:
        return MaskIndex.open(self.foreground_path)

    @property
    def lacks(self) -> str | None:
        return None if self.foreground_path.is_file() else f"R is not computed: {self.foreground_path} is missing"

    def foreground(self, sample: VideoSample) -> np.ndarray | None:
        """Every object of the video, uint8 [T, H, W]; None where mask_dict_foreground.json, of use for R alone, is not
        at hand.

        Raises:
            DataError: too few masks, one of another size than the frames, or a damaged one (names the file, the video
                and the frame).
        """
        if not self.foreground_path.is_file():
            return None
        out = np.zeros((len(sample.frames), sample.height, sample.width), dtype=np.uint8)
        track = self.foreground_index[sample.video]
        if len(track) < len(out):
            raise DataError(
                f"{self.foreground_index.source}: video {sample.video} has {len(track)} masks and {len(out)} frames"
            )
        for position, rle in enumerate(track[: len(out)]):
            if rle is None:
                continue
            where = f"{self.foreground_index.source}: video {sample.video}, frame {sample.frames[position]}"
            if tuple(rle["size"]) != (sample.height, sample.width):
                size = "x".join(map(str, rle["size"]))
                raise DataError(f"{where}: mask of {size} pixels, frames of {sample.height}x{sample.width}")
            try:
                out[position] = masks.decode(rle)
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
        return out
