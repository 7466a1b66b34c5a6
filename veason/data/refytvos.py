"""Ref-YouTube-VOS (Seo et al., ECCV 2020), as its challenge hands it out.

    ROOT/{train,valid}/JPEGImages/<video>/<frame>.jpg
    ROOT/meta_expressions/{train,valid,test}/meta_expressions.json     expressions -> exp_id -> exp, and in train obj_id
    ROOT/train/Annotations/<video>/<frame>.png                         object numbers; a server scores the other splits

The challenge's `valid` file also lists the videos of `test`; those are left out where the `test` file is at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from veason.data.annotation import as_mapping, as_number
from veason.data.layouts import PngBenchmark
from veason.data.sample import read_json


class RefYouTubeVOS(PngBenchmark):
    name = "refytvos"
    splits: ClassVar[dict[str, str]] = {
        split: f"meta_expressions/{split}/meta_expressions.json" for split in ("valid", "train", "test")
    }
    file_patterns = ("meta_expressions/*/meta_expressions.json",)
    archive_prefix = "Annotations/"

    @classmethod
    def matches(cls, root: Path) -> bool:
        # Ref-DAVIS17 has the same files, and masks of its `valid` split besides.
        return super().matches(root) and not (root / "valid" / "Annotations").exists()

    @property
    def has_truth(self) -> bool:
        return self.split == "train"

    @property
    def folder(self) -> Path:
        return self.root / self.split

    def targets(
        self, video: str, meta: dict[str, Any], expression: dict[str, Any]
    ) -> tuple[int | None, tuple[str, ...]]:
        return 0, (as_number(expression["obj_id"], "its obj_id"),) if self.has_truth else ()

    def read_videos(self) -> dict[str, dict[str, Any]]:
        videos = super().read_videos()
        test = self.root / self.splits["test"]
        if self.split == "valid" and test.is_file():
            hidden = as_mapping(as_mapping(read_json(test), str(test)).get("videos"), f"{test}: its list of videos")
            videos = {video: meta for video, meta in videos.items() if video not in hidden}
        return videos
