"""SAM 3 with text prompts: equal to transformers' own loop and processor, in bounded memory; what is refused."""

import logging
import os
from contextlib import suppress

import numpy as np
import pytest
import torch
from sam2_models import CPU, make_clip
from transformers_models import SIDE, sam3_text, sam3_tokenizer, sam3_tracker_config

from grpo_reward.scorer import build_scorer, check_reward
from veason.errors import DataError
from veason.inference.segmenter import Segmenter
from veason.tracking import build_tracker, check_takes_boxes, check_tracker, takes_text
from veason.tracking.sam2.preprocessing import preprocess_frames
from veason.tracking.sam3_text.mask_operations import MaskOperations
from veason.tracking.sam3_text.text_session import CurrentFrame, TextSession
from veason.tracking.sam3_text.tracker import Sam3TextTracker
from veason.tracking.tracker_prompts import BoxPrompt, TextPrompt
from veason.tracking.transformers.loading import SAM3_PIXELS

# thresholds at which random weights find objects, lose them, and take some back
HOT = {
    "hotstart_delay": 4,
    "hotstart_unmatch_thresh": 4,
    "hotstart_dup_thresh": 2,
    "recondition_every_nth_frame": 3,
    "det_nms_thresh": 0.6,
}
TEXTS = ["the one", "a duck", "the boat on the left"]


@pytest.fixture(scope="module")
def tracker():
    return Sam3TextTracker(sam3_text(1, **HOT), sam3_tokenizer())


def own_masks(model, frames, text):
    """bool [T, H, W] as transformers' documentation has it: a session of the whole video, its loop, its processor."""
    from transformers import Sam3VideoProcessor
    from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoInferenceSession

    height, width = frames[0].shape[:2]
    processor = Sam3VideoProcessor.__new__(Sam3VideoProcessor)
    processor.tokenizer = sam3_tokenizer()
    pixels = preprocess_frames(frames, SIDE, CPU, SAM3_PIXELS)
    session = Sam3VideoInferenceSession(video=pixels, video_height=height, video_width=width, dtype=torch.float32)
    processor.add_text_prompt(session, text)
    masks, objects = np.zeros((len(frames), height, width), bool), []
    for found in model.propagate_in_video_iterator(session):
        outputs = processor.postprocess_outputs(session, found)
        masks[found.frame_idx] = outputs["masks"].any(0).numpy()
        objects.append(len(outputs["masks"]))
    return masks, objects


@pytest.mark.parametrize("seed", [1, 2])
def test_equal_to_transformers(seed):
    """All texts of a clip together, one at a time as a stream; objects come, go and are taken back."""
    frames, seen = make_clip(14, 48, 64), []
    tracker = Sam3TextTracker(sam3_text(seed, **HOT), sam3_tokenizer())
    together = tracker.track_group(frames, [TextPrompt(text) for text in (*TEXTS, TEXTS[0])])
    for text, found in zip(TEXTS, together):
        expected, objects = own_masks(sam3_text(seed, **HOT), frames, text)
        streamed = dict(tracker.track_video(frames.__getitem__, 14, TextPrompt(text)))
        assert np.mean(found == expected) > 0.9999
        assert np.mean(np.stack([streamed[frame] for frame in range(14)]) == expected) > 0.9999
        seen += objects
    assert np.array_equal(together[0], together[3])
    assert set(seen) == ({0, 1, 2, 3} if seed == 1 else {0, 1}) and any(masks.any() for masks in together)
    assert not np.array_equal(together[0], together[1])


def test_masks_in_another_grid_and_none_of_no_texts(tracker):
    frames = make_clip(6, 48, 64)
    ((small,), ()) = tracker.track_groups_on_device([(frames, [TextPrompt("a duck")]), (frames, [])], (24, 32))
    (whole,) = tracker.track_group(frames, [TextPrompt("a duck")])
    assert np.array_equal(small.numpy(), whole[:, ::2, ::2])


def test_a_frame_is_encoded_once_for_all_texts():
    model, encoded = sam3_text(), []
    encode = model.detector_model.get_vision_features
    model.detector_model.get_vision_features = lambda **other: encoded.append(1) or encode(**other)
    Sam3TextTracker(model, sam3_tokenizer()).track_group(make_clip(4, 32, 32), [TextPrompt(text) for text in TEXTS])
    assert len(encoded) == 4


def test_memory_does_not_grow_with_the_video():
    """Every frame is a keyframe of the tracked object here, which is the worst case."""
    model = sam3_text(
        score_threshold_detection=0.0,
        new_det_thresh=0.0,
        high_conf_thresh=-1e4,
        high_iou_thresh=0.0,
        assoc_iou_thresh=0.0,
        trk_assoc_iou_thresh=0.0,
        recondition_every_nth_frame=1,
        hotstart_delay=0,
        max_num_objects=1,
    )
    tracker, total, frames = Sam3TextTracker(model, sam3_tokenizer()), 30, make_clip(4, 32, 32)
    current = CurrentFrame(total)
    session, held, keyframes = TextSession(model, *tracker._tokens("a duck"), current), [], []
    for frame in range(total):
        current.pixels = preprocess_frames([frames[frame % 4]], SIDE, CPU)[0]
        tracker.features.next_frame()
        list(session.step(frame))
        (outputs,) = session.state.output_dict_per_obj.values()
        kept = [*outputs["cond_frame_outputs"].values(), *outputs["non_cond_frame_outputs"].values()]
        held.append(sum(each.numel() for output in kept for name, each in output.items() if name != "object_pointer"))
        keyframes.append(len(outputs["cond_frame_outputs"]))
        assert len(session.waiting) == 0 and len(session.state.obj_id_to_tracker_score_frame_wise) <= 1
    assert held[-1] == held[20] > 0 and keyframes[-1] > 20  # of each keyframe a pointer of 128 numbers is left


def test_a_broken_model_is_an_error_and_no_empty_mask():
    model = sam3_text()
    next(model.detector_model.vision_encoder.parameters()).data.fill_(torch.nan)
    with pytest.raises(RuntimeError, match=r"Sam3Model computed pred_\w+ that are not finite"):
        Sam3TextTracker(model, sam3_tokenizer()).track_group(make_clip(2, 32, 32), [TextPrompt("a duck")])


def test_bf16_runs():
    tracker = Sam3TextTracker(sam3_text(**HOT).to(torch.bfloat16), sam3_tokenizer())
    (masks,) = tracker.track_group(make_clip(8, 32, 32), [TextPrompt("a duck")])
    assert masks.shape == (8, 32, 32)


def test_a_long_text_is_cut_and_said(tracker, caplog):
    frames, long = make_clip(2, 32, 32), "the one that " * 8
    with caplog.at_level(logging.WARNING):
        tracker.track_group(frames, [TextPrompt(long), TextPrompt("short")])
    (line,) = [record.getMessage() for record in caplog.records if "cut off" in record.getMessage()]
    assert long in line and tracker._tokens(long)[0].shape == (1, 32)


def test_doubles_are_dropped_and_small_components_counted():
    ious = torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.0, 0.3], [0.0, 0.3, 1.0]])
    assert MaskOperations.generic_nms(ious, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist() == [1, 2]
    assert MaskOperations.generic_nms(ious, torch.tensor([0.9, 0.5, 0.1]), 0.2).tolist() == [0, 2]
    masks = torch.zeros(2, 1, 4, 6, dtype=torch.uint8)
    masks[0, 0, :2, :2] = 1
    masks[0, 0, 2, 2] = 1  # touches a corner
    masks[0, 0, 3, 5] = 1
    labels, counts = MaskOperations.cc_2d(masks)
    assert counts[0, 0].unique().tolist() == [0, 1, 5] and counts[0, 0, 0, 0] == counts[0, 0, 2, 2] == 5
    assert len(labels[0].unique()) == 3 and not labels[1].any() and not counts[1].any()


@pytest.mark.usefixtures("tracker")
def test_holes_and_sprinkles_of_masks_are_filled():
    """What transformers leaves out without its package; the tracker has put ours in its place."""
    from transformers.models.sam3_video.modeling_sam3_video import fill_holes_in_mask_scores, nms_masks

    scores = torch.full((1, 1, 12, 12), -5.0)
    scores[..., 1:7, 1:7] = 5
    scores[..., 3, 3] = -5
    scores[..., 10, 10] = 5
    filled = fill_holes_in_mask_scores(scores, max_area=2)
    assert filled[0, 0, 3, 3] > 0 and filled[0, 0, 10, 10] < 0 and (filled > 0).sum() == 36
    masks = torch.ones(2, 8, 8)
    assert nms_masks(torch.tensor([0.6, 0.9]), masks, 0.5, 0.5).tolist() == [False, True]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sam3")
    sam3_text(1, **HOT).save_pretrained(path)
    sam3_tokenizer().save_pretrained(path)
    return path


def test_a_checkpoint_is_loaded(folder, tracker):
    frames = make_clip(6, 48, 64)
    loaded = build_tracker("sam3_text", "cpu", max_frames=7, checkpoint=folder, max_objects=9)
    assert loaded.max_frames == 7 and loaded.model.max_num_objects == 9
    masks = [each.track_group(frames, [TextPrompt("a duck")])[0] for each in (loaded, tracker)]
    assert np.array_equal(*masks) and masks[0].any()
    check_tracker("sam3_text", {"checkpoint": "random", "config": folder, "dtype": "float32", "sam2_checkpoint": "no"})
    assert takes_text("sam3_text") and not takes_text("sam3")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "tracker_options.checkpoint is not set: give a folder of sam3_video"),
        ({"checkpoint": "/no"}, "no checkpoint at /no: config.json is missing"),
        ({"checkpoint": "random", "config": "sam3_video"}, "no tokenizer in sam3_video"),
        ({"checkpoint": "random", "config": "FOLDER", "max_object": 1}, "did you mean max_objects"),
        ({"chekpoint": "random"}, "did you mean checkpoint"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(folder, options, says):
    options = {key: folder if value == "FOLDER" else value for key, value in options.items()}
    with pytest.raises(DataError) as error:
        check_tracker("sam3_text", options)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_other_networks_and_folders_without_a_tokenizer_are_refused(tmp_path, folder):
    sam3_tracker_config().save_pretrained(tmp_path)
    with pytest.raises(DataError, match="is a sam3_tracker_video; fit are sam3_video"):
        check_tracker("sam3_text", {"checkpoint": "random", "config": tmp_path})
    for name in ("config.json", "model.safetensors"):
        with suppress(FileNotFoundError):
            os.unlink(tmp_path / name)
        os.link(folder / name, tmp_path / name)
    with pytest.raises(DataError, match=r"no tokenizer in .*: tokenizer\.json or vocab\.json is missing"):
        check_tracker("sam3_text", {"checkpoint": tmp_path})


def test_boxes_training_and_a_policy_are_refused(tracker, folder):
    with pytest.raises(DataError, match="Sam3TextTracker finds objects by a text and takes no boxes"):
        tracker.track_group(make_clip(2, 32, 32), [BoxPrompt(0, np.array([[0.0, 0, 9, 9]]))])
    with pytest.raises(DataError, match="takes no boxes"):
        list(tracker.track(None, 1, 0, np.zeros((1, 4))))
    with pytest.raises(ValueError, match="was given a text"):
        build_tracker("tests.veason.scripted_parts:BoxTracker").track_group(make_clip(1, 8, 8), [TextPrompt("x")])
    for refuse in (check_reward, build_scorer):
        with pytest.raises(DataError, match=r"worker\.reward\.tracker: sam3_text finds objects by the expression and"):
            refuse(tracker="sam3_text", tracker_options={"checkpoint": folder})
    assert check_reward("no_sam2", tracker="sam3_text") == {}  # a rule that tracks nothing
    with pytest.raises(DataError, match="Sam3TextTracker finds objects by the expression: it is used without a policy"):
        Segmenter(object(), tracker)
    check_takes_boxes("sam3", "nothing")
