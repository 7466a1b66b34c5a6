"""The layout that Ref-YouTube-VOS and Ref-DAVIS17 share: one target an expression, masks as PNGs of object numbers.

    ROOT/<split>/JPEGImages/<video>/<frame>.jpg
    ROOT/<split>/Annotations/<video>/<frame>.png                    object numbers; or, as VISA hands it out,
    ROOT/<split>/mask_dict.pkl                                      number of an expression -> one RLE or null per frame
    ROOT/meta_expressions/<split>/meta_expressions.json             expressions -> exp_id -> exp, obj_id

VISA (github.com/cilinyan/VISA, utils/d2_datasets/refytvos_utils.py) numbers the expressions of its mask_dict.pkl in the
order of sorted videos and, in each, of sorted exp_ids, both as texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from veason.data.annotation import as_object_number
from veason.data.layouts import PngBenchmark, Targets
from veason.data.mask_index import MaskIndex
from veason.data.sample import VideoSample
from veason.errors import DataError
from veason.masks import Rle

PICKLED = "mask_dict.pkl"


class RefVOSBenchmark(PngBenchmark):
    """PNGs of object numbers, or VISA's mask_dict.pkl where there are none."""

    @property
    def folder(self) -> Path:
        return self.root / self.split

    @cached_property
    def pickled(self) -> MaskIndex | None:
        """VISA's masks; None where there are PNGs."""
        path = self.folder / PICKLED
        return MaskIndex.open(path) if path.is_file() and not (self.folder / "Annotations").is_dir() else None

    @cached_property
    def numbers(self) -> dict[tuple[str, str], str]:
        """(video, exp_id) -> the expression's number in mask_dict.pkl."""
        asked = []
        for video, meta in sorted(self.read_videos().items()):
            expressions = meta.get("expressions") if isinstance(meta, dict) else None
            asked += [(video, exp_id) for exp_id in sorted(expressions)] if isinstance(expressions, dict) else []
        return {pair: str(number) for number, pair in enumerate(asked)}

    def parse_targets(self, video: str, meta: dict[str, Any], expression: dict[str, Any]) -> Targets:
        return 0, (as_object_number(expression["obj_id"], "its obj_id"),) if self.has_ground_truth else ()

    def ground_truth_path(self, sample: VideoSample) -> Path:
        return self.pickled.source if self.pickled is not None else super().ground_truth_path(sample)

    def build_index(self) -> None:
        if self.pickled is None:
            super().build_index()
        elif self.has_ground_truth:
            len(self.pickled)

    def mask_size(self, sample: VideoSample) -> tuple[int, int] | None:
        if not self.has_ground_truth or self.pickled is None:
            return super().mask_size(sample)
        track = self.pickled.summaries.get(self.numbers[sample.video, sample.exp_id])
        return track.size if track is not None else None

    def read_masks(self, sample: VideoSample, frame_indices: Sequence[int]) -> list[list[Rle | None]]:
        if self.pickled is None:
            return super().read_masks(sample, frame_indices)
        if problems := self.ground_truth_problems(sample):
            raise DataError(problems[0])
        track = self.pickled[self.numbers[sample.video, sample.exp_id]]
        return [[track[index] for index in frame_indices]]

    def ground_truth_problems(self, sample: VideoSample) -> list[str]:
        if not self.has_ground_truth or self.pickled is None:
            return super().ground_truth_problems(sample)
        number = self.numbers[sample.video, sample.exp_id]
        where, track = f"{self.pickled.source}: expression {number}", self.pickled.summaries.get(number)
        if track is None:
            return [f"{where} has no masks"]
        if track.damage:
            return [f"{where}, {track.damage}"]
        if track.frames != len(sample.frames):
            return [f"{where} has {track.frames} masks, the video has {len(sample.frames)} frames"]
        return []
