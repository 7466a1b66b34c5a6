"""Jobs side by side: slots, failures, going on, and the end of the time."""

import sys
import time

import pytest

from training_scripts.toy import pool as toy_pool
from training_scripts.toy.pool import Job, Stage, run_jobs


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(toy_pool, "APART", 0.0)
    monkeypatch.setattr(toy_pool, "POLL", 0.02)


def stage(folder, name, code):
    product = folder / f"{name}.txt"
    return Stage(
        name,
        [
            sys.executable,
            "-S",
            "-c",
            f"import os, sys, time; {code}; open({str(product)!r}, 'a').write(os.environ['SLOT'])",
        ],
        product,
    )


def job(tmp_path, name, *codes):
    folder = tmp_path / name
    return Job(name, folder, [stage(folder, f"stage{number}", code) for number, code in enumerate(codes)])


def test_every_job_has_its_slot_and_stages_follow_each_other(tmp_path):
    jobs = [job(tmp_path, name, "time.sleep(0.2)", "pass") for name in "abc"]
    run_jobs(jobs, [{"SLOT": "0"}, {"SLOT": "1"}], 60)
    assert [each.state for each in jobs] == ["done"] * 3
    used = ["".join((each.folder / f"stage{number}.txt").read_text() for number in (0, 1)) for each in jobs]
    assert used[:2] == ["00", "11"] and used[2] in ("00", "11")  # both stages in one slot
    assert all(set(each.ended) == {"stage0", "stage1"} for each in jobs)


def test_a_failed_job_stops_no_other_and_its_log_is_shown(tmp_path, capsys):
    jobs = [job(tmp_path, "bad", "sys.exit('no luck')", "pass"), job(tmp_path, "good", "pass")]
    run_jobs(jobs, [{"SLOT": "0"}], 60)
    assert [each.state for each in jobs] == ["failed", "done"] and not (jobs[0].folder / "stage1.txt").exists()
    told = capsys.readouterr().out
    assert "bad: failed in stage0 (status 1)" in told and "no luck" in told


def test_the_same_jobs_go_on_where_they_were_stopped(tmp_path):
    run_jobs([job(tmp_path, "a", "pass", "sys.exit(3)")], [{"SLOT": "0"}], 60)
    again = job(tmp_path, "a", "pass", "pass")
    run_jobs([again], [{"SLOT": "1"}], 60)
    assert (
        again.state == "done"
        and (again.folder / "stage0.txt").read_text() == "0"
        and set(again.ended) == {"stage0", "stage1"}
    )
    run_jobs([again], [{"SLOT": "2"}], 60)
    assert (again.folder / "stage1.txt").read_text() == "1"


def test_nothing_outlives_the_time(tmp_path):
    sleeper = "subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])"
    child = f"import subprocess; print({sleeper}.pid, flush=True); time.sleep(60)"
    jobs = [job(tmp_path, "long", child), job(tmp_path, "late", "pass")]
    start = time.monotonic()
    run_jobs(jobs, [{"SLOT": "0"}], 1.0)
    assert time.monotonic() - start < 10 and [each.state for each in jobs] == ["stopped", "waiting"]
    pid = int((jobs[0].folder / "stage0.log").read_text().split()[-1])
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().split()[2] == "Z":  # ended, and nobody has asked how
                    break
        except FileNotFoundError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child of a stopped stage is still at work")
