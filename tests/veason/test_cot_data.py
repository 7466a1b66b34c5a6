"""Chains of thought as training data: the trainer's protocol, the ground truth beside the answer, and what is wrong
with a file of records.
"""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from training_data_construction.cot_records import build_record
from training_data_construction.teacher_tasks import plan_tasks
from veason import masks
from veason.answers import format_answer, parse_answer
from veason.data.cot import CoTData
from veason.data.training import build_training_data
from veason.data.training_split import open_training_split
from veason.errors import DataError
from veason.prompts import build_messages

FRAMES, HEIGHT, WIDTH, SIZE = 6, 24, 32, 56


@pytest.fixture
def root(tmp_path):
    """ReVOS with one video whose name holds a folder, and two objects."""
    root = tmp_path / "ReVOS"
    folder = root / "JPEGImages" / "set" / "v0"
    folder.mkdir(parents=True)
    tracks: list[list] = [[], []]
    for index in range(FRAMES):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 40 * index, dtype=np.uint8)).save(folder / f"{index:05d}.jpg")
        for number, track in enumerate(tracks):
            mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            mask[4 : 10 + number, 2 + index : 12 + index] = 1
            rle = masks.encode(mask)
            track.append(
                {"size": list(rle["size"]), "counts": rle["counts"].decode()} if (number, index) != (1, 4) else None
            )
    (root / "mask_dict.json").write_text(json.dumps({"7": tracks[0], "8": tracks[1]}))
    return root


def record(root, exp_id="0", frame_ids=(0, 2, 4), **change):
    frames = [f"{index:05d}" for index in range(FRAMES)]
    answer = format_answer("Step 1: a. Step 2: b. Step 3: c.", frame_ids[1], [[1.5, 2.5, 30, 40]])
    return {
        "video": "set/v0",
        "exp_id": exp_id,
        "exp": "The Thing.",
        "anno_id": [7, 8],
        "frames": frames,
        "frame_ids": list(frame_ids),
        "sampled_video_frames": [str(root / "JPEGImages" / "set" / "v0" / f"{index:05d}.jpg") for index in frame_ids],
        "conversation": [{"from": "human", "value": "whatever stood here"}, {"from": "gpt", "value": answer}],
        **change,
    }


def write(root, records, name="cot.json"):
    (root / name).write_text(json.dumps(records))
    return root / name


def test_example_with_answer_and_truth(root):
    write(root, [record(root), record(root, "1", (1, 4))])
    data = build_training_data(
        name="cot", train_files=str(root), meta_file="cot.json", keyframe_resize=SIZE, rollout_batch_size=4
    )
    assert len(data) == 2
    assert data.sample_id(1) == "set/v0/1"
    messages, sizes = data.messages_and_sizes(0, seed=3)
    example = data.example(0, seed=5)
    assert messages == example.messages == build_messages("the thing", [0, 2, 4], None, (SIZE, SIZE))
    assert sizes == [(SIZE, SIZE)] * 3 == [image.size for image in example.images]
    assert np.asarray(example.images[1]).mean() == pytest.approx(80, abs=1)
    answer = parse_answer(example.response)
    assert (answer.keyframe_timestamp, answer.boxes) == (2, ((1.5, 2.5, 30.0, 40.0),))
    assert example.ground_truth.timestamps == [0, 2, 4]
    assert example.ground_truth.masks.shape == (3, SIZE, SIZE)
    assert example.ground_truth.masks.any(axis=(1, 2)).all()
    x, y = SIZE / WIDTH, SIZE / HEIGHT
    assert example.ground_truth.boxes[2][0] == pytest.approx([6 * x + 0.5, 4 * y + 0.5, 15 * x + 0.5, 9 * y + 0.5])
    assert example.ground_truth.boxes[2][1] == [0, 0, 0, 0]


def test_any_worker_builds_the_same(root):
    data = CoTData(write(root, [record(root)]), keyframe_resize=SIZE)
    first, second = data.example(0, 0), pickle.loads(pickle.dumps(data)).example(0, 9)
    assert first.response == second.response
    assert all(np.array_equal(a, b) for a, b in zip(first.images, second.images, strict=True))


def test_records_may_lie_anywhere(root, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = write(elsewhere, [record(root)])
    for data in (CoTData(path, keyframe_resize=SIZE), CoTData(root, meta_file=path, keyframe_resize=SIZE)):
        assert data.benchmark.root == root
        assert data.example(0, 0).ground_truth is not None


def test_absent_targets_are_scored_too(root):
    refusal = [{"from": "human", "value": ""}, {"from": "gpt", "value": format_answer("Nothing fits.", 2, [])}]
    example = CoTData(
        write(root, [record(root, type_id=2, anno_id=[], conversation=refusal)]), keyframe_resize=SIZE
    ).example(0, 0)
    assert parse_answer(example.response).boxes == ()
    assert example.ground_truth.boxes == [[[0, 0, 0, 0]]] * 3
    assert not example.ground_truth.masks.any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frame_ids": [0, 6]}, r"set/v0/0: frame_ids 0 to 6 of a video of 6 frames"),
        ({"conversation": [{"from": "gpt", "value": "x"}]}, "record 0: its conversation is not one human turn"),
        ({"anno_id": [99]}, "99"),
        ({"keyframe_resize": 560}, "boxes are for frames of 560 pixels, data.keyframe_resize is 56"),
        ({"video": "set/v9"}, "v9"),
    ],
)
def test_bad_records_are_named(root, change, said):
    with pytest.raises(DataError, match=said):
        CoTData(write(root, [record(root, **change)]), keyframe_resize=SIZE)


def test_bad_files_are_named(root):
    with pytest.raises(DataError, match="record 1: it has no exp, frame_ids"):
        CoTData(
            write(root, [record(root), {k: v for k, v in record(root, "1").items() if k not in ("exp", "frame_ids")}])
        )
    with pytest.raises(DataError, match="two records"):
        CoTData(write(root, [record(root), record(root)]))
    with pytest.raises(DataError, match="an object of 1, not a list"):
        CoTData(root, meta_file=write(root, {"videos": {}}))
    with pytest.raises(DataError, match=r"data\.meta_file is not set"):
        CoTData(root)
    with pytest.raises(DataError, match=r"nothing\.json"):
        CoTData(root, meta_file="nothing.json")


def test_a_broken_frame(root):
    path = root / "JPEGImages" / "set" / "v0" / "00002.jpg"
    path.write_bytes(path.read_bytes()[:200])
    records = [record(root), record(root, "1", (1, 3))]
    with pytest.raises(DataError, match=r"00002\.jpg"):
        CoTData(write(root, records), keyframe_resize=SIZE).example(0, 0)
    skipping = CoTData(write(root, records), keyframe_resize=SIZE, on_bad_sample="skip")
    assert skipping.example(0, 0).sample_id == "set/v0/1"
    assert list(skipping.skipped_samples) == ["set/v0/0"]


def test_records_of_another_benchmark(reasonvos):
    """The teacher plans on any benchmark; its records are examples with that benchmark's ground truth."""
    tasks, bad = plan_tasks(open_training_split("reasonvos", reasonvos), seed=0, sampled_frames=3)
    assert not bad and [task.sample.sample_id for task in tasks] == ["burst_v_3/0", "burst_v_5/0"]
    path = reasonvos / "cot.json"
    path.write_text(json.dumps([build_record(task, "Step 1.", size=SIZE) for task in tasks[1:]]))
    section = {"train_files": str(reasonvos), "meta_file": "cot.json", "keyframe_resize": SIZE}
    data = build_training_data(name="cot", options={"benchmark": "reasonvos"}, **section)
    assert [data.sample_id(index) for index in range(len(data))] == ["burst_v_5/0"]  # the same exp_id as burst_v_3/0
    example = data.example(0, 0)
    assert parse_answer(example.response).keyframe_timestamp == tasks[1].keyframe
    assert example.ground_truth.timestamps == tasks[1].frame_ids and example.ground_truth.masks.any()
