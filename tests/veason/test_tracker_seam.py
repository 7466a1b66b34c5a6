"""A tracker of one method, by its path, wherever a tracker has a name; what is refused before anything is loaded."""

import numpy as np
import pytest
import torch

from veason.errors import DataError
from veason.tracking import build_tracker, check_tracker
from veason.tracking.base import BaseTracker, Tracker
from veason.tracking.tracker_prompts import BoxPrompt


class Moving(BaseTracker):
    """Fills its boxes, moved to the right by `speed` pixels per frame."""

    def __init__(self, device="cpu", speed=0):
        super().__init__(device)
        self.speed, self.calls = speed, 0

    def track(self, read_frame, total, keyframe, boxes):
        self.calls += 1
        for frame in range(total):
            mask = np.zeros(read_frame(frame).shape[:2], np.uint8)
            for x1, y1, x2, y2 in boxes.astype(int):
                shift = self.speed * (frame - keyframe)
                mask[y1:y2, max(x1 + shift, 0) : max(x2 + shift, 0)] = 255
            yield frame, mask


class Broken(BaseTracker):
    def __init__(self, device="cpu", frames=()):
        super().__init__(device)
        self.frames = frames

    def track(self, read_frame, total, keyframe, boxes):
        return ((frame, np.ones((4, 4), bool)) for frame in self.frames)


def make_function_tracker(device, speed):
    return Moving(device, speed)


FRAMES = np.zeros((3, 20, 40, 3), np.uint8)
BOX = np.array([[10.0, 4, 20, 8]])


def test_everything_follows_from_track():
    tracker: Tracker = build_tracker(f"{__name__}:Moving", "cpu", speed=5)
    first, second, none = tracker.track_group(
        FRAMES, [BoxPrompt(0, BOX), BoxPrompt(1, np.vstack([BOX, BOX + 8])), BoxPrompt(2, np.zeros((0, 4)))]
    )
    assert first.shape == (3, 20, 40) and first.dtype == bool and not none.any()
    assert [np.flatnonzero(mask.any(0))[0] for mask in first] == [10, 15, 20]
    assert second[1, 4:8, 10:20].all() and second[1, 12:16, 18:28].all() and second[1].sum() == 80
    streamed = dict(tracker.track_video(FRAMES.__getitem__, 3, BoxPrompt(0, BOX)))
    assert all(np.array_equal(streamed[index], first[index]) for index in range(3))


def test_boxes_and_masks_in_another_grid_than_the_frames():
    tracker = build_tracker(f"{__name__}:Moving")
    ((masks, again), ()) = tracker.track_groups_on_device(
        [(FRAMES, [BoxPrompt(0, BOX / 2), BoxPrompt(0, BOX / 2)]), (FRAMES, [])], (10, 20)
    )
    expected = torch.zeros(3, 10, 20, dtype=torch.bool)
    expected[:, 2:4, 5:10] = True
    assert torch.equal(masks, expected) and torch.equal(masks, again)
    assert tracker.calls == 1  # equal prompts are tracked once


def test_boxes_that_are_no_numbers_are_empty_masks():
    tracker = build_tracker(f"{__name__}:Moving")
    broken = np.array([[np.nan, 0, 5, 5], [0, 0, np.inf, 5]])
    assert not tracker.track_group(FRAMES, [BoxPrompt(0, broken)])[0].any() and tracker.calls == 0
    with pytest.raises(ValueError, match="keyframe 3 is outside a clip of 3 frames"):
        tracker.track_group(FRAMES, [BoxPrompt(3, BOX)])


@pytest.mark.parametrize(
    ("frames", "says"),
    [((0, 0), "gave frame 0 twice"), ((0, 7), "no such frame"), ((0, 2), "no mask for frame 1 of 3")],
)
def test_a_tracker_that_gives_wrong_frames_is_named(frames, says):
    tracker = Broken(frames=frames)
    with pytest.raises(ValueError, match=rf"Broken\.track gave .*{says}" if "gave" not in says else says):
        list(tracker.track_video(FRAMES.__getitem__, 3, BoxPrompt(0, BOX)))


def test_a_function_may_build_the_tracker_and_a_clip_s_length_may_be_bounded():
    tracker = build_tracker(f"{__name__}:make_function_tracker", "cpu", max_frames=7, speed=2)
    assert (tracker.speed, tracker.max_frames) == (2, 7)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("sam22", {}, "tracker: 'sam22' is unknown; did you mean sam2"),
        ("no.such:Thing", {}, "tracker: no.such:Thing cannot be imported"),
        (f"{__name__}:Moving", {"sped": 1}, "tracker_options.sped is unknown; did you mean speed"),
        (f"{__name__}:make_function_tracker", {}, "tracker_options.speed is not set"),
        ("sam2", {}, "sam2_checkpoint is not set: download weights for sam2_config=configs/sam2.1/sam2.1_hiera_l.yaml"),
        ("sam2", {"config": "configs/sam2.1/sam2.1_hiera_l.yaml"}, "sam2_checkpoint is not set"),
        ("sam2", {"sam2_config": "sam3.yaml", "sam2_checkpoint": "random"}, "sam2_config=sam3.yaml is no SAM 2 model"),
        (
            "sam2",
            {"config": "configs/sam2.1/sam2.1_hiera_l.yaml", "checkpoint": "/no"},
            "sam2_checkpoint=/no is no file",
        ),
        ("sam2", {"max_objekts": 3}, "tracker_options.max_objekts is unknown; did you mean max_objects"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(name, options, says):
    with pytest.raises(DataError) as error:
        check_tracker(name, options)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_what_can_be_built_is_accepted():
    check_tracker(f"{__name__}:Moving", {"speed": 2, "sam2_checkpoint": "/no"})  # a published key of another tracker
    check_tracker("sam2", {"sam2_config": "configs/sam2.1/sam2.1_hiera_l.yaml", "sam2_checkpoint": "random"})
