"""Mean IoU of a tracker on held-out toy videos, by distance from the prompted frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from veason.toy.toy_video import JPEG_QUALITY, ToyVideo
from veason.toy.world import make_videos
from veason.tracking.sam2.tracker import Sam2Tracker
from veason.tracking.tracker_prompts import BoxPrompt

MAX_DISTANCE = 5  # frames before and after the prompted one that are evaluated


@dataclass(frozen=True)
class TrackedObject:
    """One object to track: its most visible frame, MAX_DISTANCE or more frames from both ends, and its box there."""

    object_index: int
    prompted: int
    box: tuple[int, int, int, int]


def validation_videos(count: int, seed: int = 0) -> list[ToyVideo]:
    """Videos with a name, and so a seed, that no data set has; frames went through JPEG compression."""
    videos = make_videos("unseen", count, seed)
    return [
        ToyVideo(v.name, np.stack([_through_jpeg(f) for f in v.frames]), v.visible, v.facts, v.queries) for v in videos
    ]


def _through_jpeg(frame: np.ndarray) -> np.ndarray:
    # RGB passes as BGR in both directions.
    _, encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))


def find_tracked_objects(video: ToyVideo) -> list[TrackedObject]:
    """The objects that are at least half visible in a frame with MAX_DISTANCE frames on both sides."""
    tracks = []
    for number, fact in enumerate(video.facts):
        ratio = np.array(fact.visible_ratio)
        ratio[:MAX_DISTANCE] = ratio[len(ratio) - MAX_DISTANCE :] = 0
        best = int(ratio.argmax())
        box = fact.boxes[best]
        if box is not None and ratio[best] >= 0.5:
            tracks.append(TrackedObject(number, best, box))
    return tracks


def evaluate_tracker(tracker: Sam2Tracker, videos: Sequence[ToyVideo]) -> dict[str, float]:
    """Tracks every object through its whole video.

    Returns:
        Mean IoU, 1 where object and mask are both empty: `prompted`, on the prompted frame; `before` and `after`,
        MAX_DISTANCE frames earlier and later; `within`, on all frames up to there; `reappeared`, MAX_DISTANCE frames
        away for objects that are not visible in some frame on the way. `tracks`: the number of objects.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for video in videos:
        tracks = find_tracked_objects(video)
        if not tracks:
            continue
        prompts = [BoxPrompt(track.prompted, np.array([track.box], dtype=np.float32)) for track in tracks]
        for track, masks in zip(tracks, tracker.track_group(list(video.frames), prompts)):
            iou = _iou(masks, video.union([track.object_index]))
            scores["prompted"].append(iou[track.prompted])
            ratio = video.facts[track.object_index].visible_ratio
            for name, step in (("before", -1), ("after", 1)):
                indices = [track.prompted + step * distance for distance in range(1, MAX_DISTANCE + 1)]
                scores[name].append(iou[indices[-1]])
                scores["within"].extend(iou[indices])
                if min(ratio[index] for index in indices) == 0:
                    scores["reappeared"].append(iou[indices[-1]])
    metrics = {name: round(float(np.mean(values)), 4) for name, values in scores.items()}
    return {**metrics, "tracks": len(scores["prompted"])}


def _iou(masks: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """IoU per frame, [T], of masks and ground truth bool [T, H, W]."""
    union = (masks | ground_truth).sum((1, 2))
    return np.where(union > 0, (masks & ground_truth).sum((1, 2)) / np.maximum(union, 1), 1.0)
