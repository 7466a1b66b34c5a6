"""Points beside boxes and several keyframes of an object: against sam2's own predictor, and on every path."""

import numpy as np
import pytest
from sam2_models import (
    THREE_MASKS,
    make_clip,
    make_model,
    make_object,
    make_official,
    run_official_objects,
    run_our_objects,
    write_config,
)

from veason.errors import DataError
from veason.tracking.base import BaseTracker
from veason.tracking.sam2.propagation import MemoryConfig, plan_track_steps, propagation_order
from veason.tracking.sam2.tracker import Sam2Tracker
from veason.tracking.tracker_prompts import BoxPrompt, FramePrompt, MultiObjectPrompt

CLOSE = 1e-5  # logits of these random weights are about 0.05


@pytest.fixture(scope="module", params=[128, 192], ids=["128", "192, short memory"])
def pair(request, tmp_path_factory):
    config = write_config(tmp_path_factory.mktemp("sam2") / "tiny.yaml", request.param, **THREE_MASKS)
    model = make_model(config)
    return Sam2Tracker(model), make_official(config, model)


@pytest.mark.parametrize(
    ("total", "keyframes", "points", "box"),
    [
        (4, (1,), 2, True),  # points beside a box
        (4, (2,), 1, False),  # one point: sam2 proposes three masks and takes the best
        (4, (0,), 3, False),
        (7, (1, 4), 0, True),  # two keyframes
        (9, (6, 2, 4), 2, True),  # in any order
        (13, (3, 11), 1, False),
    ],
)
def test_equal_to_the_official_predictor(pair, total, keyframes, points, box):
    tracker, official = pair
    frames = make_clip(total, 48, 64, seed=total)
    objects = [make_object(keyframes, 48, 64, points, box, seed) for seed in range(2)]
    expected = run_official_objects(official, list(frames), objects)
    assert (run_our_objects(tracker, frames, objects) - expected).abs().max() < CLOSE


def test_only_the_nearest_keyframes_are_attended_to(pair):
    """`max_cond_frames_in_attn`, which no released SAM 2 sets and SAM 3 does."""
    tracker, official = pair
    frames, objects = make_clip(9, 48, 64), [make_object((0, 2, 5, 7), 48, 64)]
    free = run_our_objects(tracker, frames, objects)
    tracker.network.model.max_cond_frames_in_attn = official.max_cond_frames_in_attn = 2
    limited = Sam2Tracker(tracker.network.model)
    tracker.network.model.max_cond_frames_in_attn = -1
    found = run_our_objects(limited, frames, objects)
    expected = run_official_objects(official, list(frames), objects)
    official.max_cond_frames_in_attn = -1
    assert (found - expected).abs().max() < CLOSE and (found - free).abs().max() > 100 * CLOSE


def mixed_objects():
    return [
        make_object((1,), 48, 64, 0, seed=1),
        make_object((1, 5), 48, 64, 2, seed=2),
        make_object((3,), 48, 64, 1, box=False, seed=3),
        make_object((0, 2, 6), 48, 64, 3, seed=4),
        make_object((4,), 48, 64, 0, seed=5),
    ]


def test_objects_of_one_batch_do_not_meet(pair):
    """Of different keyframes and numbers of points, some prompted while others are tracked already."""
    tracker, _ = pair
    frames, objects = make_clip(8, 48, 64), mixed_objects()
    together = run_our_objects(tracker, frames, objects)
    for number, item in enumerate(objects):
        assert (run_our_objects(tracker, frames, [item])[:, 0] - together[:, number]).abs().max() < CLOSE


def test_a_prompt_is_the_union_of_its_objects_held_and_streamed(pair):
    tracker, _ = pair
    frames, objects = make_clip(8, 48, 64), mixed_objects()
    prompt = MultiObjectPrompt(tuple(objects))
    union = (run_our_objects(tracker, frames, objects) > 0).any(1).numpy()
    bounded = Sam2Tracker(tracker.network.model, max_objects=2, max_frames=3)
    streamed = dict(bounded.track_video(frames.__getitem__, 8, prompt))
    assert sorted(streamed) == list(range(8))
    for found in (
        tracker.track_group(frames, [prompt])[0],
        bounded.track_group(frames, [prompt])[0],
        np.stack([streamed[frame] for frame in range(8)]),
    ):
        assert np.mean(found == union) > 0.999 and union.any()


def test_boxes_are_the_same_in_either_form(pair):
    tracker, _ = pair
    frames = make_clip(5, 48, 64)
    item = make_object((2,), 48, 64)
    boxes, objects = tracker.track_group(frames, [BoxPrompt(2, item[0].box[None]), MultiObjectPrompt((item,))])
    assert np.array_equal(boxes, objects) and boxes.any()


NO_NUMBER = FramePrompt(1, np.array([np.nan, 0, 5, 5]))
BESIDE = FramePrompt(1, None, np.array([[3.0, 3]]), np.array([0]))  # nothing says where the object is


@pytest.mark.parametrize("broken", [NO_NUMBER, BESIDE, FramePrompt(1)])
def test_what_cannot_be_tracked_is_left_out(pair, broken):
    tracker, _ = pair
    frames, good = make_clip(3, 32, 32), make_object((0,), 32, 32)
    alone, beside, both, nothing = tracker.track_group(
        frames, [MultiObjectPrompt(each) for each in ((good,), (good, (broken,)), ((*good, broken),), ((broken,),))]
    )
    assert np.array_equal(alone, beside) and np.array_equal(alone, both) and alone.any() and not nothing.any()


def test_prompts_that_the_code_got_wrong_are_refused(pair):
    tracker, frames = pair[0], make_clip(3, 32, 32)
    twice = make_object((1,), 32, 32) * 2
    with pytest.raises(ValueError, match="two prompts on one frame"):
        tracker.track_group(frames, [MultiObjectPrompt((twice,))])
    with pytest.raises(ValueError, match="keyframe 3 is outside a clip of 3 frames"):
        tracker.track_group(frames, [MultiObjectPrompt((make_object((0, 3), 32, 32),))])


class Boxes(BaseTracker):
    def track(self, read_frame, total, keyframe, boxes):
        for frame in range(total):
            mask = np.zeros(read_frame(frame).shape[:2], bool)
            for x1, y1, x2, y2 in boxes.astype(int):
                mask[y1:y2, x1:x2] = frame >= keyframe
            yield frame, mask


def test_a_tracker_of_one_method_takes_boxes_on_several_frames_and_refuses_points():
    frames = make_clip(4, 20, 30)
    objects = (FramePrompt(0, np.array([0, 0, 5, 5])),), (FramePrompt(2, np.array([10, 10, 20, 15])),)
    (masks,) = Boxes().track_group(frames, [MultiObjectPrompt(objects)])
    assert masks[:, :5, :5].all() and masks[2:, 10:15, 10:20].all() and not masks[:2, 10:15].any()
    assert not Boxes.takes_points and Sam2Tracker.takes_points
    with pytest.raises(DataError, match="Boxes takes boxes on one keyframe"):
        Boxes().track_group(frames, [MultiObjectPrompt((make_object((0,), 20, 30, 1),))])
    with pytest.raises(DataError, match="Boxes takes boxes on one keyframe"):
        Boxes().track_group(frames, [MultiObjectPrompt((make_object((0, 1), 20, 30),))])


def test_the_order_of_several_keyframes():
    assert propagation_order((5, 2), 7) == [2, 5, 3, 4, 6, 1, 0]
    config = MemoryConfig(num_maskmem=3, temporal_stride=1, max_pointers=16)
    steps = plan_track_steps((2, 5), 7, config)
    assert [step.prompted for step in steps] == [True, True, False, False, False, False, False]
    assert steps[2].memories == ((0, 0), (1, 0))  # frame 3: both keyframes, also the later one
    assert steps[2].pointers == ((0, 1),)  # but the pointer of the earlier one alone
    assert steps[4].memories == ((0, 0), (1, 0), (3, 1))  # frame 6: frame 4; frame 5 is a keyframe
    assert steps[4].pointers == ((0, 4), (1, 1), (2, 3), (3, 2))
