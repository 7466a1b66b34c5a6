"""From run folders to the tables and plots of the page."""

import json

import pytest

from training_scripts.toy.results import (
    answers_table,
    commands,
    curves_table,
    evaluated_runs,
    mean_and_std,
    scores_table,
    write_page,
)
from training_scripts.toy.runs import expression_kind, read_runs

BLOCKS = ("scores", "answers", "plots", "curves", "commands")


def write_run(output, name, score, rewards=()):
    folder = output / name
    (folder / "eval").mkdir(parents=True)
    (folder / "stages.json").write_text('{"train": {"seconds": 60.0, "machine": "a GPU, torch 9"}}')
    if rewards:
        (folder / "train").mkdir()
        rows = [
            {"step": step, "reward/mean": reward, "actor/kl": 0.5 * reward}
            for step, reward in enumerate(rewards, start=1)
        ]
        (folder / "train" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "train.log").write_text(f"/somewhere/python -m verl.trainer.main {name}\nstep 1\n")
    if score is not None:
        keys = ("Overall J&F", "Referring J&F", "Reasoning J&F", "Absent J&F", "R binary", "Absent R binary")
        table = {key: {"value": None if key == "Absent J&F" else score} for key in keys}
        samples = [{"sample_id": name, "JF": score / 100} for name in "abc"]
        (folder / "eval" / "metrics.json").write_text(json.dumps({"table": table, "samples": samples}))
        about = (
            ("a", 1, 1, "the fastest shape", None),
            ("b", 1, 1, "the shape that never moves", [[], []]),
            ("c", 2, 0, "the ring", []),
        )
        keys = ("sample_id", "type_id", "num_objects", "expression", "boxes")
        rows = [{"header": {}}, *(dict(zip(keys, values)) for values in about)]
        (folder / "eval" / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path, "sft", 50.0)
    write_run(tmp_path, "grpo-0", 58.0, [1.0, 2.0, 3.0])
    write_run(tmp_path, "grpo-1", 60.0, [1.5, 2.5])
    write_run(tmp_path, "lora-0", None, [1.0])  # stopped before its evaluation
    (tmp_path / "random_policy").mkdir()
    return read_runs(tmp_path)


def test_runs_are_read_with_curves_and_stages(runs):
    found = {name: [run for run in runs if run.name == name] for name in ("sft", "grpo", "lora")}
    assert [len(group) for group in found.values()] == [1, 2, 1] and len(runs) == 4
    assert found["grpo"][0].curve("reward/mean") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert found["grpo"][0].stages["train"]["seconds"] == 60.0
    assert found["lora"][0].scores is None and found["sft"][0].rows == []
    assert set(evaluated_runs(runs)) == {"sft", "grpo"}


def test_tables_have_mean_and_standard_deviation_over_seeds(runs):
    runs = evaluated_runs(runs)
    rows = scores_table(runs).splitlines()
    assert rows[2] == "| SFT, the initial policy | 1 | 50.0 | 50.0 | 50.0 | - | 50.0 | 50.0 |  |"
    cells = ["2", *["59.0 ± 1.4"] * 3, "-", *["59.0 ± 1.4"] * 2, "9.0 ± 1.4"]
    assert rows[3] == f"| GRPO, the published recipe | {' | '.join(cells)} |"
    assert len(rows) == 4  # a run without an evaluation has no row
    curves = curves_table(runs, {"reward/mean": "reward", "actor/kl": "KL"})
    assert curves.splitlines()[2:] == ["| GRPO, the published recipe | 2 | 1 |"]
    assert mean_and_std([]) == "-" and "python -m verl.trainer.main grpo-0" in commands(runs)
    assert commands(runs).startswith("- train: a GPU, torch 9\n\n")


def test_answers_are_counted_by_kind_of_expression(runs):
    rows = answers_table(evaluated_runs(runs)).splitlines()
    assert rows[2] == "| SFT, the initial policy | 50.0 | 100.0 | 50.0 | 100.0 | - | 0.0 |"
    cells = ["59.0 ± 1.4", "100.0 ± 0.0", "59.0 ± 1.4", "100.0 ± 0.0", "-", "0.0 ± 0.0"]
    assert rows[3] == f"| GRPO, the published recipe | {' | '.join(cells)} |" and len(rows) == 4


@pytest.mark.parametrize(
    ("type_id", "targets", "expression", "kind"),
    [
        (0, 1, "the red ring", "referring"),
        (2, 0, "the fastest shape", "absent"),
        (1, 2, "the shapes that leave the picture", "several"),
        (1, 1, "what another shape hides behind", "comparison"),
        (1, 1, "the shape that leaves the picture", "single"),
    ],
)
def test_kinds_of_expressions(type_id, targets, expression, kind):
    assert expression_kind(type_id, targets, expression) == kind


def test_the_page_keeps_its_text_and_gets_new_blocks(runs, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text\n" + "".join(f"<!-- begin {name} -->\nold\n<!-- end {name} -->\n" for name in BLOCKS))
    write_page(evaluated_runs(runs), page)
    text = page.read_text()
    assert text.startswith("text\n") and "old" not in text
    assert "59.0 ± 1.4" in text and "![ablations](page/ablations.png)" in text
    assert {path.name for path in (tmp_path / "page").iterdir()} == {"grpo.png", "ablations.png", "variants.png"}
    page.write_text("nothing to fill")
    with pytest.raises(SystemExit, match="0 blocks 'scores'"):
        write_page(evaluated_runs(runs), page)
