"""The toy teacher: three steps that pass the checks of the real teacher, and say what is true."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from training_data_construction.seed_cot_generation import main as write_records
from training_data_construction.teacher_checks import check_answer
from veason.data import open_benchmark
from veason.errors import DataError
from veason.masks import scale_box
from veason.toy.teacher import ToyTeacher


@pytest.mark.parametrize(
    ("name", "folder", "split"),
    [("revos", "ReVOS", "train"), ("revos", "ReVOS", "valid"), ("reasonvos", "ReasonVOS", None)],
)
def test_every_expression_gets_reasoning_that_passes_the_checks(toy_root, name, folder, split):
    benchmark, teacher = open_benchmark(name, toy_root / folder, split), ToyTeacher(toy_root / folder, size=112)
    for sample in benchmark.samples:
        keyframe = int(np.argmax(benchmark.areas(sample)))
        text = teacher.reason(sample, keyframe, [keyframe])
        assert check_answer(text, keyframe, sample.expression) is None, text


def test_the_places_it_names_are_those_of_the_answer(toy_root, toy_videos):
    benchmark, teacher = open_benchmark("revos", toy_root / "ReVOS", "train"), ToyTeacher(toy_root / "ReVOS", size=112)
    videos = {video.name: video for video in toy_videos}
    checked = 0
    for sample in benchmark.samples:
        video = videos[sample.video]
        targets = video.queries[int(sample.exp_id)].targets
        for keyframe in range(len(sample.frames)):
            last = teacher.reason(sample, keyframe, [keyframe]).split("Step 3: ")[1]
            places = dict(re.findall(r"the (\w+ \w+) (\[[\d, ]+\])", last))
            seen = {fact.name: fact.boxes[keyframe] for fact in video.facts if fact.boxes[keyframe]}
            if any(video.facts[target].name in seen for target in targets):
                assert places == {
                    name: str([round(side) for side in scale_box(box, 120, 160, 112)]) for name, box in seen.items()
                }
                assert [json.loads(place)[0] for place in places.values()] == sorted(
                    json.loads(place)[0] for place in places.values()
                )
                meant = [f"the {video.facts[target].name}" for target in targets if video.facts[target].name in seen]
                assert last.endswith(f"The target is {' and '.join(meant)}.")
                checked += 1
            else:
                assert not places
    assert checked > 50


def test_an_absent_target_is_not_located(toy_root):
    benchmark, teacher = open_benchmark("revos", toy_root / "ReVOS", "train"), ToyTeacher(toy_root / "ReVOS", size=112)
    absent = [sample for sample in benchmark.samples if sample.type_id == 2]
    assert absent
    for sample in absent:
        assert teacher.reason(sample, 0, [0]).endswith("Nothing fits the description, so no object is to be located.")


def test_without_scenes_it_says_which_file_is_missing(tmp_path, toy_root):
    with pytest.raises(DataError, match=r"scenes\.json"):
        ToyTeacher(tmp_path, size=112)
    sample = open_benchmark("revos", toy_root / "ReVOS", "train").samples[0]
    with pytest.raises(DataError, match="a frame 99"):
        ToyTeacher(toy_root / "ReVOS", size=112).reason(sample, 99, [99])


def test_answers_for_frames_of_another_size_are_not_taken_up_again(toy_root, tmp_path, capsys):
    words = ["--teacher", "toy", "--data_root", str(toy_root / "ReVOS"), "--input_json", "meta_expressions_train_.json"]
    words += ["--output", str(tmp_path), "--no-llamafactory", "--keyframe_resize"]
    assert write_records([*words, "112"]) == 0 == write_records([*words, "112"])
    assert write_records([*words, "224"]) == 1
    assert "the journal's answer is about other frames" in capsys.readouterr().err
