"""The teacher's tasks and images."""

import base64
import io

import numpy as np
import pytest
from fake_teacher import EXPRESSIONS, HEIGHT, VIDEOS, WIDTH, rectangle
from PIL import Image

from training_data_construction.teacher_tasks import annotated_frame_urls, plan_tasks, teacher_image_size
from training_data_construction.teachers import TeacherRequest, read_retry_after
from veason.data.revos import ReVOS
from veason.errors import DataError

SELECTED_FILE = "meta_expressions_train_select.json"


@pytest.fixture(scope="module")
def benchmark(revos):
    return ReVOS(revos, split="train", meta_file=SELECTED_FILE)


def test_plan_by_the_training_rule(benchmark):
    tasks, bad = plan_tasks(benchmark, seed=0)
    assert len(tasks) == VIDEOS * (EXPRESSIONS - 1)
    assert not bad
    for task in tasks:
        assert task.frame_ids == list(range(task.keyframe % 2, 12, 2))  # 8 frames of 12: a stride of 2
        assert task.keyframe in np.argsort(benchmark.areas(task.sample), kind="stable")[-5:]
    assert plan_tasks(benchmark, seed=0)[0] == tasks
    assert plan_tasks(benchmark, seed=1)[0] != tasks
    assert {task.example for seed in range(3) for task in plan_tasks(benchmark, seed=seed)[0]} == {0, 1, 2}


def test_random_choices_do_not_depend_on_other_samples(benchmark):
    everyone = {task.sample.sample_id: task for task in plan_tasks(benchmark, seed=0)[0]}
    some, _ = plan_tasks(benchmark, seed=0, exclude={"set/v0", "set/v2/1"})
    assert len(some) == len(everyone) - 4
    assert all(everyone[task.sample.sample_id] == task for task in some)


def test_the_limit_per_video(benchmark):
    tasks, _ = plan_tasks(benchmark, seed=0, include_no_target=True, max_per_video=2)
    assert [task.sample.exp_id for task in tasks] == ["0", "1"] * VIDEOS


def test_absent_targets_have_no_boxes(benchmark):
    tasks = [task for task in plan_tasks(benchmark, seed=0, include_no_target=True)[0] if task.absent]
    assert len(tasks) == VIDEOS
    assert all(
        not any(map(any, task.boxes)) and task.keyframe_boxes == [] and task.keyframe in task.frame_ids
        for task in tasks
    )


def test_nothing_to_ask_about(benchmark):
    with pytest.raises(DataError, match="no expression to ask about"):
        plan_tasks(benchmark, seed=0, exclude={f"set/v{video}" for video in range(VIDEOS)})


@pytest.mark.parametrize(
    ("frame", "shown"),
    [
        ((720, 1280), (360, 640)),
        ((1280, 720), (640, 360)),
        ((480, 480), (480, 480)),
        ((240, 320), (240, 320)),
        ((600, 600), (480, 480)),
    ],
)
def test_pictures_fit(frame, shown):
    assert teacher_image_size(*frame) == shown


def test_every_object_is_outlined_where_it_is(benchmark):
    """The outline of each object is red, also where another object lies over it."""
    task = next(task for task in plan_tasks(benchmark, seed=0)[0] if task.sample.exp_id == "2")
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))).astype(int)
        for url in annotated_frame_urls(task)
    ]
    for time, picture in zip(task.frame_ids, pictures, strict=True):
        assert picture.shape == (HEIGHT, WIDTH, 3)
        reddish = (picture[..., 0] > 150) & (picture[..., 1] < 130) & (picture[..., 2] < 130)
        expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
        for number in (0, 1):
            if box := rectangle(0, number, time):
                left, top, right, bottom = box
                expected[top : bottom + 1, [left, right]] = expected[[top, bottom], left : right + 1] = True
        assert reddish[expected].mean() > 0.9, time
        far = np.ones_like(expected)
        for y, x in np.argwhere(expected):
            far[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = False
        assert not reddish[far].any()


def test_one_picture_with_its_time_each(benchmark):
    task = plan_tasks(benchmark, seed=0)[0][0]
    content = TeacherRequest(task, example=0).content()
    assert [part["type"] for part in content] == ["text", "image_url"] * len(task.frame_ids) + ["text"]
    assert [part["text"] for part in content[:-1:2]] == [f"[{time} s]" for time in task.frame_ids]
    assert f"The frame at {task.keyframe} seconds is the keyframe" in content[-1]["text"]
    assert content[-1]["text"].count("Description:") == 1


def test_retry_after():
    assert read_retry_after(None) is None
    assert read_retry_after("2.5") == 2.5
    assert read_retry_after("-1") == 0.0
    assert read_retry_after("soon") is None
    assert read_retry_after("Mon, 01 Jan 2001 00:00:00 GMT") == 0.0
    assert read_retry_after("Mon, 01 Jan 2400 00:00:00 GMT") == 600.0  # the most that is waited
