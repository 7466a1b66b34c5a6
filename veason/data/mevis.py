"""MeViS (Ding et al., ICCV 2023): expressions about motion, one or several objects.

    ROOT/<split>/JPEGImages/<video>/<frame>.jpg
    ROOT/<split>/meta_expressions.json      expressions -> exp_id -> exp, and in train and valid_u: obj_id, anno_id
    ROOT/<split>/mask_dict.json             in train and valid_u: anno_id -> one RLE or null per frame

`valid_u` is the split for scores at home; `valid` is scored by the benchmark's server alone.
"""

from __future__ import annotations

from typing import ClassVar

from veason.data.layouts import MaskDictBenchmark


class MeViS(MaskDictBenchmark):
    name = "mevis"
    splits: ClassVar[dict[str, str]] = {
        split: f"{split}/meta_expressions.json" for split in ("valid_u", "valid", "train", "test")
    }

    @property
    def has_truth(self) -> bool:
        return self.split in ("valid_u", "train")
