"""ViCaS (Athar et al., CVPR 2025), language-guided video instance segmentation.

    ROOT/video_frames/<video_id>/<frame>.jpg         six digits; 30 frames a second, as the benchmark's own script
    writes them ROOT/annotations/<version>/<video_id>.json       image_size, object_referrals [{prompt, track_ids}],
                                                     segmentations [{filename, is_gt, track_ids, mask_rles}]
    ROOT/splits/<version>/{val,test,train}.json      list of video ids

A sample's frames are those that people annotated (`is_gt`, one a second): these alone are scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from veason import masks
from veason.data.base import Benchmark, VideoSample, read_json
from veason.errors import DataError
from veason.masks import Rle

VERSIONS = ("v1.0", "v0.1")  # the newest one at hand is read


class ViCaS(Benchmark):
    name = "vicas"
    splits: ClassVar[dict[str, str]] = {split: f"splits/{{version}}/{split}.json" for split in ("val", "test", "train")}
    lists_every_frame = False

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
