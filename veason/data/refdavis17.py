"""Ref-DAVIS17 (Khoreva et al., ACCV 2018), in the layout that the field converts it to.

    ROOT/{train,valid}/JPEGImages/<video>/<frame>.jpg
    ROOT/{train,valid}/Annotations/<video>/<frame>.png                 object numbers
    ROOT/meta_expressions/{train,valid}/meta_expressions.json          expressions -> exp_id -> exp, obj_id

Every object is described four times: by two annotators, each after the first frame alone and after the full video.
Expressions stand object by object, so the number of the description is exp_id mod 4. A score is the mean over the four.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from veason.data.base import VideoSample
from veason.data.layouts import PngBenchmark

ANNOTATORS = 4


class RefDAVIS17(PngBenchmark):
    name = "refdavis17"
    splits: ClassVar[dict[str, str]] = {
        split: f"meta_expressions/{split}/meta_expressions.json" for split in ("valid", "train")
    }

    @property
    def folder(self) -> Path:
        return self.root / self.split

    def targets(
        self, video: str, meta: dict[str, Any], expression: dict[str, Any]
    ) -> tuple[int | None, tuple[str, ...]]:
        return 0, (str(expression["obj_id"]),)

    def annotator(self, sample: VideoSample) -> int:
        """Which of the four descriptions of its object a sample is, 0 to 3."""
        return int(sample.exp_id) % ANNOTATORS
