"""ReVOS (Yan et al., ECCV 2024): referring, reasoning and absent targets, one or several objects.

ROOT/JPEGImages/<video>/<frame>.jpg
ROOT/meta_expressions_{train,valid}_.json    videos -> video -> frames, height, width, expressions
                                             expressions -> exp_id -> exp, obj_id, anno_id, type_id
ROOT/mask_dict.json                          anno_id -> one RLE or null per frame of the video
ROOT/mask_dict_foreground.json               video -> masks_rle, every object of the video
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from veason import masks
from veason.data.layouts import MaskDictBenchmark
from veason.data.mask_index import MaskIndex
from veason.data.sample import VideoSample
from veason.errors import DataError
from veason.metrics.scores import Column, PaperRows, of_type, paper_table

SUBSET_FILE = "meta_expressions_train_select_subset.json"  # of the published video_seg_keyframe_sft_base_mod_subset
SELECTED_FILE = "meta_expressions_train_select.json"  # written by training_data_construction/data_sampling.py

SELECTED_SIZE = 10_000  # expressions of that file in the published recipe


def missing_selection(root: Path) -> str:
    """That the subset to train on is missing, with the command that makes it."""
    command = f"python training_data_construction/data_sampling.py --input_json {root / ReVOS.splits['train']}"
    return f"{root / SELECTED_FILE} is missing, `{command}` makes it"


REFERRING, REASONING, ABSENT = (of_type(0),), (of_type(1),), (of_type(2),)
OVERALL = REFERRING + REASONING  # VISA: the mean of the two types' means


class ReVOS(MaskDictBenchmark):
    name = "revos"
    needs_type = True
    splits: ClassVar[dict[str, str]] = {
        "valid": "meta_expressions_valid_.json",
        "train": "meta_expressions_train_.json",
    }
    file_patterns = ("meta_expressions_valid_.json", "meta_expressions_train_.json")
    columns = (  # the paper's four first
        Column("Referring J&F", "JF", REFERRING),
        Column("Reasoning J&F", "JF", REASONING),
        Column("Overall J&F", "JF", OVERALL),
        Column("R", "R", OVERALL),
        Column("R binary", "R_binary", OVERALL),
        Column("Overall J", "J", OVERALL),
        Column("Overall F", "F", OVERALL),
        Column("Absent J&F", "JF", ABSENT),
        Column("Absent R binary", "R_binary", ABSENT),
    )

    paper: ClassVar[dict[str, PaperRows]] = {
        "valid": paper_table(
            "Referring J&F|Reasoning J&F|Overall J&F|R",
            ("LISA-7B", 45.7, 36.1, 40.9, 9.3),
            ("VISA-13B", 57.4, 44.3, 50.9, 14.5),
            ("GLUS-7B", 58.3, 51.4, 54.9, 17.9),
            ("Omni-R1", 64.1, 53.7, 58.9, None),
            ("VRS-HQ-13B", 63.3, 56.8, 60.0, 18.9),
            ("Veason-R1-3B (paper)", 63.0, 56.8, 59.9, 28.5),
            ("Veason-R1-7B (paper)", 63.6, 59.0, 61.3, 27.0),
            ("AgentRVOS, GPT-5", 68.8, 63.7, 66.3, None),
            ("VideoSEG-O3-4B", 70.3, 65.1, 67.7, None),
        )
    }
    note = "Rows: Veason-R1 (CVPR 2026); AgentRVOS (arXiv 2603.23489), training-free; Dmmm1997/VideoSEG-O3, README.md."

    official_size: ClassVar[dict[str, tuple[str, int]]] = {"valid": ("videos", 416)}  # VISA, ECCV 2024

    @classmethod
    def training_source(cls, root: Path) -> tuple[str, str | None]:
        return "train", SELECTED_FILE if (root / SELECTED_FILE).is_file() else None

    def training_hint(self) -> str | None:
        large = len(self.samples) > SELECTED_SIZE  # a set of one's own is mostly smaller, and has no subset
        whole = large and self.meta_path == self.root / self.splits["train"]
        return f"the balanced subset {missing_selection(self.root)}" if whole else None

    @property
    def folder(self) -> Path:
        """The root, wherever the annotation file is: a selection or chain-of-thought records may be elsewhere."""
        return self.root

    @property
    def foreground_path(self) -> Path:
        return self.root / "mask_dict_foreground.json"

    @cached_property
    def foreground_index(self) -> MaskIndex:
        return MaskIndex.open(self.foreground_path)

    @property
    def missing_metrics(self) -> str | None:
        path = self.foreground_path
        return None if os.path.lexists(path) else f"R is not computed: {path} is missing"

    def build_index(self) -> None:
        super().build_index()
        if self.split != "train" and not self.missing_metrics:
            len(self.foreground_index)

    def scoring_problems(self, sample: VideoSample) -> list[str]:
        """What is wrong with the video in mask_dict_foreground.json, outside the training split."""
        if self.split == "train" or self.missing_metrics:
            return []
        return self.foreground_index.track_problems(sample.video, sample)

    def foreground(self, sample: VideoSample) -> np.ndarray | None:
        """Every object of the video, uint8 [T, H, W]; None without mask_dict_foreground.json, which only R needs.

        Raises:
            DataError: too few masks, one of another size than the frames, or a damaged one (names the file, the video
                and the frame).
        """
        if self.missing_metrics:
            return None
        if found := self.foreground_index.track_problems(sample.video, sample):
            raise DataError(found[0])
        out = np.zeros((len(sample.frames), sample.height, sample.width), dtype=np.uint8)
        for position, rle in enumerate(self.foreground_index[sample.video][: len(out)]):
            if rle is not None:
                out[position] = masks.decode(rle)
        return out


class ReVOSSubset(ReVOS):
    """ReVOS, trained on a subset of the selection, as `data.name: video_seg_keyframe_sft_base_mod_subset` asks."""

    @classmethod
    def training_source(cls, root: Path) -> tuple[str, str | None]:  # noqa: ARG003
        return "train", SUBSET_FILE
