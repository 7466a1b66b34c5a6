"""MeViS (Ding et al., ICCV 2023): expressions about motion, one or several objects.

    ROOT/<split>/JPEGImages/<video>/<frame>.jpg
    ROOT/<split>/meta_expressions.json      expressions -> exp_id -> exp, and in train and valid_u: obj_id, anno_id
    ROOT/<split>/mask_dict.json             in train and valid_u: anno_id -> one RLE or null per frame

`valid_u` has public masks; `valid` is scored by the benchmark's server alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from veason.data.layouts import MaskDictBenchmark
from veason.metrics.scores import PaperRows, paper_table


class MeViS(MaskDictBenchmark):
    name = "mevis"
    splits: ClassVar[dict[str, str]] = {
        split: f"{split}/meta_expressions.json" for split in ("valid_u", "valid", "train", "test")
    }
    file_patterns = ("valid_u/meta_expressions.json", "train/mask_dict.json")
    archive_prefix = ""
    paper: ClassVar[dict[str, PaperRows]] = dict.fromkeys(
        ("valid_u", "valid"),
        paper_table(
            "J|F|J&F",
            ("VISA-13B", 41.8, 47.1, 44.5),
            ("GLUS-7B", 48.5, 54.2, 51.3),
            ("VRS-HQ-13B", 48.0, 53.7, 50.9),
            ("Veason-R1-3B (paper)", 48.2, 54.2, 51.2),
            ("Veason-R1-7B (paper)", 48.4, 56.0, 52.2),
        ),
    )
    # github.com/henghuiding/MeViS, README
    official_size: ClassVar[dict[str, tuple[str, int]]] = {
        "valid_u": ("expressions", 793),
        "valid": ("expressions", 2236),
    }
    note = (
        "The paper's rows are on the paper's split of MeViS, this run's on its own: compare them only where the splits "
        "are the same."
    )

    @classmethod
    def matches(cls, root: Path) -> bool:
        return super().matches(root) and not has_absent_targets(root)

    @property
    def has_ground_truth(self) -> bool:
        return self.split in ("valid_u", "train")


def has_absent_targets(root: Path) -> bool:
    """Whether the annotations of `valid_u` have expressions without a target, by which MeViS v2 is known."""
    try:
        videos = json.loads((root / "valid_u/meta_expressions.json").read_text(encoding="utf-8"))["videos"]
        return any(not one["anno_id"] for video in videos.values() for one in video["expressions"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # no such file, or a broken one, which is named when the benchmark is opened
