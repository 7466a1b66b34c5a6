"""The whole command against an HTTP server: its records, its options and its rejected expressions."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from fake_teacher import (
    KEY,
    PRESENT,
    VIDEOS,
    Failure,
    arguments,
    asked_keyframe,
    good_answer,
    read_journal,
    read_records,
    rectangle,
)

from training_data_construction.seed_cot_generation import main


def test_records_have_the_published_format(revos, tmp_path, server):
    server.delay = 0.02
    assert main(arguments(revos, tmp_path, server)) == 0
    found = read_records(tmp_path)
    assert len(found) == PRESENT == len(server.questions)
    assert 2 <= server.most <= 4
    for record in found:
        keyframe = json.loads(re.search(r"<answer>(.*)</answer>", record["solution"]).group(1))["keyframe_timestamp"]
        assert keyframe in record["frame_ids"]
        human, gpt = record["conversation"]
        assert (human["from"], gpt["from"]) == ("human", "gpt")
        assert gpt["value"] == record["CoT"] + "\n" + record["solution"]
        assert human["value"].count("<image>") == len(record["frame_ids"]) == len(record["sampled_video_frames"])
        assert [int(Path(path).stem) for path in record["sampled_video_frames"]] == record["frame_ids"]
        assert "red" not in human["value"]


def test_boxes_of_several_objects(revos, tmp_path, server):
    """Each object has its own box, scaled to the student's frame; an invisible object has a zero box or none."""
    assert main(arguments(revos, tmp_path / "zero", server, "--seed", 3)) == 0
    drop_words = ("--absent_objects", "drop", "--box_decimals", 0, "--no-llamafactory")
    assert main(arguments(revos, tmp_path / "drop", server, "--seed", 3, *drop_words)) == 0
    assert (tmp_path / "zero" / "llamafactory").exists() and not (tmp_path / "drop" / "llamafactory").exists()
    seen = Counter()
    for zero, drop in zip(read_records(tmp_path / "zero"), read_records(tmp_path / "drop"), strict=True):
        answers = [
            json.loads(re.search(r"<answer>(.*)</answer>", record["solution"]).group(1)) for record in (zero, drop)
        ]
        video, numbers = int(zero["video"][-1]), {"0": [0], "1": [1], "2": [0, 1]}[zero["exp_id"]]
        boxes = [rectangle(video, number, answers[0]["keyframe_timestamp"]) for number in numbers]
        scaled = [
            [0, 0, 0, 0] if box is None else [round(side * f + 0.5, 2) for side, f in zip(box, (56 / 64, 56 / 48) * 2)]
            for box in boxes
        ]
        assert answers[0]["bbox_2d_list"] == scaled
        assert answers[1]["bbox_2d_list"] == [[round(side) for side in box] for box in scaled if any(box)]
        seen[tuple(box is None for box in boxes)] += 1
    assert seen[(False, True)] > 0  # both asked for, the second gone
    assert seen[(False, False)] > 0


def test_the_key_is_sent_and_written_nowhere(revos, tmp_path, server, capfd):
    server.misbehave = lambda number, _: (
        Failure(401, body=json.dumps({"error": {"message": f"bad key {KEY}"}}).encode()) if number == 4 else None
    )
    assert main(arguments(revos, tmp_path, server, "--workers", "1")) == 1
    assert server.keys == {f"Bearer {KEY}"}
    said = capfd.readouterr()
    assert "bad key [key]" in said.err
    assert KEY not in said.err + said.out
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert len(read_journal(tmp_path)) == 4


def test_system_errors_are_one_line(revos, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(arguments(revos, tmp_path / "file" / "cot", "http://127.0.0.1:9/v1")) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {tmp_path / 'file' / 'cot'}: Not a directory"


def test_bad_answers_are_asked_again_twice_then_rejected(revos, tmp_path, server):
    def answers(_number, question):
        if "what is green" in question.split("\n\n")[1]:
            return good_answer(question).replace("It glides", "The red box glides")
        if "both of them" in question and "not accepted" not in question:
            return good_answer(question).replace(str(asked_keyframe(question)), "77")
        return None

    server.misbehave = answers
    assert main(arguments(revos, tmp_path, server)) == 0
    accepted, rejected = read_records(tmp_path), json.loads((tmp_path / "rejected.json").read_text())
    assert len(accepted) == 2 * VIDEOS
    assert {entry["exp"] for entry in rejected} == {"what is green"}
    assert all(len(entry["reasons"]) == 3 and "drawn onto the frames" in entry["reasons"][2] for entry in rejected)
    assert len(server.questions) == VIDEOS * (1 + 3 + 2)
    again = [question for question in server.questions if "not accepted: it mentioned what was drawn" in question]
    assert len(again) == 2 * VIDEOS
    examples = {entry["example"] for entry in read_journal(tmp_path) if entry["sample_id"] == rejected[0]["sample_id"]}
    assert examples == {0, 1, 2}  # another worked example each time
    assert main(arguments(revos, tmp_path, server)) == 0
    assert len(server.questions) == VIDEOS * 6  # rejected expressions stay rejected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--model", ""], "--model is missing"),
        (["--teacher", "no.such.module:Teacher"], "no.such.module:Teacher"),
        (["--teacher", "oracle"], "'oracle' is unknown; choose openai, toy (or give package.module:name)"),
        (["--input_json", "nothing.json"], "nothing.json"),
    ],
)
def test_invalid_options(revos, tmp_path, server, capsys, change, said):
    assert main(arguments(revos, tmp_path, server, *change)) == 1
    assert said in capsys.readouterr().err
    assert not server.questions


def test_no_key(revos, tmp_path, server, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert main(arguments(revos, tmp_path, server)) == 1
    assert "OPENAI_API_KEY is not set" in capsys.readouterr().err
    assert not server.questions


def test_absent_targets(revos, tmp_path, server):
    assert main(arguments(revos, tmp_path, server, "--include_no_target")) == 0
    absent = [record for record in read_records(tmp_path) if record["type_id"] == 2]
    assert len(absent) == VIDEOS
    for record in absent:
        answer = json.loads(re.search(r"<answer>(.*)</answer>", record["solution"]).group(1))
        assert answer["bbox_2d_list"] == []
        assert answer["keyframe_timestamp"] in record["frame_ids"]
    asked = [question for question in server.questions if "NOT in this video" in question]
    assert len(asked) == VIDEOS
    assert all("a purple cow" in question and "outlined in red" not in question for question in asked)


def test_an_unreadable_frame(revos, tmp_path, server, capsys):
    path = revos / "JPEGImages" / "set" / "v1" / "00006.jpg"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: len(whole) // 2])
        assert main(arguments(revos, tmp_path / "raise", server)) == 1
        assert "v1/00006.jpg" in capsys.readouterr().err
        main(arguments(revos, tmp_path / "skip", server, "--on_bad_sample", "skip"))
    finally:
        path.write_bytes(whole)
    assert "v1/00006.jpg" in capsys.readouterr().out
    assert main(arguments(revos, tmp_path / "skip", server)) == 0  # mended: the rest is asked
    assert len(read_records(tmp_path / "skip")) == PRESENT


def test_a_custom_teacher_gets_the_data_root(revos, tmp_path, server, monkeypatch):
    (tmp_path / "own_teacher.py").write_text(
        "class Own:\n"
        "    def __init__(self, root):\n"
        "        self.root = root\n"
        "    def reason(self, sample, keyframe, indices):\n"
        "        return f'Step 1: It is in {self.root}.\\nStep 2: It is clear at {keyframe} seconds.\\nStep 3: It "
        "stands still.'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(arguments(revos, tmp_path / "cot", server, "--teacher", "own_teacher:Own")) == 0
    assert all(str(revos) in record["CoT"] for record in read_records(tmp_path / "cot"))
