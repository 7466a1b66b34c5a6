"""The whole command against a real HTTP server: what it asks, what it writes, and what it does when the server or the
machine fails.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from fake_teacher import EXPRESSIONS, VIDEOS, Failure, asked_keyframe, good_answer, rectangle

from training_data_construction.seed_cot_generation import main
from training_data_construction.teachers import MAX_RETRY_AFTER, read_retry_after

KEY = "sk-secret-0123456789"
PRESENT = VIDEOS * (EXPRESSIONS - 1)
SCRIPT = Path(__file__).parents[2] / "training_data_construction" / "seed_cot_generation.py"


def words(revos, output, server, *more):
    """The command line of a test: small pictures, short delays."""
    url = server if isinstance(server, str) else server.url
    fixed = ["--model", "teacher", "--keyframe_resize", "56", "--first_delay", "0.01", "--workers", "4"]
    return ["--data_root", str(revos), "--output", str(output), "--base_url", url, *fixed, *map(str, more)]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def journal(output):
    return [json.loads(line) for line in (output / "journal.jsonl").read_text().splitlines()]


def records(output, split="train"):
    return json.loads((output / f"cot_{split}.json").read_text())


def test_records_have_the_published_format(revos, tmp_path, server):
    server.delay = 0.02
    assert main(words(revos, tmp_path, server)) == 0
    found = records(tmp_path)
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
    assert main(words(revos, tmp_path / "zero", server, "--seed", 3)) == 0
    drop_words = ("--absent_objects", "drop", "--box_decimals", 0, "--no-llamafactory")
    assert main(words(revos, tmp_path / "drop", server, "--seed", 3, *drop_words)) == 0
    assert (tmp_path / "zero" / "llamafactory").exists() and not (tmp_path / "drop" / "llamafactory").exists()
    seen = Counter()
    for zero, drop in zip(records(tmp_path / "zero"), records(tmp_path / "drop"), strict=True):
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
    assert main(words(revos, tmp_path, server, "--workers", "1")) == 1
    assert server.keys == {f"Bearer {KEY}"}
    said = capfd.readouterr()
    assert "bad key [key]" in said.err
    assert KEY not in said.err + said.out
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert len(journal(tmp_path)) == 4


def test_temporary_failures_cost_no_answer(revos, tmp_path, server):
    """429, 500, broken connections, pages and nonsense with status 200: every expression still gets one answer."""
    failures = {
        1: Failure(429, {"Retry-After": "0.3"}, b'{"error": {"message": "slow down"}}'),
        2: Failure(500, body=b"oops"),
        3: Failure(cut=True),
        4: Failure(200, body=b"<html>maintenance</html>"),
        5: Failure(200, body=b'{"choices": []}'),
        6: Failure(200, body=b'{"error": {"message": "overloaded"}}'),
        7: Failure(503, {"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"}),
        9: Failure(cut=True),
    }
    server.misbehave = lambda number, _: failures.get(number)
    start = time.monotonic()
    assert main(words(revos, tmp_path, server)) == 0
    assert time.monotonic() - start > 0.3  # Retry-After
    entries = journal(tmp_path)
    assert Counter(entry["sample_id"] for entry in entries if "lost" not in entry) == {
        record_id(r): 1 for r in records(tmp_path)
    }
    assert len(records(tmp_path)) == PRESENT
    assert sum("lost" in entry for entry in entries) == 5  # paid for, perhaps: counted in the budget
    assert len(server.questions) == PRESENT + len(failures)


def record_id(record):
    return f"{record['video']}/{record['exp_id']}"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2.5", 2.5), ("-3", 0), ("inf", MAX_RETRY_AFTER), ("99999", MAX_RETRY_AFTER), ("nan", None), ("soon", None)]
    + [("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER), ("Fri, 99 Dec 99999 23:59:59 GMT", None)],
)
def test_retry_after_is_bounded(value, seconds):
    assert read_retry_after(value) == seconds


def test_system_errors_are_one_line(revos, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(words(revos, tmp_path / "file" / "cot", "http://127.0.0.1:9/v1")) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {tmp_path / 'file' / 'cot'}: Not a directory"


def test_retry_after_delays_all_requests(revos, tmp_path, server):
    times = []

    def busy(number, _question):
        times.append(time.monotonic())
        return Failure(429, {"retry-after": "0.4"}) if number == 1 else None

    server.misbehave, server.delay = busy, 0.05
    assert main(words(revos, tmp_path, server)) == 0
    pause = times[1] + 0.05  # the answer 429 leaves
    in_the_pause = [at for at in times if pause + 0.1 < at < pause + 0.35]
    assert not in_the_pause


def test_slow_answers_are_lost_and_asked_again(revos, tmp_path, server):
    server.misbehave = lambda number, _: time.sleep(1.0) if number == 2 else None
    assert main(words(revos, tmp_path, server, "--timeout", 0.4)) == 0
    assert [entry["lost"] for entry in journal(tmp_path) if "lost" in entry] == ["the server did not answer in time"]
    assert len(records(tmp_path)) == PRESENT


def test_bad_answers_are_asked_again_twice_then_rejected(revos, tmp_path, server):
    def answers(_number, question):
        if "what is green" in question.split("\n\n")[1]:
            return good_answer(question).replace("It glides", "The red box glides")
        if "both of them" in question and "not accepted" not in question:
            return good_answer(question).replace(str(asked_keyframe(question)), "77")
        return None

    server.misbehave = answers
    assert main(words(revos, tmp_path, server)) == 0
    accepted, rejected = records(tmp_path), json.loads((tmp_path / "rejected.json").read_text())
    assert len(accepted) == 2 * VIDEOS
    assert {entry["exp"] for entry in rejected} == {"what is green"}
    assert all(len(entry["reasons"]) == 3 and "drawn onto the frames" in entry["reasons"][2] for entry in rejected)
    assert len(server.questions) == VIDEOS * (1 + 3 + 2)
    again = [question for question in server.questions if "not accepted: it mentioned what was drawn" in question]
    assert len(again) == 2 * VIDEOS
    examples = {entry["example"] for entry in journal(tmp_path) if entry["sample_id"] == rejected[0]["sample_id"]}
    assert examples == {0, 1, 2}  # another worked example each time
    assert main(words(revos, tmp_path, server)) == 0
    assert len(server.questions) == VIDEOS * 6  # rejected expressions stay rejected


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Failure(401, body=b'{"error": {"message": "Incorrect API key provided"}}'), "Incorrect API key provided"),
        (Failure(404, body=b'{"detail": "Not Found"}'), "Not Found"),
        (
            Failure(400, body=b'{"error": {"message": "teacher is not a multimodal model"}}'),
            "teacher is not a multimodal model",
        ),
        (
            Failure(429, body=b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}'),
            "You exceeded your quota",
        ),
        (Failure(200, body=b"<html>a login page</html>"), "a login page"),
        (Failure(cut=True), "connection failed"),
    ],
)
def test_a_wrong_set_up_ends_the_run_at_the_first_request(revos, tmp_path, server, capsys, failure, said):
    server.misbehave = lambda *_: failure
    assert main(words(revos, tmp_path, server)) == 1
    assert len(server.questions) == 1
    assert said in capsys.readouterr().err
    assert not journal(tmp_path)
    assert not (tmp_path / "cot_train.json").exists()


def test_no_server_at_the_address(revos, tmp_path, capsys):
    assert main(words(revos, tmp_path, "http://127.0.0.1:9/v1", "--first_delay", 100)) == 1
    assert "connection" in capsys.readouterr().err
    assert not journal(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--model", ""], "--model is missing"),
        (["--teacher", "no.such.module:Teacher"], "no.such.module:Teacher"),
        (["--teacher", "oracle"], "neither openai, toy nor"),
        (["--input_json", "nothing.json"], "nothing.json"),
    ],
)
def test_invalid_options(revos, tmp_path, server, capsys, change, said):
    assert main(words(revos, tmp_path, server, *change)) == 1
    assert said in capsys.readouterr().err
    assert not server.questions


def test_no_key(revos, tmp_path, server, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert main(words(revos, tmp_path, server)) == 1
    assert "OPENAI_API_KEY is not set" in capsys.readouterr().err
    assert not server.questions


def test_budget_of_requests_over_runs(revos, tmp_path, server, capsys):
    assert main(words(revos, tmp_path, server, "--max_requests", 5)) == 3
    assert len(server.questions) == 5 == len(records(tmp_path))
    assert "the budget is exhausted: 5 requests" in capsys.readouterr().out
    assert main(words(revos, tmp_path, server, "--max_requests", 5)) == 3
    assert len(server.questions) == 5
    assert main(words(revos, tmp_path, server)) == 0
    assert len(server.questions) == PRESENT == len(records(tmp_path))


def test_budget_of_tokens(revos, tmp_path, server):
    server.delay = 0.02
    assert main(words(revos, tmp_path, server, "--max_tokens_total", 700)) == 3  # 120 a request
    assert len(server.questions) == 5


def test_one_question_refused(revos, tmp_path, server):
    def refuse(_number, question):
        return (
            Failure(400, body=b'{"error": {"message": "content policy"}}')
            if "what is green" in question.split("\n\n")[1]
            else None
        )

    server.misbehave = refuse
    assert main(words(revos, tmp_path, server, "--workers", 1)) == 0
    rejected = json.loads((tmp_path / "rejected.json").read_text())
    assert len(rejected) == VIDEOS
    assert all(entry["refused"] and "content policy" in entry["reasons"][0] for entry in rejected)
    assert len(server.questions) == PRESENT


def test_a_resumed_run_may_start_with_a_refused_question(revos, tmp_path, server):
    """The first request of a first run has to be answered; later the journal tells that the model is served."""
    assert main(words(revos, tmp_path, server, "--max_requests", 1)) == 3
    server.misbehave = lambda number, _: Failure(400, body=b"no") if number == 1 else None
    assert main(words(revos, tmp_path, server)) == 0
    assert len(records(tmp_path)) == PRESENT - 1


def test_a_server_that_dies_ends_the_run_and_loses_nothing(revos, tmp_path, server, capsys):
    server.misbehave = lambda number, _: Failure(502, body=b"bad gateway") if number >= 3 else None
    assert main(words(revos, tmp_path, server, "--tries", 2)) == 1
    assert "bad gateway" in capsys.readouterr().err
    assert len(journal(tmp_path)) == 3
    server.misbehave = lambda *_: None
    asked = len(server.questions)
    assert main(words(revos, tmp_path, server)) == 0
    assert len(server.questions) == asked + PRESENT - 3
    assert len(records(tmp_path)) == PRESENT


def test_stopping_does_not_wait_for_retry_after(revos, tmp_path, server, capsys):
    failures = {2: Failure(429, {"Retry-After": "600"}), 3: Failure(401, body=b"the key was withdrawn")}
    server.misbehave = lambda number, _: time.sleep(0.2 if number == 3 else 0) or failures.get(number)
    start = time.monotonic()
    assert main(words(revos, tmp_path, server)) == 1
    assert time.monotonic() - start < 60
    assert "the key was withdrawn" in capsys.readouterr().err


def test_other_settings_do_not_mix_with_a_journal(revos, tmp_path, server, capsys):
    assert main(words(revos, tmp_path, server, "--max_requests", 3)) == 3
    assert main(words(revos, tmp_path, server, "--seed", 1)) == 1
    assert "about other frames" in capsys.readouterr().err


def test_absent_targets(revos, tmp_path, server):
    assert main(words(revos, tmp_path, server, "--include_absent")) == 0
    absent = [record for record in records(tmp_path) if record["type_id"] == 2]
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
        assert main(words(revos, tmp_path / "raise", server)) == 1
        assert "v1/00006.jpg" in capsys.readouterr().err
        main(words(revos, tmp_path / "skip", server, "--on_bad_sample", "skip"))
    finally:
        path.write_bytes(whole)
    assert "v1/00006.jpg" in capsys.readouterr().out
    assert main(words(revos, tmp_path / "skip", server)) == 0  # mended: the rest is asked
    assert len(records(tmp_path / "skip")) == PRESENT


def start(revos, output, server):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    output.mkdir(exist_ok=True)
    with open(output / "stderr.txt", "ab") as errors:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), *words(revos, output, server)], env=environment, stdout=errors, stderr=errors
        )


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.005)


def test_killed_and_resumed(revos, tmp_path, server):
    """SIGKILL twice in mid-work: no answer in the journal is asked for again, and the result is that of an undisturbed
    run.
    """
    path, answered, hung = tmp_path / "journal.jsonl", 0, threading.Event()
    for more in (3, 4):
        answered += more
        limit = len(server.questions) + more  # further requests hang until the kill
        server.misbehave = lambda number, _, limit=limit, hung=hung: hung.wait(60) and None if number >= limit else None
        process = start(revos, tmp_path, server)
        wait_for(
            lambda answered=answered, limit=limit: (
                path.exists() and path.read_bytes().count(b"\n") >= answered and len(server.questions) >= limit + 4
            ),
            process,
        )
        process.kill()
        process.wait()
        hung.set()
        assert path.read_bytes().count(b"\n") == answered
        with open(path, "ab") as file:
            file.write(b'{"sample_id": "set/v3/2", "keyfr')  # as a kill in mid-write leaves it
        hung = threading.Event()
    server.misbehave = lambda *_: None
    assert main(words(revos, tmp_path, server)) == 0
    assert len(server.questions) == PRESENT + 2 * 4  # only what was in flight is asked again
    assert set(Counter(entry["sample_id"] for entry in journal(tmp_path)).values()) == {1}
    assert main(words(revos, tmp_path / "undisturbed", server)) == 0
    assert records(tmp_path) == records(tmp_path / "undisturbed")


def test_interrupted(revos, tmp_path, server):
    """One SIGINT: requests in flight finish and are journaled, and no more are sent."""
    server.delay = 0.3
    process = start(revos, tmp_path, server)
    wait_for(lambda: len(server.questions) >= 4, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 3, (tmp_path / "stderr.txt").read_text()
    assert len(journal(tmp_path)) == len(server.questions) < PRESENT


def test_a_custom_teacher_gets_the_data_root(revos, tmp_path, server, monkeypatch):
    (tmp_path / "own_teacher.py").write_text(
        "class Own:\n"
        "    def __init__(self, root):\n"
        "        self.root = root\n"
        "    def reason(self, sample, keyframe, times):\n"
        "        return f'Step 1: It is in {self.root}.\\nStep 2: It is clear at {keyframe} seconds.\\nStep 3: It "
        "stands still.'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(words(revos, tmp_path / "cot", server, "--teacher", "own_teacher:Own")) == 0
    assert all(str(revos) in record["CoT"] for record in records(tmp_path / "cot"))
