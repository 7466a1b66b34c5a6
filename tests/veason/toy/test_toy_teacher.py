"""The toy teacher: three steps that pass the checks of the real teacher, and say what is true."""

from __future__ import annotations

import re

import numpy as np
import pytest

from training_data_construction.teacher_checks import check_answer
from veason.datasets import open_benchmark
from veason.errors import DataError
from veason.toy.facts import region
from veason.toy.teacher import ToyTeacher


@pytest.mark.parametrize(
    ("name", "folder", "split"), [("revos", "ReVOS", "train"), ("revos", "ReVOS", "valid"), ("reasonvos", "ReasonVOS", None)]
)
def test_every_expression_gets_reasoning_that_passes_the_checks(toy_root, name, folder, split):
    benchmark, teacher = open_benchmark(name, toy_root / folder, split), ToyTeacher(toy_root / folder)
    for sample in benchmark.samples:
        keyframe = int(np.argmax(benchmark.areas(sample)))
        text = teacher.reason(sample, keyframe, [keyframe])
        assert check_answer(text, keyframe, sample.expression) is None, text


def test_the_place_it_names_is_where_the_target_is(toy_root, toy_videos):
    benchmark, teacher = open_benchmark("revos", toy_root / "ReVOS", "train"), ToyTeacher(toy_root / "ReVOS")
    videos = {video.name: video for video in toy_videos}
    checked = 0
    for sample in benchmark.samples:
        video = videos[sample.video]
        targets = video.queries[int(sample.exp_id)].targets
        for keyframe in range(len(sample.frames)):
            last = teacher.reason(sample, keyframe, [keyframe]).split("Step 3: ")[1]
            for target in targets:
                fact = video.facts[target]
                place = f"the {fact.name} [a-z ]+ in the {region(fact.boxes[keyframe])}\\b" if fact.boxes[keyframe] else None
                assert bool(place and re.search(place, last)) == (fact.boxes[keyframe] is not None)
                checked += 1
    assert checked > 50


def test_an_absent_target_is_not_located(toy_root):
    benchmark, teacher = open_benchmark("revos", toy_root / "ReVOS", "train"), ToyTeacher(toy_root / "ReVOS")
    absent = [sample for sample in benchmark.samples if sample.type_id == 2]
    assert absent
    for sample in absent:
        assert teacher.reason(sample, 0, [0]).endswith("Nothing fits the description, so no object is to be located.")


def test_without_scenes_it_says_which_file_is_missing(tmp_path, toy_root):
    with pytest.raises(DataError, match=r"scenes\.json"):
        ToyTeacher(tmp_path)
    sample = open_benchmark("revos", toy_root / "ReVOS", "train").samples[0]
    with pytest.raises(DataError, match="a frame 99"):
        ToyTeacher(toy_root / "ReVOS").reason(sample, 99, [99])
