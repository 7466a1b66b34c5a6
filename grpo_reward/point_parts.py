"""The rule for answers with points and several keyframes of an object, `veason_points`.

The parts are the corrected ones (`grpo_reward/strict_parts.py`) with every keyframe of the answer in the place of the
one:

| part | range | what |
| --- | --- | --- |
| format | 0-2 | the layout of the tags, and the share of well-formed entries |
| keyframe | 0-1 | mean over the keyframes named of the target's area there over its largest area |
| spatial | 0-1 | entries matched to the frame's ground-truth objects: sum of their scores over the larger count |
| consistency | 0-1 | IoU of the masks tracked from all entries with the ground-truth masks, over all sampled frames |

An entry's score against a ground-truth object is the mean of what it has: the IoU of the boxes, the share of its points
that are on the target and in the object's box, the share of its negative points that are off the target.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from grpo_reward.parsing import ParsedResponse
from grpo_reward.parts import RewardInput, box_ious, clip01
from grpo_reward.strict_parts import refusal_score, target_is_present
from veason.answers import MAX_BOXES, ObjectKeyframe, Point, matches_format
from veason.point_answers import parse_point_answer
from veason.tracking.tracker_prompts import FramePrompt, MultiObjectPrompt


def parse_points(text: str) -> ParsedResponse:
    """Parse as inference does with `answer_parser=points`."""
    answer = parse_point_answer(text)
    if answer.failure and not answer.num_listed:
        return ParsedResponse(matches_format(text), 0.0, None, None, 0, answer.failure)
    listed = min(answer.num_listed, MAX_BOXES)
    usable = sum(map(len, answer.objects))
    boxes = np.array(answer.boxes, dtype=np.float64).reshape(-1, 4)
    share = usable / listed if listed else 1.0
    return ParsedResponse(
        matches_format(text), share, answer.keyframe_timestamp, boxes, listed, answer.failure, answer.objects
    )


def points_keyframe_part(reward_input: RewardInput) -> float:
    """0 to 1: mean over the keyframes named of the target's area over its largest area, 0 for one that was not shown.

    For a target in no frame 1 when the answer names no object.
    """
    if not target_is_present(reward_input):
        return refusal_score(reward_input)
    areas = reward_input.ground_truth.masks.astype(bool).sum((1, 2))
    named, shown = entries_by_timestamp(reward_input), reward_input.ground_truth.timestamps
    positions = [shown.index(timestamp) for timestamp in named if timestamp in shown]
    return float(areas[positions].sum() / areas.max() / len(named)) if named else 0.0


def points_spatial_part(reward_input: RewardInput) -> float:
    """0 to 1: sum over the keyframes named of the matched entries' scores, over the larger of both counts.

    Entries that cannot be used, and those on frames that were not shown, count as predicted. For a target in no frame 1
    when the answer names no object.
    """
    if not target_is_present(reward_input):
        return refusal_score(reward_input)
    named, shown = entries_by_timestamp(reward_input), reward_input.ground_truth.timestamps
    found, count = 0.0, reward_input.parsed.num_predicted - sum(map(len, named.values()))
    for timestamp, entries in named.items():
        if timestamp not in shown:
            count += len(entries)
            continue
        position = shown.index(timestamp)
        true = np.array([box for box in reward_input.ground_truth.boxes[position] if np.any(box)], dtype=np.float64)[
            :MAX_BOXES
        ]
        count += max(len(entries), len(true))
        if len(true):
            scores = np.stack([entry_scores(each, true, reward_input.ground_truth.masks[position]) for each in entries])
            rows, columns = linear_sum_assignment(-scores)
            found += float(scores[rows, columns].sum())
    return clip01(found / count) if count else 0.0


def entry_scores(entry: ObjectKeyframe, true: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Scores [N] of an entry against the ground-truth boxes [N, 4] of its frame, whose target is `mask` [H, W]."""
    scores = []
    if entry.box is not None:
        ious = box_ious(np.array([entry.box], dtype=np.float64), true)[0]
        scores.append(np.nan_to_num(ious, nan=0.0, posinf=0.0, neginf=0.0))
    if entry.points:
        points = np.array(entry.points, dtype=np.float64)[:, None]
        inside = ((points >= true[None, :, :2]) & (points <= true[None, :, 2:] + 1)).all(-1)  # corners are pixels
        scores.append((inside & points_on_mask(entry.points, mask)[:, None]).mean(0))
    if entry.negative_points:
        beside = np.full(len(true), 1 - points_on_mask(entry.negative_points, mask).mean())
        scores.append(beside)
    return np.mean(scores, axis=0)


def points_on_mask(points: Sequence[Point], mask: np.ndarray) -> np.ndarray:
    """bool [P]: whether each point is in a pixel of the mask [H, W]."""
    height, width = mask.shape
    return np.array([0 <= x < width and 0 <= y < height and bool(mask[int(y), int(x)]) for x, y in points])


def points_tracker_prompt(reward_input: RewardInput) -> MultiObjectPrompt | None:
    """What is tracked: every entry on a frame that was shown, as at inference; nothing for a target in no frame."""
    if not target_is_present(reward_input):
        return None
    shown, objects = reward_input.ground_truth.timestamps, []
    for item in reward_input.parsed.objects:
        frames = [frame_prompt(each, shown.index(each.timestamp)) for each in item if each.timestamp in shown]
        if frames:
            objects.append(tuple(frames))
    return MultiObjectPrompt(tuple(objects)) if objects else None


def frame_prompt(entry: ObjectKeyframe, frame: int) -> FramePrompt:
    """An entry for the tracker, on the frame of this index."""
    given = [*entry.points, *entry.negative_points]
    labels = np.array([1] * len(entry.points) + [0] * len(entry.negative_points), dtype=int)
    box = None if entry.box is None else np.array(entry.box, dtype=np.float64)
    return FramePrompt(frame, box, np.array(given, dtype=np.float64).reshape(-1, 2), labels)


def entries_by_timestamp(reward_input: RewardInput) -> dict[int, list[ObjectKeyframe]]:
    """The answer's entries by the timestamp of their keyframe."""
    found: dict[int, list[ObjectKeyframe]] = {}
    for item in reward_input.parsed.objects:
        for each in item:
            found.setdefault(each.timestamp, []).append(each)
    return found
