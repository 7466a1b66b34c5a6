"""`veason data describe`: expressions for masks, with the checks, budget and journal of the teacher."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from fake_teacher import Failure, read_journal
from PIL import Image

from tests.veason.importing.drawn import VIDEOS, captions, read_set, run, write_png_source
from training_data_construction.expression_generation import main
from training_data_construction.expression_prompts import check_expressions
from veason.data.training import KeyframeTrainingData


@pytest.fixture
def imported(tmp_path):
    """Two videos with two objects each and no expression."""
    assert run(write_png_source(tmp_path / "in"), "--output", tmp_path / "data", "--val_ratio", 0.5) == 0
    return tmp_path / "data"


def answer(number, _question=""):
    """Expressions of their own for each request."""
    texts = [f"the square of request {number}", f"a shape that was asked for as number {number}"]
    return json.dumps({"referring": texts, "reasoning": [f"who was meant by question {number}"]})


def describe(data, server, *more):
    url = ["--base_url", server.url, "--model", "teacher", "--first_delay", "0.01", "--workers", "2"]
    try:
        return main([str(data), *url, *map(str, more)])
    except SystemExit as stop:
        return int(stop.code or 0)


def test_every_object_gets_expressions_that_can_be_trained_on(imported, server, capsys):
    server.misbehave = answer
    assert describe(imported, server) == 0
    assert "4 objects described by 12 expressions, 0 rejected, 0 open; 4 requests" in capsys.readouterr().out
    for video in VIDEOS:
        found = list(read_set(imported)[video]["expressions"].values())
        assert [each["type_id"] for each in found] == [0, 0, 1] * 2
        assert [each["anno_id"] for each in found] == [[f"{video}/1"]] * 3 + [[f"{video}/2"]] * 3
        assert {each["written_by"] for each in found} == {"teacher"}
    assert "| expressions | 12 written by teacher |" in (imported / "README.md").read_text(encoding="utf-8")
    data = KeyframeTrainingData(imported, keyframe_resize=56)
    assert len(data) == 6 and data.example(0, 0).ground_truth.masks.any()


def test_the_teacher_sees_the_object_outlined_in_red(imported, server):
    server.misbehave = answer
    assert describe(imported, server) == 0
    content = server.heard[0]["messages"][0]["content"]
    pictures = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    assert len(pictures) == 6  # every second of twelve frames
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[0].partition(",")[2])))).astype(int)
    red = (picture[..., 0] > 200) & (picture[..., 1:] < 90).all(-1)
    assert red.sum() > 20
    assert '"referring": [2 texts], "reasoning": [1 texts]' in content[-1]["text"]


def test_expressions_of_ones_own_stay_and_a_second_run_asks_nothing(tmp_path, server):
    source = write_png_source(tmp_path / "in")
    data, given = tmp_path / "data", captions(source)
    assert run(source, "--output", data, "--captions", given) == 0
    server.misbehave = answer
    assert describe(data, server) == 0
    first = read_set(data)
    assert [each.get("written_by") for each in first["a"]["expressions"].values()] == [None] * 3 + ["teacher"] * 6
    asked = len(server.questions)
    assert describe(data, server) == 0
    assert read_set(data) == first and len(server.questions) == asked
    assert run(source, "--output", data, "--captions", given) == 0  # an import begins anew
    assert len(read_set(data)["a"]["expressions"]) == 3
    assert describe(data, server) == 0
    assert read_set(data) == first and len(server.questions) == asked


def test_an_answer_that_fails_the_checks_is_asked_again_and_then_rejected(imported, server):
    bad = json.dumps({"referring": ["the highlighted square", "what moves"], "reasoning": ["who leaves first"]})
    server.misbehave = lambda *_: bad
    assert describe(imported, server) == 0
    assert len(server.questions) == 12
    assert 'mentioned what was drawn onto the frames ("the highlighted square")' in server.questions[-1]
    rejected = json.loads((imported / "describe" / "rejected.json").read_text())
    assert sorted(each["sample_id"] for each in rejected) == ["a/1", "a/2", "b/1", "b/2"]
    assert all(not each["expressions"] for each in read_set(imported).values())
    server.misbehave = answer
    assert describe(imported, server) == 0 and len(server.questions) == 12  # what was rejected stays so
    assert describe(imported, server, "--retry_rejected") == 0
    assert len(server.questions) == 16 and all(each["expressions"] for each in read_set(imported).values())


def test_the_budget_holds_over_runs_and_the_next_run_continues(imported, server):
    server.misbehave = answer
    assert describe(imported, server, "--max_requests", 3) == 3
    assert len(server.questions) == 3 and len(read_journal(imported / "describe")) == 3
    assert describe(imported, server, "--max_requests", 3) == 3
    assert len(server.questions) == 3
    assert describe(imported, server) == 0
    assert len(server.questions) == 4


def test_a_wrong_key_is_one_line(imported, server, capsys):
    server.misbehave = lambda *_: Failure(401, body=b'{"error": {"message": "wrong key"}}')
    assert describe(imported, server) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("veason data describe: ") and "wrong key" in error and len(server.questions) == 1


class Local:
    """A teacher in this process."""

    def __init__(self, root):
        self.root = root

    def reason(self, sample, keyframe, indices):
        return json.dumps({"referring": [f"{sample.expression} of {sample.video}"], "reasoning": []})


def test_a_teacher_of_ones_own(imported, server):
    path = "tests.training_data_construction.test_expression_generation:Local"
    assert describe(imported, server, "--teacher", path, "--referring", 1, "--reasoning", 0) == 0
    assert [each["exp"] for each in read_set(imported)["b"]["expressions"].values()] == [
        "object 1 of b",
        "object 2 of b",
    ]
    assert server.questions == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--referring", 0, "--reasoning", 0], "one of them above 0"),
        (["--referring", -1], "at least 0 each"),
        (["--workers", 0], "--workers 0: at least 1"),
        (["--exclude", "/nowhere.txt"], "exclusion list is missing: /nowhere.txt"),
        (["--teacher", "toy"], "writes chains of thought alone"),
        (["--teacher", "openia"], "did you mean openai"),
        (["--request_options", "{"], "invalid json_object value"),
        (["--sampled_frames", "x"], "invalid int value"),
    ],
)
def test_wrong_options_are_one_line(imported, server, capsys, options, says):
    assert describe(imported, server, *options) in (1, 2)
    error = capsys.readouterr().err.strip().splitlines()
    assert says in error[-1] and not any("Traceback" in line for line in error) and server.questions == []


def test_other_counts_than_those_of_the_journal_are_refused(imported, server, capsys):
    server.misbehave = answer
    assert describe(imported, server) == 0
    assert describe(imported, server, "--reasoning", 2) == 1
    assert "has answers to other options (--reasoning 1 -> 2)" in capsys.readouterr().err


def test_a_folder_without_annotations_is_named(tmp_path, server, capsys):
    assert describe(tmp_path, server) == 1
    assert "see veason data import" in capsys.readouterr().err
    assert describe(tmp_path / "none", server) == 1
    assert "data folder is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('```json\n{"referring": ["the red square."], "reasoning": ["who wins"]}\n```', None),
        ("", "it was empty"),
        ("the red square", "it was not one JSON object"),
        ('{"referring": "the red square", "reasoning": []}', "it was not one JSON object"),
        ('{"referring": [1], "reasoning": []}', "it was not one JSON object"),
        ('{"referring": ["the red square"], "reasons": []}', "it was not one JSON object"),
        ('{"referring": ["the red square"]}', "it had 0 reasoning descriptions instead of 1"),
        ('{"referring": ["a b", "c d"], "reasoning": ["e f"]}', "it had 2 referring descriptions instead of 1"),
        ('{"referring": ["Who wins"], "reasoning": ["who wins."]}', "two descriptions were the same"),
        ('{"referring": ["square"], "reasoning": ["who wins"]}', "a description had 1 words"),
        ('{"referring": ["' + "very " * 30 + 'red"], "reasoning": ["who wins"]}', "a description had 31 words"),
        ('{"referring": ["it <think> red"], "reasoning": ["who wins"]}', "a description contained markup"),
        ('{"referring": ["it in the third frame"], "reasoning": ["who wins"]}', "a frame or a time ('frame')"),
        ('{"referring": ["what falls at 3 s"], "reasoning": ["who wins"]}', "a frame or a time ('3 s')"),
        ('{"referring": ["what is in the red box"], "reasoning": ["who wins"]}', "drawn onto the frames"),
    ],
)
def test_checks(text, reason):
    found = check_expressions(text, {"referring": 1, "reasoning": 1})
    assert found is None if reason is None else reason in (found or "")
