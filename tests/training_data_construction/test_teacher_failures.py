"""The whole command against an HTTP server that fails: retries, and errors that end the run."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter

import pytest
from fake_teacher import PRESENT, TIMEOUT, VIDEOS, Failure, arguments, read_journal, read_records, wait_until

from training_data_construction.budget import RateLimiter
from training_data_construction.seed_cot_generation import main
from training_data_construction.teachers import MAX_RETRY_AFTER, read_retry_after


def record_id(record):
    return f"{record['video']}/{record['exp_id']}"


def test_temporary_failures_cost_no_answer(revos, tmp_path, server):
    """429, 500, broken connections, pages and nonsense with status 200: every expression still gets one answer."""
    failures = [
        Failure(429, {"Retry-After": "0.3"}, b'{"error": {"message": "slow down"}}'),
        Failure(500, body=b"oops"),
        Failure(cut=True),
        Failure(200, body=b"<html>maintenance</html>"),
        Failure(200, body=b'{"choices": []}'),
        Failure(200, body=b'{"error": {"message": "overloaded"}}'),
        Failure(503, {"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"}),
        Failure(cut=True),
    ]
    left, asked = iter(failures), set()

    def fail_once(_number, question):
        """The first request about an expression: one that meets three lost answers would stay open."""
        return None if question in asked else asked.add(question) or next(left, None)

    server.misbehave = fail_once
    start = time.monotonic()
    assert main(arguments(revos, tmp_path, server)) == 0
    assert time.monotonic() - start > 0.3  # Retry-After
    entries = read_journal(tmp_path)
    assert Counter(entry["sample_id"] for entry in entries if "lost" not in entry) == {
        record_id(r): 1 for r in read_records(tmp_path)
    }
    assert len(read_records(tmp_path)) == PRESENT
    assert sum("lost" in entry for entry in entries) == 5  # paid for, perhaps: counted in the budget
    assert len(server.questions) == PRESENT + len(failures)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2.5", 2.5), ("-3", 0), ("inf", MAX_RETRY_AFTER), ("99999", MAX_RETRY_AFTER), ("nan", None), ("soon", None)]
    + [("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER), ("Fri, 99 Dec 99999 23:59:59 GMT", None)],
)
def test_retry_after_is_bounded(value, seconds):
    assert read_retry_after(value) == seconds


def test_retry_after_delays_all_requests(revos, tmp_path, server, monkeypatch):
    """Those of the other workers too, whose requests are in flight as the answer 429 comes."""
    back_off, begun, refused, times = RateLimiter.back_off, [], threading.Event(), []

    async def told(*arguments):
        begun.append(time.monotonic())
        refused.set()  # the others' answers are read after this step of the loop
        await back_off(*arguments)

    def busy(number, _question):
        times.append(time.monotonic())
        if number == 1:
            wait_until(lambda: len(times) == 1 + 4)  # the first request alone, then one of each worker
            return Failure(429, {"retry-after": "0.4"})
        return None if number == 0 or refused.wait(60) else Failure(500)

    monkeypatch.setattr(RateLimiter, "back_off", told)
    server.misbehave = busy
    assert main(arguments(revos, tmp_path, server)) == 0
    assert len(begun) == 1 and len(times) == PRESENT + 1
    assert min(times[5:]) >= begun[0] + 0.4


def test_slow_answers_are_lost_and_asked_again(revos, tmp_path, server):
    left = threading.Event()
    server.misbehave = lambda number, _: left.wait(60) and None if number == 2 else None
    try:
        assert main(arguments(revos, tmp_path, server, "--timeout", TIMEOUT)) == 0
    finally:
        left.set()
    assert [entry["lost"] for entry in read_journal(tmp_path) if "lost" in entry] == [
        f"the server did not answer within {TIMEOUT} s"
    ]
    assert len(read_records(tmp_path)) == PRESENT


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
        (Failure(302, {"Location": "https://elsewhere/v1"}), "redirects to https://elsewhere/v1: give that address"),
        (Failure(307, {"Location": "https://elsewhere/v1"}), "redirects to https://elsewhere/v1: give that address"),
    ],
)
def test_a_wrong_set_up_ends_the_run_at_the_first_request(revos, tmp_path, server, capsys, failure, said):
    server.misbehave = lambda *_: failure
    assert main(arguments(revos, tmp_path, server)) == 1
    assert len(server.questions) == 1
    assert said in capsys.readouterr().err
    lost = [entry["lost"] for entry in read_journal(tmp_path)]  # with status 200 it may have been paid for
    assert len(lost) == (failure.status == 200) and said in (lost or [said])[0]
    assert not (tmp_path / "cot_train.json").exists()


def test_no_server_at_the_address(revos, tmp_path, capsys):
    assert main(arguments(revos, tmp_path, "http://127.0.0.1:9/v1", "--first_delay", 100)) == 1
    assert "connection" in capsys.readouterr().err
    assert not read_journal(tmp_path)


def test_one_request_refused(revos, tmp_path, server):
    def refuse(_number, question):
        return (
            Failure(400, body=b'{"error": {"message": "content policy"}}')
            if "what is green" in question.split("\n\n")[1]
            else None
        )

    server.misbehave = refuse
    assert main(arguments(revos, tmp_path, server, "--workers", 1)) == 0
    rejected = json.loads((tmp_path / "rejected.json").read_text())
    assert len(rejected) == VIDEOS
    assert all(entry["refused"] and "content policy" in entry["reasons"][0] for entry in rejected)
    assert len(server.questions) == PRESENT


def test_a_resumed_run_may_start_with_a_refused_request(revos, tmp_path, server):
    """The first request of a first run has to be answered; later the journal tells that the model is served."""
    assert main(arguments(revos, tmp_path, server, "--max_requests", 1)) == 3
    server.misbehave = lambda number, _: Failure(400, body=b"no") if number == 1 else None
    assert main(arguments(revos, tmp_path, server)) == 0
    assert len(read_records(tmp_path)) == PRESENT - 1


def test_a_server_that_dies_ends_the_run_and_loses_nothing(revos, tmp_path, server, capsys):
    server.misbehave = lambda number, _: Failure(502, body=b"bad gateway") if number >= 3 else None
    assert main(arguments(revos, tmp_path, server, "--tries", 2)) == 1
    assert "bad gateway" in capsys.readouterr().err
    assert len(read_journal(tmp_path)) == 3
    server.misbehave = lambda *_: None
    asked = len(server.questions)
    assert main(arguments(revos, tmp_path, server)) == 0
    assert len(server.questions) == asked + PRESENT - 3
    assert len(read_records(tmp_path)) == PRESENT
