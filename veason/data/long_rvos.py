"""Long-RVOS (Liang et al., CVPR 2026): one object in videos of a minute, by appearance, motion or both.

    ROOT/{train,valid,test}/JPEGImages/<video>/<frame>.jpg
    ROOT/{train,valid,test}/meta_expressions.json     videos -> video -> frames, expressions
                                                      expressions -> exp_id -> exp, obj_id, type
    ROOT/{train,valid,test}/Annotations/<video>/<obj_id>/<frame>.png     not 0 is the object; no file where it is absent

`type` is static, dynamic or static+dynamic. Source: iSEE-Laboratory/Long_RVOS `README.md`, `eval/eval_long_rvos`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from veason.data.annotation import as_name, shorten
from veason.data.layouts import PngBenchmark, Targets
from veason.data.sample import VideoSample
from veason.errors import DataError
from veason.metrics.scores import Column, PaperRows, SampleScore, every_sample, j_and_f, of_category, paper_table
from veason.metrics.temporal_iou import temporal_ious

CATEGORIES = {"Static": "static", "Dynamic": "dynamic", "Hybrid": "static+dynamic"}


def _consistency(prefix: str = "", category: str | None = None) -> tuple[Column, ...]:
    group = every_sample if category is None else of_category(category)
    return tuple(Column(f"{prefix}{metric}", metric, (group,)) for metric in ("tIoU", "vIoU"))


class LongRVOS(PngBenchmark):
    name = "long_rvos"
    sparse = True
    numbered = False
    splits: ClassVar[dict[str, str]] = {split: f"{split}/meta_expressions.json" for split in ("valid", "test", "train")}
    columns = (
        *j_and_f(),
        *_consistency(),
        *(
            column
            for title, category in CATEGORIES.items()
            for column in (
                Column(f"{title} J&F", "JF", (of_category(category),)),
                *_consistency(f"{title} ", category),
            )
        ),
    )
    paper: ClassVar[dict[str, PaperRows]] = {
        "valid": paper_table("J&F", ("VideoSEG-O3-2B", 54.8), ("VideoSEG-O3-4B", 57.4)),
        "test": paper_table(
            "J&F|tIoU|vIoU",
            ("SOC", 38.6, 72.3, 33.5),
            ("MUTR", 42.2, 72.8, 38.2),
            ("ReferDINO", 48.4, 73.5, 43.9),
            ("GLUS", 25.7, 61.6, 22.0),
            ("SAMWISE", 40.9, 66.6, 31.1),
            ("RGA3", 22.5, 60.0, 17.5),
            ("ReferMo", 52.9, 73.6, 45.2),
        ),
    }
    official_size: ClassVar[dict[str, tuple[str, int]]] = {"valid": ("videos", 112), "test": ("videos", 226)}
    note = (
        "Rows: test, Long-RVOS (CVPR 2026), as transcribed in zhaoyang97/Paper-Notes-en; valid, the split of its code, "
        "Dmmm1997/VideoSEG-O3, README.md."
    )

    @classmethod
    def matches(cls, root: Path) -> bool:
        """By the folder of an object's masks, one level deeper than in the other layouts with these files."""
        for split in cls.splits:
            annotated = root / split / "Annotations"
            if not (root / cls.splits[split]).is_file() or not annotated.is_dir():
                continue
            video = next(annotated.iterdir(), None)
            if video is not None and video.is_dir() and any(entry.is_dir() for entry in video.iterdir()):
                return True
        return False

    @property
    def has_ground_truth(self) -> bool:
        return (self.folder / "Annotations").is_dir()

    def parse_targets(self, video: str, meta: dict[str, Any], expression: dict[str, Any]) -> Targets:
        return 0, (as_name(str(expression["obj_id"]), "its obj_id"),) if self.has_ground_truth else ()

    def category(self, expression: dict[str, Any]) -> str | None:
        category = expression["type"] if self.has_ground_truth else expression.get("type")
        if category not in (None, *CATEGORIES.values()):
            raise DataError(f"its type is {shorten(category)}; it can be {', '.join(CATEGORIES.values())}")
        return category

    def mask_folder(self, sample: VideoSample) -> Path:
        return self.folder / "Annotations" / sample.video / sample.object_ids[0]

    def object_mask(self, values: np.ndarray, object_id: str) -> np.ndarray:
        return values != 0

    def score_sample(
        self, sample: VideoSample, pred: np.ndarray, present: np.ndarray, foreground: np.ndarray | None
    ) -> SampleScore:
        score = super().score_sample(sample, pred, present, foreground)
        ious = temporal_ious(pred, self.masks(sample)[0]) if present.any() else (0.0, 0.0)
        score.metrics["tIoU"], score.metrics["vIoU"] = ious
        return score
