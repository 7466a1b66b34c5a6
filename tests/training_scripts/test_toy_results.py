"""From runs on the disk to results.json, and from it to the page's tables and pictures."""

import json
import tarfile

import pytest

from training_scripts.toy.collect import collect, kind_of, pack
from training_scripts.toy.results import answers_table, commands, curves_table, scores_table, spread, write_page

BLOCKS = ("scores", "answers", "pictures", "curves", "commands")
TITLES = {"sft": "the start", "grpo": "GRPO", "control": "more SFT", "lora": "LoRA"}


def write_run(output, name, score, rewards=()):
    folder = output / "runs" / name
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
def results(tmp_path):
    write_run(tmp_path, "sft", 50.0)
    write_run(tmp_path, "grpo-0", 58.0, [1.0, 2.0, 3.0])
    write_run(tmp_path, "grpo-1", 60.0, [1.5, 2.5])
    write_run(tmp_path, "lora-0", None, [1.0])  # stopped before its evaluation
    return json.loads(collect(tmp_path, TITLES).read_text())


def test_runs_are_collected_with_seeds_curves_and_seconds(results):
    found = {(run["name"], run["seed"]): run for run in results["runs"]}
    assert set(found) == {("sft", None), ("grpo", 0), ("grpo", 1), ("lora", 0)}
    assert found["grpo", 0]["curves"]["reward/mean"] == [[1, 1.0], [2, 2.0], [3, 3.0]]
    assert found["grpo", 0]["stages"]["train"]["seconds"] == 60.0
    assert found["lora", 0]["scores"] is None and found["sft", None]["curves"] == {}


def test_tables_have_mean_and_spread_over_seeds(results):
    rows = scores_table(results).splitlines()
    assert rows[2] == "| the start | 1 | 50.0 | 50.0 | 50.0 | - | 50.0 | 50.0 |  |"
    assert rows[3] == "| GRPO | 2 | 59.0 ± 1.4 | 59.0 ± 1.4 | 59.0 ± 1.4 | - | 59.0 ± 1.4 | 59.0 ± 1.4 | 9.0 ± 1.4 |"
    assert len(rows) == 4  # a run without an evaluation has no row
    assert curves_table(results, {"reward/mean": "reward", "actor/kl": "KL"}).splitlines()[2:] == ["| GRPO | 2 | 1 |"]
    assert spread([]) == "-" and "python -m verl.trainer.main grpo-0" in commands(results)
    assert commands(results).startswith("- train: a GPU, torch 9\n\n")


def test_answers_are_counted_by_kind_of_expression(results):
    rows = answers_table(results).splitlines()
    assert rows[2] == "| the start | 50.0 | 100.0 | 50.0 | 100.0 | - | 0.0 |"
    assert (
        rows[3] == "| GRPO | 59.0 ± 1.4 | 100.0 ± 0.0 | 59.0 ± 1.4 | 100.0 ± 0.0 | - | 0.0 ± 0.0 |" and len(rows) == 4
    )
    kinds = [
        kind_of(0, 1, "the red ring"),
        kind_of(2, 0, "the fastest shape"),
        kind_of(1, 2, "the shapes that leave the picture"),
    ]
    assert kinds == ["referring", "absent", "several"]
    assert (
        kind_of(1, 1, "what another shape hides behind") == "compares"
        and kind_of(1, 1, "the shape that leaves the picture") == "single"
    )


def test_the_page_keeps_its_words_and_gets_new_blocks(results, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("words\n" + "".join(f"<!-- begin {name} -->\nold\n<!-- end {name} -->\n" for name in BLOCKS))
    write_page(results, page)
    text = page.read_text()
    assert (
        text.startswith("words\n")
        and "old" not in text
        and "59.0 ± 1.4" in text
        and "![ablations](page/ablations.png)" in text
    )
    assert {path.name for path in (tmp_path / "page").iterdir()} == {"grpo.png", "ablations.png", "variants.png"}
    page.write_text("nothing to fill")
    with pytest.raises(SystemExit, match="0 blocks 'scores'"):
        write_page(results, page)


def test_the_archive_holds_what_is_small(results, tmp_path):  # noqa: ARG001 (the runs)
    (tmp_path / "runs" / "grpo-0" / "train" / "model.safetensors").write_bytes(b"0")
    pack(tmp_path, tmp_path / "all.tar.gz")
    with tarfile.open(tmp_path / "all.tar.gz") as file:
        names = file.getnames()
    assert {
        "results.json",
        "runs/grpo-0/train.log",
        "runs/grpo-0/train/metrics.jsonl",
        "runs/sft/eval/metrics.json",
    } <= set(names)
    assert not any(name.endswith(".safetensors") for name in names)
