"""ViCaS (Athar et al., CVPR 2025), language-guided video instance segmentation.

    ROOT/video_frames/<video_id>/<frame>.jpg         six digits; 30 frames per second, as the benchmark's script writes
    ROOT/annotations/<version>/<video_id>.json       image_size, object_referrals [{prompt, track_ids}],
                                                     segmentations [{filename, is_gt, track_ids, mask_rles}]
    ROOT/splits/<version>/{val,test,train}.json      list of video ids

A sample's frames are those that people annotated (`is_gt`, one per second): these alone are scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from veason import masks
from veason.data.annotation import (
    as_ids,
    as_list,
    as_mapping,
    as_name,
    as_names,
    as_size,
    as_whole_number,
    check_expression,
    shorten,
)
from veason.data.base import UnknownObjectError, VideoBenchmark
from veason.data.mask_scores import score_masks
from veason.data.sample import VideoSample, read_json
from veason.errors import DataError, MissingFileError
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


class ViCaS(VideoBenchmark):
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
    # github.com/Ali2500/ViCaS, splits: 1,100 videos in v0.1 and 2,950 in v1.0, some of them perhaps without a prompt
    official_size: ClassVar[dict[str, tuple[str, int]]] = dict.fromkeys(("val", "test"), ("videos", 1000))
    extra_metrics_first = True
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
        for video_id in as_list(listed, f"{self.meta_path}: the list of videos"):
            video = shorten(video_id)
            try:
                video = f"{int(as_whole_number(video_id, 'a video')):06d}"
                content = self.annotation(video)
                frames = as_names(list(self._entries(content)), "its frames")
                height, width = as_size(*content["image_size"])
            except DataError as error:
                self.reject(video, video, f"{self.meta_path}: video {video}: {error}")
                continue
            folder = self.root / "video_frames" / video
            for number, referral in enumerate(content["object_referrals"]):
                try:
                    asked = as_mapping(referral, "it")
                    text = check_expression(asked.get("prompt"))
                    object_ids = as_ids(asked.get("track_ids"), "its track_ids")
                except DataError as error:
                    where = f"{self.annotation_path(video)}: referral {number}"
                    self.reject(f"{video}/{number}", video, f"{where}: {error}")
                    continue
                yield VideoSample(
                    f"{video}/{number}", video, str(number), text, folder, frames, height, width, 0, object_ids
                )

    def annotation(self, video: str) -> dict[str, Any]:
        """The annotation file of one video, whose form is checked; the last one read is kept."""
        if self._cached[0] != video:
            path = self.annotation_path(video)
            content = as_mapping(read_json(path), str(path))
            missing = {"image_size", "object_referrals", "segmentations"} - set(content)
            if missing:
                raise DataError(f"{path} has no {', '.join(sorted(missing))}")
            if len(as_list(content["image_size"], f"{path}: image_size")) != 2:
                raise DataError(f"{path}: image_size is not height and width")
            as_list(content["object_referrals"], f"{path}: object_referrals")
            self._entries(content, str(path))
            self._cached = (video, dict(content))
        return self._cached[1]

    def _entries(self, content: Mapping[str, Any], path: str = "") -> dict[str, Mapping[str, Any]]:
        """The entries of the frames that people annotated, by the frames' names. Raises DataError for a wrong form."""
        entries: dict[str, Mapping[str, Any]] = {}
        for number, value in enumerate(as_list(content["segmentations"], f"{path}: segmentations")):
            where = f"{path}: segmentation {number}"
            entry = as_mapping(value, where)
            if not isinstance(entry.get("is_gt"), (bool, int)):
                raise DataError(f"{where} has no is_gt")
            frame = PurePosixPath(as_name(entry.get("filename"), f"{where}: filename")).stem
            if not entry["is_gt"]:
                continue
            ids, rles = as_ids(entry.get("track_ids"), f"{where}: track_ids"), entry.get("mask_rles")
            if not isinstance(rles, list) or len(rles) != len(ids):
                raise DataError(f"{where} has {len(ids)} track_ids and mask_rles that are {shorten(rles)}")
            if frame in entries:
                raise DataError(f"{where}: frame {frame} stands there twice")
            entries[frame] = entry
        if not entries:
            raise DataError(f"{path} has no annotated frame")
        return entries

    def annotation_path(self, video: str) -> Path:
        folder = self.root / "annotations" / self.version
        named = sorted(folder.glob(f"{video}_*.json"))  # early releases carry the video's title in the name
        return named[0] if named else folder / f"{video}.json"

    def ground_truth_path(self, sample: VideoSample) -> Path:
        return self.annotation_path(sample.video)

    def read_masks(self, sample: VideoSample, frame_indices: Sequence[int]) -> list[list[Rle | None]]:
        entries = self._entries(self.annotation(sample.video))
        known = {str(track) for entry in entries.values() for track in entry["track_ids"]}
        if unknown := [object_id for object_id in sample.object_ids if object_id not in known]:
            raise UnknownObjectError(f"{self.ground_truth_path(sample)} has no masks for id {unknown[0]!r}")
        tracks: list[list[Rle | None]] = [[] for _ in sample.object_ids]
        for index in frame_indices:
            entry = entries[sample.frames[index]]
            found = {str(track): rle for track, rle in zip(entry["track_ids"], entry["mask_rles"])}
            for track, object_id in zip(tracks, sample.object_ids):
                try:
                    track.append(masks.as_rle(found.get(object_id)))
                except DataError as error:
                    where = f"{self.ground_truth_path(sample)}, frame {sample.frames[index]}"
                    raise DataError(f"{where}, id {object_id!r}: {error}") from error
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
