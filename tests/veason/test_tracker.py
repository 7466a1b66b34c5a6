"""The tracker against sam2's own video predictor, on random weights in fp32, and the bounds it keeps."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from sam2_models import (
    CPU,
    THREE_MASKS,
    make_boxes,
    make_clip,
    make_model,
    make_official,
    run_official,
    run_ours,
    write_config,
)

from veason.errors import DataError
from veason.tracking.sam2.compilation import CompileOptions, compile_dynamic
from veason.tracking.sam2.feature_window import FeatureWindow
from veason.tracking.sam2.loading import find_config, load_model
from veason.tracking.sam2.object_batch import BatchObject, ObjectBatch
from veason.tracking.sam2.preprocessing import MEAN, STD, preprocess_frames
from veason.tracking.sam2.propagation import MemoryConfig, plan_track_steps
from veason.tracking.sam2.tracker import Sam2Tracker
from veason.tracking.tracker_prompts import BoxPrompt


@pytest.fixture(
    scope="module",
    params=[(128, True), (128, False), (192, True)],
    ids=["128, three masks", "128", "192, short memory"],
)
def pair(request, tmp_path_factory):
    size, several = request.param
    config = write_config(tmp_path_factory.mktemp("sam2") / "tiny.yaml", size, **(THREE_MASKS if several else {}))
    model = make_model(config)
    return Sam2Tracker(model), make_official(config, model)


@pytest.mark.parametrize(
    ("total", "height", "width", "objects", "keyframe"),
    [
        (1, 40, 50, 1, 0),
        (5, 60, 80, 1, 0),
        (5, 60, 80, 3, 2),
        (5, 100, 70, 5, 4),
        (11, 48, 48, 2, 4),
        (19, 48, 64, 1, 18),
    ],
)
def test_equal_to_the_official_predictor(pair, total, height, width, objects, keyframe):
    tracker, official = pair
    frames, boxes = make_clip(total, height, width, seed=total), make_boxes(objects, height, width, seed=objects)
    expected = run_official(official, list(frames), keyframe, boxes)
    found = run_ours(tracker, frames, keyframe, boxes)
    assert (found - expected).abs().max() < 1e-3

    masks = tracker.track_group(frames, [BoxPrompt(keyframe, boxes)])[0]
    union = (expected > 0).any(1).numpy()
    assert (masks & union).sum() >= 0.999 * (masks | union).sum()


def test_the_weights_of_these_tests_show_and_hide_objects(pair):
    tracker, _ = pair
    logits = run_ours(tracker, make_clip(5, 60, 80), 2, make_boxes(8, 60, 80))
    hidden = (logits < -1000).flatten(2).all(2)
    assert 0 < hidden.float().mean() < 1
    assert 0.01 < (logits[~hidden] > 0).float().mean() < 0.99


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    config = write_config(tmp_path_factory.mktemp("sam2") / "tiny.yaml", 128, **THREE_MASKS)
    return Sam2Tracker(make_model(config))


def test_prompts_of_a_group_do_not_meet(tracker):
    """Together with other prompts, in chunks, on mixed keyframes or twice: the masks are those of the prompt alone."""
    frames = make_clip(5, 60, 80)
    prompts = [BoxPrompt(keyframe, make_boxes(2, 60, 80, seed=keyframe)) for keyframe in (0, 2, 4, 2)] + [
        BoxPrompt(3, make_boxes(1, 60, 80, seed=9))
    ]
    alone = [tracker.track_group(frames, [prompt])[0] for prompt in prompts]
    small = Sam2Tracker(tracker.network.model, max_objects=3)
    for found in (tracker.track_group(frames, prompts), small.track_group(frames, prompts)):
        assert all(masks.shape == (5, 60, 80) and masks.dtype == bool for masks in found)
        assert all(np.array_equal(masks, other) for masks, other in zip(found, alone, strict=True))


def test_clips_that_are_tracked_together_do_not_meet(tracker):
    """Of two lengths, one without prompts, one too long to be held: the masks are those of each clip alone."""
    lengths = (5, 3, 5, 18, 5)
    groups = []
    for number, length in enumerate(lengths):
        prompts = [BoxPrompt(k, make_boxes(2, 60, 80, seed=number + k)) for k in (0, length - 1, 0)]
        groups.append(
            (
                make_clip(length, 60, 80)[::-1] if number % 2 else make_clip(length, 60, 80),
                [] if number == 4 else prompts,
            )
        )
    bounded = Sam2Tracker(tracker.network.model, max_objects=4)
    for each in (tracker, bounded):
        found = each.track_groups_on_device(groups, (30, 40))
        for (frames, prompts), masks in zip(groups, found, strict=True):
            alone = tracker.track_group_on_device(frames, prompts, (30, 40))
            assert [tuple(mask.shape) for mask in masks] == [(len(frames), 30, 40)] * len(prompts)
            assert all(torch.equal(mask, other) for mask, other in zip(masks, alone, strict=True))


def test_prepared_frames_give_the_masks_and_are_not_encoded_again(tracker, monkeypatch):
    groups = [(make_clip(5, 60, 80), [BoxPrompt(1, make_boxes(2, 60, 80, seed=seed))]) for seed in range(2)]
    expected = [tracker.track_group_on_device(*group) for group in groups]
    prepared = [(tracker.encode_frames(frames), prompts) for frames, prompts in groups]
    assert all(np.array_equal(a, b) for a, b in zip(prepared[0][0], groups[0][0], strict=True))
    mixed = tracker.track_groups_on_device([groups[0], prepared[1]], (60, 80))  # one of them still to be encoded
    monkeypatch.setattr(tracker.network, "encode_images", None)
    for found in (tracker.track_groups_on_device(prepared, (60, 80)), mixed):
        for masks, others in zip(found, expected, strict=True):
            assert all(torch.equal(mask, other) for mask, other in zip(masks, others, strict=True))
    long = make_clip(tracker.max_frames + 1, 60, 80)
    assert tracker.encode_frames(long) is long  # is never held as a whole


def test_short_clips_go_through_the_network_together(tracker, monkeypatch):
    prompted = []
    segment = tracker.network.segment_prompts
    monkeypatch.setattr(
        tracker.network,
        "segment_prompts",
        lambda features, points, labels: prompted.append(len(points)) or segment(features, points, labels),
    )
    groups = [(make_clip(5, 60, 80), [BoxPrompt(1, make_boxes(2, 60, 80, seed=seed))]) for seed in range(3)]
    tracker.track_groups_on_device(groups, (60, 80))
    assert prompted == [6]
    monkeypatch.setattr(tracker.network, "batch_scale", 1)  # as at 1024 pixels: 16 frames have room
    tracker.track_groups_on_device([*groups, groups[0]], (60, 80))
    assert prompted == [6, 6, 2]


def test_frames_are_encoded_once_and_equal_boxes_tracked_once(tracker, monkeypatch):
    encoded, prompted = [], []
    encode, segment = tracker.network.encode_images, tracker.network.segment_prompts
    monkeypatch.setattr(tracker.network, "encode_images", lambda pixels: encoded.append(len(pixels)) or encode(pixels))
    monkeypatch.setattr(
        tracker.network,
        "segment_prompts",
        lambda features, points, labels: prompted.append(len(points)) or segment(features, points, labels),
    )
    boxes = make_boxes(3, 60, 80)
    tracker.track_group(
        make_clip(5, 60, 80),
        [BoxPrompt(1, boxes), BoxPrompt(1, boxes[:2]), BoxPrompt(1, boxes[1:]), BoxPrompt(2, boxes[:1])],
    )
    assert encoded == [5] and prompted == [4]


@pytest.mark.parametrize("keyframe", [0, 4, 9])
def test_a_video_in_chunks_is_the_clip(tracker, keyframe):
    frames = make_clip(10, 48, 64)
    prompt = BoxPrompt(keyframe, make_boxes(3, 48, 64))
    whole = tracker.track_group(frames, [prompt])[0]
    bounded = Sam2Tracker(tracker.network.model, max_objects=2, max_frames=4)
    steps = list(bounded.track_video(frames.__getitem__, len(frames), prompt))
    assert [frame for frame, _ in steps] == [*range(keyframe, 10), *range(keyframe - 1, -1, -1)]
    assert all(np.array_equal(masks, whole[frame]) for frame, masks in steps)
    assert np.array_equal(bounded.track_group(frames, [prompt])[0], whole)


def test_a_video_is_encoded_once_whatever_the_number_of_boxes(tracker, monkeypatch):
    encoded, encode = [], tracker.network.encode_images
    bounded = Sam2Tracker(tracker.network.model, max_objects=2, max_frames=3)
    monkeypatch.setattr(bounded.network, "encode_images", lambda pixels: encoded.append(len(pixels)) or encode(pixels))
    frames = make_clip(7, 32, 32)
    list(bounded.track_video(frames.__getitem__, 7, BoxPrompt(2, make_boxes(5, 32, 32))))
    assert encoded == [3, 3, 1]


def test_memory_does_not_grow_with_the_video(tracker):
    frames = make_clip(4, 32, 32)
    (prompt,) = BoxPrompt(20, np.array([[8.0, 8, 90, 90]])).objects
    batch = ObjectBatch(tracker.network, [BatchObject.make(prompt)], 40)
    window = FeatureWindow(tracker.network, lambda i: frames[i % 4], [*range(20, 40), *range(19, -1, -1)], 4)
    held = []
    for _ in batch.run(window):
        held.append((len(batch.memories), len(batch.pointers), len(window.rows)))
    config = tracker.network.memory_config
    assert max(memories for memories, _, _ in held) <= 2 * max(config.num_maskmem, config.max_pointers) + 1
    assert held[-1] == (0, 0, 4)


def test_frames_are_read_in_a_thread_and_its_errors_arrive(tracker):
    frames, threads = make_clip(9, 32, 32), set()

    def read(index):
        threads.add(threading.current_thread().name)
        if index == 7:
            raise OSError("frame 7 is broken")
        return frames[index]

    bounded = Sam2Tracker(tracker.network.model, max_frames=2)
    steps = bounded.track_video(read, 9, BoxPrompt(0, make_boxes(1, 32, 32)))
    with pytest.raises(OSError, match="frame 7 is broken"):
        list(steps)
    assert any(name.startswith("frames") for name in threads)


def test_boxes_that_are_none(tracker):
    frames = make_clip(3, 32, 32)
    broken = np.array([[np.nan, 0, 5, 5], [0, 0, np.inf, 5], [0, 0, 1e300, 4], [0, 0, 5e37, 4], [-5e37, 0, 4, 4]])
    prompts = [BoxPrompt(0, broken), BoxPrompt(1, make_boxes(1, 32, 32)), BoxPrompt(1, np.zeros((0, 4)))]
    found = tracker.track_group(frames, prompts)
    assert not found[0].any() and not found[2].any() and found[1].any()
    assert not any(masks.any() for _, masks in tracker.track_video(frames.__getitem__, 3, prompts[0]))
    far = BoxPrompt(0, np.array([[-9e28, -9e28, 9e28, 9e28], [0, 0, 2.0**70, 2.0**70]]))
    assert tracker.track_group(frames, [far])[0].shape == (3, 32, 32)
    with pytest.raises(ValueError, match="keyframe 3 is outside a clip of 3 frames"):
        tracker.track_group(frames, [BoxPrompt(3, make_boxes(1, 32, 32))])


@pytest.mark.parametrize("where", ["image_encoder", "memory_attention", "sam_mask_decoder.output_upscaling"])
def test_a_broken_model_is_an_error_and_no_empty_mask(tracker, where):
    model = copy.deepcopy(tracker.network.model)
    with torch.no_grad():
        next(model.get_submodule(where).parameters()).fill_(torch.nan)
    broken, frames, prompt = Sam2Tracker(model), make_clip(3, 32, 32), BoxPrompt(0, make_boxes(8, 32, 32))
    with pytest.raises(RuntimeError, match="not finite"):
        broken.track_group(frames, [prompt])
    with pytest.raises(RuntimeError, match="not finite"):
        list(broken.track_video(frames.__getitem__, 3, prompt))


def test_masks_in_another_grid_than_the_frames(tracker):
    """Boxes and masks at 28 x 20 for frames at twice the size."""
    frames, boxes = make_clip(3, 40, 56), make_boxes(2, 40, 56)
    small = tracker.track_group_on_device(frames, [BoxPrompt(1, boxes / 2)], (20, 28))[0]
    assert torch.equal(small, (run_ours(tracker, frames, 1, boxes, (20, 28)) > 0).any(1))


def test_the_same_masks_twice(tracker):
    frames, prompt = make_clip(4, 40, 40), BoxPrompt(2, make_boxes(2, 40, 40))
    first = tracker.track_group(frames, [prompt])[0]
    tracker.track_group(make_clip(6, 32, 32, seed=5), [BoxPrompt(0, make_boxes(4, 32, 32))])
    assert np.array_equal(tracker.track_group(frames, [prompt])[0], first)


def test_bf16_is_close(tracker):
    """Under autocast on the CPU; the dtypes of every step must fit together."""
    half = Sam2Tracker(copy.deepcopy(tracker.network.model), dtype=torch.bfloat16)
    frames, prompt = make_clip(4, 48, 48), BoxPrompt(1, make_boxes(3, 48, 48))
    found, exact = half.track_group(frames, [prompt])[0], tracker.track_group(frames, [prompt])[0]
    assert np.mean(found == exact) > 0.9


@pytest.mark.parametrize(("height", "width"), [(56, 56), (90, 40), (300, 500)])
def test_frames_are_resized_as_pillow_does(height, width):
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ours = preprocess_frames([frame], 128, CPU)[0]
    restored = (ours * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255
    pillow = torch.from_numpy(np.array(Image.fromarray(frame).resize((128, 128)))).permute(2, 0, 1)
    difference = (restored - pillow).abs()
    assert difference.max() < 1.01 and (difference > 0.5).float().mean() < 1e-3


def test_each_step_attends_to_the_memories_of_earlier_ones():
    config = MemoryConfig(num_maskmem=7, temporal_stride=1, max_pointers=16)
    for keyframe in range(7):
        steps = plan_track_steps([keyframe], 7, config)
        assert sorted(step.frame for step in steps) == list(range(7))
        for number, step in enumerate(steps):
            assert [used for used, _ in step.memories] == [used for used, _ in step.pointers] == list(range(number))
    far = plan_track_steps([0], 100, config)[60]
    assert far.memories == ((0, 0), (54, 1), (55, 2), (56, 3), (57, 4), (58, 5), (59, 6))
    assert [distance for _, distance in far.pointers] == [60, *range(15, 0, -1)]


def test_models_are_found_and_checked(tmp_path):
    assert find_config("configs/sam2.1/sam2.1_hiera_l.yaml").name == "sam2.1_hiera_l.yaml"
    with pytest.raises(DataError, match=r"sam2\.1_hiera_t"):
        find_config("sam3.yaml")
    config = write_config(tmp_path / "tiny.yaml", 128)
    with pytest.raises(DataError, match="nowhere"):
        load_model(config, tmp_path / "nowhere.pt", CPU)
    model = load_model(config, None, CPU)
    torch.save({"model": model.state_dict()}, tmp_path / "good.pt")
    loaded = Sam2Tracker.from_files(config, tmp_path / "good.pt").network.model
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    torch.save({"model": {"weight": torch.zeros(1)}}, tmp_path / "bad.pt")
    with pytest.raises(DataError, match=r"bad\.pt does not hold the weights") as error:
        load_model(config, tmp_path / "bad.pt", CPU)
    text = str(error.value).replace(str(tmp_path), "")
    assert "\n" not in text and len(text) < 500


def test_a_compiled_step_runs_while_another_thread_compiles():
    """As the scorer's thread does while the policy's layers are compiled; PyTorch's mark of tracing is global."""
    double = compile_dynamic(lambda x: 2 * x, backend="eager")
    tracing, done = threading.Event(), threading.Event()

    def traced(x):
        tracing.set()
        assert done.wait(60)
        return x + 1

    thread = threading.Thread(target=torch.fx.symbolic_trace, args=(traced,))
    thread.start()
    try:
        assert tracing.wait(60)
        assert torch.equal(double(torch.ones(3)), torch.full((3,), 2.0))
    finally:
        done.set()
        thread.join()


def test_after_the_warm_up_other_sizes_need_no_compilation(monkeypatch, tmp_path):
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **_: compile_with(call, backend="eager"))
    model = make_model(write_config(tmp_path / "tiny.yaml", 128, **THREE_MASKS))
    tracker = Sam2Tracker(model, compile_options=CompileOptions(image_encoder=False))
    counts = torch._dynamo.utils.counters["stats"]
    before = counts["unique_graphs"]
    tracker.warm_up()
    compiled = counts["unique_graphs"]
    assert compiled >= before + 8  # two numbers of objects, prompted and tracked masks, and the steps of memory

    def track():
        for total, prompts in ((6, [(0, 1)]), (5, [(3, 1), (1, 2), (4, 3), (0, 1)]), (2, [(1, 7)])):
            boxes = [BoxPrompt(keyframe, make_boxes(objects, 60, 80)) for keyframe, objects in prompts]
            tracker.track_group(make_clip(total, 60, 80), boxes)

    with ThreadPoolExecutor(1) as scorer:  # a thread of its own, as in training
        scorer.submit(track).result()
    assert counts["unique_graphs"] == compiled


@pytest.mark.gpu
def test_compiled_on_a_gpu(tmp_path):
    """What is shipped for large models on a GPU, on a small one: bf16, every step compiled."""
    config = write_config(tmp_path / "tiny.yaml", 128, **THREE_MASKS)
    model = make_model(config)
    frames, prompts = (
        make_clip(5, 60, 80),
        [BoxPrompt(keyframe, make_boxes(2, 60, 80, seed=keyframe)) for keyframe in range(4)],
    )
    exact = Sam2Tracker(copy.deepcopy(model)).track_group(frames, prompts)
    device = torch.device("cuda")
    plain = Sam2Tracker(copy.deepcopy(model).to(device)).track_group(frames, prompts)
    fast = Sam2Tracker(model.to(device), torch.bfloat16, compile_options=CompileOptions()).track_group(frames, prompts)
    for one, other, third in zip(exact, plain, fast, strict=True):
        assert np.mean(one == other) > 0.99 and np.mean(one == third) > 0.8
