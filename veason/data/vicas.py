"""ViCaS (Athar et al., CVPR 2025), language-guided video instance segmentation.

    ROOT/video_frames/<video_id>/<frame>.jpg         six digits; 30 frames per second, as the benchmark's script writes
    ROOT/annotations/<version>/<video_id>.json       image_size, object_referrals [{prompt, track_ids}],
                                                     segmentations [{filename, is_gt, track_ids, mask_rles}]
    ROOT/splits/<version>/{val,test,train}.json      list of video ids

A sample's frames are those that people annotated (`is_gt`, one per second): these alone are scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from veason import masks
from veason.data.base import Benchmark
from veason.data.sample import VideoSample, read_json
from veason.data.scoring import score_masks
from veason.errors import DataError
from veason.masks import Rle
from veason.metrics.scores import PaperRows, SampleScore, paper_table
from veason.metrics.track_ap import track_ious, track_precisions

VERSIONS = ("v1.0", "v0.1")  # the newest one at hand is read


class ViCaS(Benchmark):
    name = "vicas"
    splits: ClassVar[dict[str, str]] = {split: f"splits/{{version}}/{split}.json" for split in ("val", "test", "train")}
    file_patterns = ("annotations/*/*.json",)
    lists_every_frame = False
    paper: ClassVar[dict[str, PaperRows]] = {
        "val": paper_table(
            "J&F", ("LMPM", 8.4), ("VideoLISA", 10.7), ("Video-LLaVA-Seg†", 20.5), ("Veason-R1 (paper)", 24.5)
        ),
        "test": paper_table(
            "J&F", ("LMPM", 6.3), ("VideoLISA", 7.8), ("Video-LLaVA-Seg†", 16.5), ("Veason-R1 (paper)", 18.2)
        ),
    }
    note = "† fine-tuned on ViCaS."

    def read_samples(self) -> Iterator[VideoSample]:
        self.version = next(
            (version for version in VERSIONS if (self.root / "annotations" / version).is_dir()), VERSIONS[0]
        )
        self.meta_path = Path(str(self.meta_path).format(version=self.version))
        self._cached: tuple[str, dict[str, Any]] = ("", {})
        for video_id in read_json(self.meta_path):
            video = f"{int(video_id):06d}"
            content = self.annotation(video)
            frames = tuple(sorted(Path(entry["filename"]).stem for entry in content["segmentations"] if entry["is_gt"]))
            if not frames:
                raise DataError(f"{self.meta_path}: video {video} has no annotated frame")
            height, width = content["image_size"]
            for number, referral in enumerate(content["object_referrals"]):
                object_ids = tuple(str(track) for track in referral["track_ids"])
                folder = self.root / "video_frames" / video
                text = referral["prompt"]
                yield VideoSample(
                    f"{video}/{number}",
                    video,
                    str(number),
                    text,
                    folder,
                    frames,
                    int(height),
                    int(width),
                    0,
                    object_ids,
                )

    def annotation(self, video: str) -> dict[str, Any]:
        """The annotation file of one video; the last one read is kept."""
        if self._cached[0] != video:
            path = self.annotation_path(video)
            content = read_json(path)
            missing = {"image_size", "object_referrals", "segmentations"} - set(content)
            if missing:
                raise DataError(f"{path} has no {', '.join(sorted(missing))}")
            self._cached = (video, content)
        return self._cached[1]

    def annotation_path(self, video: str) -> Path:
        folder = self.root / "annotations" / self.version
        named = sorted(folder.glob(f"{video}_*.json"))  # early releases carry the video's title in the name
        return named[0] if named else folder / f"{video}.json"

    def truth_path(self, sample: VideoSample) -> Path:
        return self.annotation_path(sample.video)

    def tracks(self, sample: VideoSample, frame_indices: Sequence[int]) -> list[list[Rle | None]]:
        entries = {Path(entry["filename"]).stem: entry for entry in self.annotation(sample.video)["segmentations"]}
        tracks: list[list[Rle | None]] = [[] for _ in sample.object_ids]
        for index in frame_indices:
            entry = entries[sample.frames[index]]
            found = {str(track): rle for track, rle in zip(entry["track_ids"], entry["mask_rles"])}
            for track, object_id in zip(tracks, sample.object_ids):
                track.append(masks.as_rle(found.get(object_id)))
        return tracks

    def score_sample(
        self, sample: VideoSample, pred: np.ndarray, present: np.ndarray, foreground: np.ndarray | None
    ) -> SampleScore:
        objects = self.masks(sample)
        score = score_masks(sample, pred, present, objects, foreground)
        score.track_ious = track_ious(pred, objects)
        return score

    @classmethod
    def extra_metrics(cls, scores: Sequence[SampleScore]) -> dict[str, float]:
        return track_precisions(scores)
