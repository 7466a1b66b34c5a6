"""The whole command when it stops early: budgets, interrupts and kills, and the run that resumes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from fake_teacher import PRESENT, Failure, arguments, read_journal, read_records

from training_data_construction.seed_cot_generation import main

SCRIPT = Path(__file__).parents[2] / "training_data_construction" / "seed_cot_generation.py"


def test_budget_of_requests_over_runs(revos, tmp_path, server, capsys):
    assert main(arguments(revos, tmp_path, server, "--max_requests", 5)) == 3
    assert len(server.questions) == 5 == len(read_records(tmp_path))
    assert "the budget is exhausted: 5 requests" in capsys.readouterr().out
    assert main(arguments(revos, tmp_path, server, "--max_requests", 5)) == 3
    assert len(server.questions) == 5
    assert main(arguments(revos, tmp_path, server)) == 0
    assert len(server.questions) == PRESENT == len(read_records(tmp_path))


def test_budget_of_tokens(revos, tmp_path, server):
    server.delay = 0.02
    assert main(arguments(revos, tmp_path, server, "--max_tokens_total", 700)) == 3  # 120 a request
    assert len(server.questions) == 5


def test_stopping_does_not_wait_for_retry_after(revos, tmp_path, server, capsys):
    failures = {2: Failure(429, {"Retry-After": "600"}), 3: Failure(401, body=b"the key was withdrawn")}
    server.misbehave = lambda number, _: time.sleep(0.2 if number == 3 else 0) or failures.get(number)
    start = time.monotonic()
    assert main(arguments(revos, tmp_path, server)) == 1
    assert time.monotonic() - start < 60
    assert "the key was withdrawn" in capsys.readouterr().err


def test_other_settings_do_not_mix_with_a_journal(revos, tmp_path, server, capsys):
    assert main(arguments(revos, tmp_path, server, "--max_requests", 3)) == 3
    assert main(arguments(revos, tmp_path, server, "--seed", 1)) == 1
    assert "about other frames" in capsys.readouterr().err


def start(revos, output, server):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    output.mkdir(exist_ok=True)
    with open(output / "stderr.txt", "ab") as errors:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), *arguments(revos, output, server)],
            env=environment,
            stdout=errors,
            stderr=errors,
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
                path.exists() and path.read_bytes().count(b'"text"') >= answered and len(server.questions) >= limit + 4
            ),
            process,
        )
        process.kill()
        process.wait()
        hung.set()
        assert path.read_bytes().count(b'"text"') == answered
        with open(path, "ab") as file:
            file.write(b'{"sample_id": "set/v3/2", "keyfr')  # as a kill in mid-write leaves it
        hung = threading.Event()
    server.misbehave = lambda *_: None
    assert main(arguments(revos, tmp_path, server)) == 0
    assert len(server.questions) == PRESENT + 2 * 4  # only what was in flight is asked again
    answers = [entry for entry in read_journal(tmp_path) if "text" in entry]
    assert set(Counter(entry["sample_id"] for entry in answers).values()) == {1}
    assert len(read_journal(tmp_path)) == PRESENT + 2 * 4  # what was in flight at a kill counts as lost
    assert main(arguments(revos, tmp_path / "undisturbed", server)) == 0
    assert read_records(tmp_path) == read_records(tmp_path / "undisturbed")


def test_interrupted(revos, tmp_path, server):
    """One SIGINT: requests in flight finish and are journaled, and no more are sent."""
    noticed = threading.Event()
    server.misbehave = lambda number, _: noticed.wait(120) and None if number else None
    process = start(revos, tmp_path, server)
    wait_for(lambda: len(server.questions) == 1 + 4, process)  # the first alone, then one of each worker
    process.send_signal(signal.SIGINT)
    wait_for(lambda: "waiting for the requests in flight" in (tmp_path / "stderr.txt").read_text(), process)
    noticed.set()
    assert process.wait(120) == 3, (tmp_path / "stderr.txt").read_text()
    assert len(read_journal(tmp_path)) == len(server.questions) == 1 + 4 < PRESENT
