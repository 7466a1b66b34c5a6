"""Ref-YouTube-VOS (Seo et al., ECCV 2020), as its challenge hands it out.

    ROOT/{train,valid}/JPEGImages/<video>/<frame>.jpg
    ROOT/meta_expressions/{train,valid,test}/meta_expressions.json     expressions -> exp_id -> exp, and in train obj_id
    ROOT/train/Annotations/<video>/<frame>.png                         object numbers; a server scores the other splits
    ROOT/train/mask_dict.pkl                                           or VISA's masks (see `veason.data.ref_vos`)

The challenge's `valid` file also lists the videos of `test`; those are left out where the `test` file is at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from veason.data.annotation import as_mapping
from veason.data.ref_vos import PICKLED, RefVOSBenchmark
from veason.data.sample import read_json


class RefYouTubeVOS(RefVOSBenchmark):
    name = "refytvos"
    splits: ClassVar[dict[str, str]] = {
        split: f"meta_expressions/{split}/meta_expressions.json" for split in ("valid", "train", "test")
    }
    file_patterns = ("meta_expressions/*/meta_expressions.json",)
    archive_prefix = "Annotations/"
    missing_hint = (
        "; the challenge's `valid` file also lists the videos of its `test` split, which are left out where "
        "meta_expressions/test/meta_expressions.json is at hand"
    )

    @classmethod
    def matches(cls, root: Path) -> bool:
        # Ref-DAVIS17 has the same files, and masks of its `valid` split besides.
        return super().matches(root) and not any((root / "valid" / name).exists() for name in ("Annotations", PICKLED))

    @property
    def has_ground_truth(self) -> bool:
        return self.split == "train"

    def read_videos(self) -> dict[str, dict[str, Any]]:
        videos = super().read_videos()
        test = self.root / self.splits["test"]
        if self.split == "valid" and test.is_file():
            hidden = as_mapping(as_mapping(read_json(test), str(test)).get("videos"), f"{test}: its list of videos")
            videos = {video: meta for video, meta in videos.items() if video not in hidden}
        return videos
