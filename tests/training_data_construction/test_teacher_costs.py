"""What the teacher costs: replies that cannot be used, requests that were in flight, budgets without usage, and a run
whose answers are all rejected.
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from fake_teacher import (
    KEY,
    PRESENT,
    TIMEOUT,
    Failure,
    arguments,
    completion,
    good_answer,
    read_journal,
    read_lines,
    read_records,
)

from training_data_construction import answer_collector, teacher_run
from training_data_construction.seed_cot_generation import main


def changed(**change: Any) -> Failure:
    """A completion with status 200 and other fields."""
    return Failure(body=json.dumps(completion("") | change).encode())


def message(content: Any) -> Failure:
    return changed(choices=[{"index": 0, "message": {"role": "assistant", "content": content}}])


UNREADABLE = {
    "number": message(7),
    "object": message({"type": "image"}),
    "no_text": message([{"type": "image"}]),
    "choices_number": changed(choices=7),
    "choices_empty": changed(choices=[]),
    "deep": Failure(body=b'{"choices": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "not_json": Failure(body=b"\xff\xfe"),
    "cut": Failure(cut=True),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_reply_that_cannot_be_read_is_paid_for_once(revos, tmp_path, server, name):
    """It is journaled as lost and asked again; a restart pays for nothing twice."""
    server.misbehave = lambda number, _: UNREADABLE[name] if number == 2 else None
    assert main(arguments(revos, tmp_path, server)) == 0
    assert len(read_records(tmp_path)) == PRESENT
    (lost,) = [entry for entry in read_journal(tmp_path) if "lost" in entry]
    assert lost["tokens"] == 120  # as many as the largest answer
    asked = len(server.questions)
    assert asked == PRESENT + 1
    assert main(arguments(revos, tmp_path, server)) == 0
    assert len(server.questions) == asked


def test_parts_and_odd_texts_are_answers(revos, tmp_path, server):
    def misbehave(number, question):
        good = good_answer(question)
        return {
            0: message([{"type": "text", "text": good[:30]}, {"type": "text", "text": good[30:]}]),
            1: message(good + " \ud800"),
            2: Failure(body=json.dumps(completion(good)).encode().replace(b"plates", b"pl\xe4tes")),
            3: changed(choices=[{"message": good}]),
            4: changed(choices={"0": {"message": {"content": good}}}),
        }.get(number)

    server.misbehave = misbehave
    assert main(arguments(revos, tmp_path, server, "--workers", 1)) == 0
    assert len(read_records(tmp_path)) == PRESENT == len(server.questions)
    assert "\ufffd" in read_records(tmp_path)[1]["CoT"]


def test_replies_that_stay_unreadable_are_not_paid_for_without_end(revos, tmp_path, server, capsys):
    server.misbehave = lambda number, _: message(7) if number else None
    assert main(arguments(revos, tmp_path, server, "--workers", 1)) == 1
    paid = answer_collector.MAX_LOST * answer_collector.MAX_CONSECUTIVE_FAILURES
    assert len(server.questions) == 1 + paid == len(read_journal(tmp_path))
    assert "has no text" in capsys.readouterr().err
    assert main(arguments(revos, tmp_path, server, "--max_requests", 1 + paid)) == 3  # all of them count
    assert len(server.questions) == 1 + paid


def test_requests_in_flight_at_a_kill_count(revos, tmp_path, server):
    assert main(arguments(revos, tmp_path, server, "--max_requests", 2)) == 3
    with open(tmp_path / "journal.jsonl", "a", encoding="utf-8") as file:
        for number in (3, 4):  # as a kill leaves them
            file.write(json.dumps({"sample_id": f"set/v1/{number}", "sent": number}) + "\n")
    assert main(arguments(revos, tmp_path, server, "--max_requests", 5)) == 3
    assert len(server.questions) == 3
    lost = [entry for entry in read_journal(tmp_path) if "lost" in entry]
    assert [(entry["request"], entry["tokens"]) for entry in lost] == [(3, 120), (4, 120)]
    assert main(arguments(revos, tmp_path, server, "--max_requests", 5)) == 3
    assert len(server.questions) == 3 and len(read_journal(tmp_path)) == 5


def test_every_request_ends_in_the_journal(revos, tmp_path, server):
    failures = {1: Failure(429, {"Retry-After": "0.1"}), 2: Failure(500), 3: Failure(cut=True), 5: message(7)}
    server.misbehave = lambda number, _: failures.get(number)
    assert main(arguments(revos, tmp_path, server)) == 0
    lines = read_lines(tmp_path)
    sent = [line["sent"] for line in lines if "sent" in line]
    assert sent == list(range(1, PRESENT + 5)) and len(server.questions) == len(sent)
    assert sorted(line["request"] for line in lines if "request" in line) == sent
    assert sum("unbilled" in line for line in lines) == 2


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -5, "completion_tokens": -5}, "120"])
def test_a_budget_of_tokens_needs_usage(revos, tmp_path, server, capsys, usage):
    def misbehave(_number, question):
        return changed(choices=completion(good_answer(question))["choices"], usage=usage)

    server.misbehave = misbehave
    assert main(arguments(revos, tmp_path, server, "--max_tokens_total", 700)) == 1
    assert "the server reports no usage, so --max_tokens_total cannot be held" in capsys.readouterr().err
    assert len(server.questions) == 1 == len(read_journal(tmp_path))  # and its answer is kept
    assert main(arguments(revos, tmp_path, server)) == 0
    assert len(server.questions) == PRESENT == len(read_records(tmp_path))


def test_a_reply_without_usage_counts_as_the_largest(revos, tmp_path, server):
    def misbehave(number, question):
        return changed(choices=completion(good_answer(question))["choices"], usage=None) if number else None

    server.misbehave = misbehave
    assert main(arguments(revos, tmp_path, server, "--max_tokens_total", 700)) == 3
    assert len(server.questions) == 5  # 120 each
    assert [entry["tokens"] for entry in read_journal(tmp_path)] == [120] * 5
    assert main(arguments(revos, tmp_path, server, "--max_tokens_total", 700)) == 3
    assert len(server.questions) == 5


@pytest.fixture
def few_rejections(monkeypatch):
    monkeypatch.setattr(answer_collector, "MAX_REJECTED_AT_START", 4)


CUT = changed(choices=[{"message": {"content": "Step 1: a long"}, "finish_reason": "length"}])


@pytest.mark.usefixtures("few_rejections")
def test_a_run_whose_first_expressions_are_all_rejected_stops_and_says_why(revos, tmp_path, server, capsys):
    server.misbehave = lambda *_: CUT
    assert main(arguments(revos, tmp_path, server, "--workers", 1)) == 1
    said = capsys.readouterr().err
    assert "the first 4 expressions are all rejected" in said
    assert "12 of 12 answers because it was cut off at the token limit" in said and "--retry_rejected" in said
    assert len(server.questions) == 12
    assert main(arguments(revos, tmp_path, server, "--workers", 1)) == 1  # the same command spends nothing more
    assert len(server.questions) == 12


@pytest.mark.usefixtures("few_rejections")
@pytest.mark.parametrize("flag", ["--retry_rejected", "--retry_set_aside"])
def test_rejected_expressions_are_asked_again_on_request(revos, tmp_path, server, flag):
    server.misbehave = lambda *_: CUT
    assert main(arguments(revos, tmp_path, server, "--workers", 1)) == 1
    server.misbehave = lambda *_: None
    assert main(arguments(revos, tmp_path, server, flag, "--max_requests", 14)) == 3  # stopped on the way
    assert main(arguments(revos, tmp_path, server)) == 0  # goes on, without the flag
    assert len(server.questions) == 12 + PRESENT
    assert len(read_records(tmp_path)) == PRESENT
    assert main(arguments(revos, tmp_path, server, flag)) == 0  # nothing is rejected any more
    assert len(server.questions) == 12 + PRESENT


@pytest.mark.usefixtures("few_rejections")
def test_one_accepted_answer_keeps_the_run_going(revos, tmp_path, server):
    server.misbehave = lambda number, _: None if number == 0 else CUT
    assert main(arguments(revos, tmp_path, server)) == 0
    assert len(read_records(tmp_path)) == 1
    assert len(json.loads((tmp_path / "rejected.json").read_text())) == PRESENT - 1


def test_a_server_that_drips_is_left_at_the_deadline(revos, tmp_path, server):
    left = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100000")
        request.end_headers()
        request.close_connection = True
        try:
            for _ in range(1200):
                request.wfile.write(b" ")
                request.wfile.flush()
                time.sleep(0.05)
        except OSError:  # the other side has closed the connection
            left.set()

    number = iter(range(1000))
    whole = server.handle
    server.handle = lambda request: drip(request) if next(number) == 2 else whole(request)
    assert main(arguments(revos, tmp_path, server, "--timeout", TIMEOUT)) == 0
    assert left.wait(30)
    assert [entry["lost"] for entry in read_journal(tmp_path) if "lost" in entry] == [
        f"the server did not answer within {TIMEOUT} s"
    ]
    assert len(read_records(tmp_path)) == PRESENT


def test_long_waits_are_shown(revos, tmp_path, server, capsys, monkeypatch):
    monkeypatch.setattr("training_data_construction.budget.LONG_WAIT", 0.2)
    monkeypatch.setattr(teacher_run, "SILENT_SECONDS", 0.3)
    say, silence = teacher_run._print_line, threading.Event()

    def told(line):
        say(line)
        if line.startswith("no reply"):
            silence.set()

    monkeypatch.setattr(teacher_run, "_print_line", told)
    server.misbehave = lambda number, _: (
        Failure(429, {"Retry-After": "0.5"}, b"slow down")
        if number == 1
        else silence.wait(60) and None
        if number == 5
        else None
    )
    assert main(arguments(revos, tmp_path, server)) == 0
    said = capsys.readouterr().err
    assert said.count("waiting 0 s: 429 from") == 1 and "slow down" in said  # 0.5 s, rounded
    assert "no reply for 0 s; " in said and "requests in flight" in said


def test_the_model_that_answered_is_recorded(revos, tmp_path, server):
    server.misbehave = lambda number, question: (
        changed(choices=completion(good_answer(question))["choices"], model="teacher-2026-11") if number % 2 else None
    )
    assert main(arguments(revos, tmp_path, server)) == 0
    answers = read_journal(tmp_path)
    assert {entry["model"] for entry in answers} == {"teacher"}
    assert {entry["answered_by"] for entry in answers} == {"teacher", "teacher-2026-11"}


def test_the_key_is_written_nowhere(revos, tmp_path, server, capsys):
    """Not even when the server sends it back, in an answer, an error or the model's name."""

    def echo(number, question):
        return {
            1: message(f"{good_answer(question)} {KEY}"),
            2: Failure(500, body=f"bad key Bearer {KEY}".encode()),
            3: changed(choices=completion(good_answer(question))["choices"], model=KEY),
            4: Failure(200, body=KEY.encode()),
            5: Failure(400, body=KEY.encode()),
        }.get(number)

    server.misbehave = echo
    assert main(arguments(revos, tmp_path, server, "--workers", 1)) == 0
    said = capsys.readouterr()
    server.misbehave = lambda *_: Failure(401, body=f"Incorrect API key provided: {KEY}".encode())
    assert main(arguments(revos, tmp_path / "second", server)) == 1
    refused = capsys.readouterr()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5 and "[key]" in (tmp_path / "journal.jsonl").read_text()
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
    assert "[key]" in refused.err
    assert KEY not in said.out + said.err + refused.out + refused.err


@pytest.mark.parametrize("key", ["sk-0123456789abcdef\nX: y", "sk-0123456789abcdef\u00e4"])
def test_a_key_that_no_header_holds_is_not_shown(revos, tmp_path, server, capsys, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert main(arguments(revos, tmp_path, server)) == 1
    said = capsys.readouterr().err
    assert "OPENAI_API_KEY holds a character that no key has" in said and "0123456789abcdef" not in said
    assert not server.questions


@pytest.mark.parametrize(
    "line", ["7", "[]", '{"sample_id": "set/v0/0", "text": 7}', '{"sample_id": "set/v0/0", "text": ""}']
)
def test_a_journal_that_this_program_did_not_write_is_named(revos, tmp_path, server, capsys, line):
    (tmp_path / "journal.jsonl").write_text(f"{line}\n{{}}\n")
    assert main(arguments(revos, tmp_path, server)) == 1
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert "journal" in said
    assert not server.questions
