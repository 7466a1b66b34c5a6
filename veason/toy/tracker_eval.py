"""How well a tracker follows the shapes of toy videos that nothing was trained on: mean IoU by distance from the
prompted frame.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from veason.toy.video import JPEG_QUALITY, ToyVideo
from veason.toy.world import make_videos
from veason.tracking.sam2.tracker import Prompt, VideoTracker

REACH = 5  # frames before and after the prompted one that are scored


@dataclass(frozen=True)
class Track:
    """One object to follow: the frame with the most of it, REACH frames away from both ends, and its box there."""

    shape: int
    prompted: int
    box: tuple[int, int, int, int]


def unseen_videos(count: int, seed: int = 0) -> list[ToyVideo]:
    """Videos of the toy world under a name of their own, so that no data set holds them, with frames as JPEG leaves
    them.
    """
    videos = make_videos("unseen", count, seed)
    return [
        ToyVideo(v.name, np.stack([_through_jpeg(f) for f in v.frames]), v.visible, v.facts, v.queries) for v in videos
    ]


def _through_jpeg(frame: np.ndarray) -> np.ndarray:
    _, coded = cv2.imencode(
        ".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )  # colours in another order, and back, are the same
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))


def tracks_of(video: ToyVideo) -> list[Track]:
    """Every object of which at least half can be seen in a frame that has REACH frames on both sides."""
    tracks = []
    for number, fact in enumerate(video.facts):
        share = np.array(fact.share)
        share[:REACH] = share[len(share) - REACH :] = 0
        best = int(share.argmax())
        box = fact.boxes[best]
        if box is not None and share[best] >= 0.5:
            tracks.append(Track(number, best, box))
    return tracks


def evaluate_tracker(tracker: VideoTracker, videos: Sequence[ToyVideo]) -> dict[str, float]:
    """Tracks every object through its whole video.

    Returns:
        Mean IoU, 1 where object and mask are both empty: `prompted`; `before` and `after`, REACH frames earlier and
        later; `between`, all frames up to there; `hidden`, REACH frames away for objects that are covered or out of the
        picture on the way. `tracks`, how many.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for video in videos:
        tracks = tracks_of(video)
        if not tracks:
            continue
        prompts = [Prompt(track.prompted, np.array([track.box], dtype=np.float32)) for track in tracks]
        for track, masks in zip(tracks, tracker.track_group(list(video.frames), prompts)):
            iou = _iou(masks, video.union([track.shape]))
            scores["prompted"].append(iou[track.prompted])
            share = video.facts[track.shape].share
            for name, step in (("before", -1), ("after", 1)):
                way = [track.prompted + step * distance for distance in range(1, REACH + 1)]
                scores[name].append(iou[way[-1]])
                scores["between"].extend(iou[way])
                if min(share[time] for time in way) == 0:
                    scores["hidden"].append(iou[way[-1]])
    figures = {name: round(float(np.mean(values)), 4) for name, values in scores.items()}
    return {**figures, "tracks": len(scores["prompted"])}


def _iou(masks: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[T] of masks and truth bool [T, H, W]."""
    union = (masks | truth).sum((1, 2))
    return np.where(union > 0, (masks & truth).sum((1, 2)) / np.maximum(union, 1), 1.0)
