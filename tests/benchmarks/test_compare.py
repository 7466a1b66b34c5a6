"""Measured runs beside their baselines: the same job is found, slower steps are told."""

import json
from dataclasses import asdict, replace

import pytest

from benchmarks.compare import comparison_table, find_same_job, main, read_runs, write_runs
from verl.trainer.baseline_runs import read_baseline_runs


@pytest.fixture
def baseline():
    return next(
        run for run in read_baseline_runs() if (run.program, run.model, run.gpus) == ("verl.trainer.main", "3b", 1)
    )


def test_a_run_is_compared_with_the_latest_of_its_job(baseline):
    old = replace(baseline, date="2026-01-01")
    other = [replace(baseline, date="2027-01-01", **{key: 3}) for key in ("gpus", "prompts", "lora_rank")]
    assert find_same_job(baseline, [old, *other]) is old
    assert find_same_job(baseline, [old, *other, replace(old, date="2026-02-01")]).date == "2026-02-01"
    assert find_same_job(baseline, other) is None


def test_every_phase_has_a_row_with_its_ratio(baseline):
    run = replace(baseline, seconds=baseline.seconds | {"update": baseline.seconds["update"] / 2, "new": 1.0})
    rows = comparison_table(run, baseline).splitlines()
    update, new = (next(row for row in rows if row.startswith(f"| {name} ")) for name in ("update", "new"))
    assert update.endswith("| 0.50 |") and new == "| new |  | 1.00 |  |"
    assert any(row.startswith("| whole step |") and row.endswith("| 1.00 |") for row in rows)


def test_a_slower_run_is_told_by_the_exit_status(baseline, tmp_path, capsys):
    path = tmp_path / "new.json"
    latest = find_same_job(baseline, read_baseline_runs())
    write_runs(path, [replace(latest, step_seconds=latest.step_seconds * 1.2), replace(latest, gpus=7)])
    assert read_runs(path)[0].step_seconds == latest.step_seconds * 1.2
    assert main([str(path)]) == 0 and main([str(path), "--tolerance", "0.1"]) == 1
    assert main([str(path), "--tolerance", "0.3"]) == 0
    assert "no baseline of this job and device" in capsys.readouterr().out


def test_a_file_without_runs_is_named(tmp_path):
    for content in ("{", "[1]", json.dumps([{"program": "x"}])):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(SystemExit, match=r"bad\.json holds no runs"):
            read_runs(tmp_path / "bad.json")
    assert asdict(read_baseline_runs()[0])
