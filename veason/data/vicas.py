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
from veason.data import annotation
from veason.data.annotation import located
from veason.data.base import Benchmark
from veason.data.sample import MissingFileError, VideoSample, read_json
from veason.data.scoring import score_masks
from veason.errors import DataError
from veason.masks import Rle
from veason.metrics.scores import PaperRows, SampleScore, paper_table
from veason.metrics.track_ap import track_ious, track_precisions

VERSIONS = ("v1.0", "v0.1")  # the newest one at hand is read
SPLITS_HINT = (
    "the splits lie in the benchmark's repository: git clone --depth 1 https://github.com/Ali2500/ViCaS && "
    "cp -r ViCaS/splits {root}/"
)


def find_version(root: Path) -> str:
    """The newest version of the annotations at hand."""
    return next((version for version in VERSIONS if (root / "annotations" / version).is_dir()), VERSIONS[0])


class ViCaS(Benchmark):
    name = "vicas"
    splits: ClassVar[dict[str, str]] = {split: f"splits/{{version}}/{split}.json" for split in ("val", "test", "train")}
    file_marks = ("annotations/*/*.json",)
    lists_every_frame = False
    paper: ClassVar[dict[str, PaperRows]] = {
        "val": paper_table(
            "J&F", ("LMPM", 8.4), ("VideoLISA", 10.7), ("Video-LLaVA-Seg†", 20.5), ("Veason-R1 (paper)", 24.5)
        ),
        "test": paper_table(
            "J&F", ("LMPM", 6.3), ("VideoLISA", 7.8), ("Video-LLaVA-Seg†", 16.5), ("Veason-R1 (paper)", 18.2)
        ),
    }
    # github.com/Ali2500/ViCaS, splits: 1,100 videos in v0.1 and 2,950 in v1.0, some of them perhaps without a prompt
    official_size: ClassVar[dict[str, tuple[str, int]]] = dict.fromkeys(("val", "test"), ("videos", 1000))
    extra_first = True
    note = (
        "† fine-tuned on ViCaS. The paper titles its column J&F, but its values for LMPM, VideoLISA and "
        "Video-LLaVA-Seg look like the benchmark's own mAP, the only score (with AP) that its evaluator computes."
    )

    @classmethod
    def split_file(cls, root: Path, split: str) -> str:
        return super().split_file(root, split).format(version=find_version(root))

    def read_samples(self) -> Iterator[VideoSample]:
        self.version = find_version(self.root)
        self._cached: tuple[str, dict[str, Any]] = ("", {})
        try:
            listed = read_json(self.meta_path)
        except MissingFileError as error:
            raise MissingFileError(f"{error}; {SPLITS_HINT.format(root=self.root)}") from error
        if not isinstance(listed, list) or not all(str(video_id).isdecimal() for video_id in listed):
            raise DataError(f"{self.meta_path} is not a list of video ids")
        for video_id in listed:
            video = f"{int(video_id):06d}"
            try:
                content = self.annotation(video)
            except MissingFileError as error:
                self.missing_videos[video] = str(error)
                continue
            with located(str(self.annotation_path(video))):
                yield from self._read_video(video, content)

    def _read_video(self, video: str, content: dict[str, Any]) -> Iterator[VideoSample]:
        names = [Path(entry["filename"]).stem for entry in content["segmentations"] if entry["is_gt"]]
        if not names:
            raise DataError(f"video {video} has no annotated frame")
        frames, folder = annotation.frame_names(names), self.root / "video_frames" / video
        height, width = (annotation.positive(side, "image_size") for side in content["image_size"])
        for number, referral in enumerate(content["object_referrals"]):
            with located(f"object_referrals {number}"):
                text, object_ids = annotation.text(referral, "prompt"), annotation.id_list(referral, "track_ids")
            name = f"{video}/{number}"
            yield VideoSample(name, video, str(number), text, folder, frames, height, width, 0, object_ids)

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

    def mask_problems(self, sample: VideoSample) -> list[str]:
        return []  # reading every annotation file again takes as long as opening them

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
