"""transformers' trackers: the adapter against their own sessions, ours against them, with the same weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sam2_models import CPU, THREE_MASKS, make_clip, make_model, make_object, run_our_objects, write_config
from transformers_models import SIDE, edgetam, own_sessions, sam2_video, sam3_tracker, sam3_tracker_config, sam3_video

from tests.veason.toy.tracked_objects import find_tracked_objects
from veason.errors import DataError
from veason.toy.world import make_video
from veason.tracking import build_tracker, check_tracker
from veason.tracking.sam2.loading import load_model
from veason.tracking.sam2.preprocessing import preprocess_frames
from veason.tracking.sam2.tracker import Sam2Tracker
from veason.tracking.sam3.loading import to_sam2_base
from veason.tracking.sam3.tracker import Sam3Tracker
from veason.tracking.tracker_prompts import BoxPrompt, MultiObjectPrompt
from veason.tracking.transformers.loading import SAM3_PIXELS
from veason.tracking.transformers.object_session import ClipFeatures, ObjectSession
from veason.tracking.transformers.tracker import TransformersTracker

TOY = Path(__file__).parents[2] / "weights" / "toy_tracker"


def iou(one, other):
    return (one & other).sum() / max(1, (one | other).sum())


def mixed_objects(height=48, width=64):
    return [
        make_object((2,), height, width, 0, seed=1),
        make_object((2,), height, width, 3, seed=2),
        make_object((1, 6), height, width, 1, seed=3),
        make_object((5,), height, width, 1, box=False, seed=4),
    ]


@pytest.fixture(scope="module")
def trained():
    """The toy world's trained SAM 2, and transformers' with its weights."""
    ours = Sam2Tracker.from_files(TOY / "sam2_tiny.yaml", TOY / "sam2_tiny.safetensors", "cpu")
    return ours, TransformersTracker(sam2_video(ours.network.model))


@pytest.fixture(scope="module")
def sam3():
    return sam3_tracker()


def test_our_sam2_and_transformers_track_alike(trained):
    """A trained model on drawn videos; frames are resized by bicubic and by bilinear interpolation."""
    ours, theirs = trained
    for name in ("unseen_0002", "unseen_0005"):
        video = make_video(name, seed=0, frames=9)
        tracks = find_tracked_objects(video)[:2]
        prompts = [BoxPrompt(min(track.prompted, 8), np.array([track.box], np.float32)) for track in tracks]
        for one, other in zip(ours.track_group(video.frames, prompts), theirs.track_group(video.frames, prompts)):
            assert iou(one, other) >= 0.99 and one.any()


@pytest.mark.parametrize("several", [True, False], ids=["three masks", "one mask"])
def test_our_sam2_and_transformers_compute_the_same(several, tmp_path):
    config = write_config(tmp_path / "tiny.yaml", 128, **(THREE_MASKS if several else {}))
    model = make_model(config)
    theirs, ours = sam2_video(model, several=several), Sam2Tracker(model)
    ours.network.pixels = ours.network.pixels.__class__(resample="bilinear")
    frames, objects = make_clip(9, 48, 64), mixed_objects()
    expected = own_sessions(theirs, frames, objects)
    assert (run_our_objects(ours, frames, objects) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("total", "seed"), [(1, 0), (9, 1), (21, 2)])
def test_our_sam3_and_transformers_compute_the_same(sam3, total, seed):
    """Logits are up to 2 here; the memories of both are rounded to bf16."""
    frames = make_clip(total, 48, 64, seed=seed)
    last = total - 1
    objects = [
        make_object((last // 2,), 48, 64, 0, seed=1),
        make_object((last,), 48, 64, 2, seed=2),
        make_object(sorted({0, last // 3}), 48, 64, 1, seed=3),
        make_object((0,), 48, 64, 1, box=False, seed=4),
    ]
    expected = own_sessions(sam3, frames, objects)
    found = run_our_objects(Sam3Tracker(to_sam2_base(sam3)), frames, objects)
    there = expected > -1000
    assert torch.equal(there, found > -1000) and there.float().mean() > 0.2
    assert (found - expected)[there].abs().max() < 2e-3 and expected[there].std() > 0.1
    assert iou(found > 0, expected > 0) >= 0.999


@pytest.mark.parametrize("make", [sam3_tracker, edgetam], ids=["sam3", "edgetam"])
def test_the_adapter_is_transformers_own_sessions(make):
    """Of a group in shared sessions, in chunks of objects and frames, and as a stream."""
    model = make()
    frames, objects = make_clip(9, 48, 64), mixed_objects()
    expected = (own_sessions(model, frames, objects) > 0).numpy()
    prompts = [MultiObjectPrompt((item,)) for item in objects]
    bounded = TransformersTracker(model, max_objects=1, max_frames=4)
    for tracker in (TransformersTracker(model), bounded):
        for number, found in enumerate(tracker.track_group(frames, prompts)):
            assert iou(found, expected[:, number]) > 0.998 and found.any()
    union = dict(bounded.track_video(frames.__getitem__, 9, MultiObjectPrompt(tuple(objects))))
    assert iou(np.stack([union[frame] for frame in range(9)]), expected.any(1)) > 0.998


def test_frames_are_encoded_once_and_equal_objects_tracked_once(sam3, monkeypatch):
    encoded, decoded = [], []
    encode, decode = sam3.get_image_features, sam3._single_frame_forward
    monkeypatch.setattr(
        sam3, "get_image_features", lambda pixels, **other: encoded.append(len(pixels)) or encode(pixels, **other)
    )
    monkeypatch.setattr(sam3, "_single_frame_forward", lambda **other: decoded.append(1) or decode(**other))
    boxes = np.stack([each[0].box for each in (make_object((1,), 32, 32, seed=seed) for seed in range(2))])
    prompts = [BoxPrompt(1, boxes), BoxPrompt(1, boxes[:1]), BoxPrompt(3, boxes[1:])]
    tracker = TransformersTracker(sam3)
    first, second, _ = tracker.track_group(make_clip(5, 32, 32), prompts)
    assert encoded == [5] and len(decoded) == 3 * 5
    assert np.array_equal(first, first | second)


def test_memory_does_not_grow_with_the_video(sam3):
    total, frames = 60, make_clip(4, 32, 32)
    order = [*range(30, total), *range(29, -1, -1)]

    def read_pixels(wanted):
        return preprocess_frames([frames[frame % 4] for frame in wanted], SIDE, CPU)

    features = ClipFeatures(sam3, read_pixels, order, capacity=4, batch=2)
    objects = [tuple(each.scaled(np.full(2, SIDE / 32)) for each in make_object((30,), 32, 32))]
    session, held = ObjectSession(sam3, objects, total, features), []
    for frame in order:
        session.track(frame)
        (outputs,) = session.state.output_dict_per_obj.values()
        held.append(len(outputs["non_cond_frame_outputs"]))
        assert len(features.held) <= 4 and not session.state.frames_tracked_per_obj[0]
        assert set(outputs["cond_frame_outputs"][30]) == {"maskmem_features", "maskmem_pos_enc", "object_pointer"}
    assert max(held) <= 2 * 16 + 2


def test_a_broken_model_is_an_error_and_no_empty_mask():
    model = edgetam()
    next(model.vision_encoder.parameters()).fill_(torch.nan)
    with pytest.raises(RuntimeError, match=r"EdgeTamVideoModel computed .* not finite"):
        TransformersTracker(model).track_group(make_clip(2, 32, 32), [BoxPrompt(0, np.array([[2.0, 2, 9, 9]]))])


def test_bf16_is_close(sam3):
    frames, prompts = make_clip(4, 48, 64), [MultiObjectPrompt((make_object((1,), 48, 64, 2),))]
    exact = TransformersTracker(sam3).track_group(frames, prompts)[0]
    half = Sam3Tracker(to_sam2_base(sam3_tracker()), torch.bfloat16).track_group(frames, prompts)[0]
    theirs = TransformersTracker(sam3_tracker().to(torch.bfloat16)).track_group(frames, prompts)[0]
    # random weights magnify roundings from frame to frame; chance would be 0.5
    assert np.mean(half == exact) > 0.75 and np.mean(theirs == exact) > 0.75


def test_frames_are_resized_as_transformers_does():
    from transformers import Sam2VideoVideoProcessor

    frames = np.random.default_rng(0).integers(0, 256, (2, 90, 40, 3), dtype=np.uint8)
    theirs = Sam2VideoVideoProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3, size={"height": SIDE, "width": SIDE})
    expected = theirs(videos=torch.from_numpy(frames).permute(0, 3, 1, 2), return_tensors="pt").pixel_values_videos[0]
    difference = (preprocess_frames(list(frames), SIDE, CPU, SAM3_PIXELS) - expected).abs() * 127.5
    assert difference.max() < 1.01 and (difference > 0.5).float().mean() < 0.02  # of 255: roundings of halves


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Checkpoints as transformers writes them: of the tracker alone, and of the whole SAM 3."""
    root = tmp_path_factory.mktemp("checkpoints")
    sam3_tracker().save_pretrained(root / "tracker")
    sam3_video().save_pretrained(root / "whole")
    return root


@pytest.mark.parametrize("kind", ["tracker", "whole"])
def test_checkpoints_of_sam3_are_loaded_by_both(folders, kind):
    frames, prompts = make_clip(3, 32, 32), [MultiObjectPrompt((make_object((1,), 32, 32),))]
    masks = [
        build_tracker(name, "cpu", checkpoint=folders / kind).track_group(frames, prompts)[0]
        for name in ("sam3", "transformers")
    ]
    assert iou(*masks) > 0.998 and masks[0].any()


def test_our_sam2_loads_transformers_weights(trained, tmp_path):
    ours, theirs = trained
    theirs.model.save_pretrained(tmp_path)
    loaded = load_model(TOY / "sam2_tiny.yaml", tmp_path / "model.safetensors", CPU).state_dict()
    expected = ours.network.model.state_dict()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)


def test_random_weights_of_an_architecture(tmp_path):
    sam3_tracker_config().save_pretrained(tmp_path)
    tracker = build_tracker("sam3", "cpu", max_frames=5, checkpoint="random", config=tmp_path)
    assert tracker.max_frames == 5 and tracker.network.size == SIDE
    assert build_tracker("transformers", "cpu", checkpoint="random", config=tmp_path / "config.json").size == SIDE


def test_a_checkpoint_without_some_weights_is_refused(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(folders / "tracker" / "model.safetensors")
    del state[next(key for key in state if key.endswith("memory_encoder.projection.bias"))]
    (tmp_path / "config.json").write_text((folders / "tracker" / "config.json").read_text())
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    for name in ("sam3", "transformers"):
        with pytest.raises(DataError, match=r"does not hold the weights .* memory_encoder\.projection\.bias"):
            build_tracker(name, "cpu", checkpoint=tmp_path)


def test_another_architecture_than_sam2s_modules_have_is_refused():
    model = sam3_tracker()
    model.config.mask_decoder_config.num_attention_heads = 4
    with pytest.raises(DataError, match=r"num_attention_heads is 4, and sam2's modules have 8"):
        to_sam2_base(model)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("transformers", {}, "tracker_options.checkpoint is not set"),
        ("transformers", {"checkpoint": "/no"}, "no checkpoint at /no: config.json is missing"),
        ("transformers", {"checkpoint": "random"}, "tracker_options.config is not set"),
        ("transformers", {"checkpoint": "random", "config": "sam2_vidoe"}, "no checkpoint at sam2_vidoe"),
        ("sam3", {"checkpoint": "random", "config": "edgetam_video"}, "no checkpoint at edgetam_video"),
        ("sam3", {"checkpoint": "random", "config": "sam3_video", "max_frame": 1}, "did you mean max_frames"),
        ("sam3", {"checkpoint": str(TOY)}, "config.json is missing"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(name, options, says):
    with pytest.raises(DataError) as error:
        check_tracker(name, options)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_what_can_be_built_is_accepted(folders):
    check_tracker("transformers", {"checkpoint": "random", "config": "edgetam_video", "dtype": "bfloat16"})
    check_tracker("sam3", {"checkpoint": folders / "whole", "max_objects": 3, "dtype": "float32"})
