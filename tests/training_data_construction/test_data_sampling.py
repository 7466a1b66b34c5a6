"""Sampling keeps proportions, is deterministic, repeats no expression, and keeps all fields."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from subprocess import run

import pytest

from training_data_construction import data_sampling
from training_data_construction.data_sampling import (
    group_by_stratum,
    main,
    quotas,
    sample_keys,
    select_expressions,
    stratum_of,
)
from veason.errors import DataError


def annotation(counts: dict[tuple[int, int], int]) -> dict:
    """`counts`: (type_id, objects) -> expressions, spread over ten videos."""
    videos = {
        f"set/v{k}": {"expressions": {}, "frames": ["0"], "vid_id": k, "height": 9, "width": 16, "source": "x"}
        for k in range(10)
    }
    number = 0
    for (type_id, objects), count in counts.items():
        for _ in range(count):
            entry = {
                "exp": f"é {number}",
                "obj_id": list(range(objects)),
                "anno_id": list(range(objects)),
                "type_id": type_id,
                "note": number,
            }
            videos[f"set/v{number % 10}"]["expressions"][str(number)] = entry
            number += 1
    return {"videos": videos, "info": "kept"}


COUNTS = {(0, 1): 300, (0, 3): 100, (1, 1): 450, (1, 2): 150, (2, 0): 80}


def drawn(content, size, seed=0):
    strata, _ = group_by_stratum(content["videos"])
    return sample_keys(strata, size, random.Random(seed))


def strata_of(content, keys):
    return Counter(stratum_of(content["videos"][video]["expressions"][exp_id]) for video, exp_id in keys)


def test_a_stratum_gets_the_product_of_its_marginal_ratios():
    strata, absent = group_by_stratum(annotation(COUNTS)["videos"])
    assert len(absent) == 80
    assert quotas(strata, 200) == {
        ("referring", "single"): 60,  # 0.4 * 0.75 * 200
        ("referring", "multiple"): 20,
        ("reasoning", "single"): 90,
        ("reasoning", "multiple"): 30,
    }
    content = annotation(COUNTS)
    assert strata_of(content, drawn(content, 200)) == quotas(strata, 200)


def test_a_stratum_that_runs_short_is_filled_at_random_from_the_others():
    content = annotation({(0, 1): 10, (0, 2): 90, (1, 1): 90, (1, 2): 10})
    strata, _ = group_by_stratum(content["videos"])
    assert set(quotas(strata, 160).values()) == {40, 10}  # a quarter each, where there are as many
    chosen = drawn(content, 160)
    assert len(chosen) == 160
    assert strata_of(content, chosen)["referring", "single"] == 10


def test_rounding_excess_is_removed_and_small_sets_are_taken_whole():
    content = annotation({(0, 1): 50, (0, 2): 50, (1, 1): 50, (1, 2): 50})
    assert len(drawn(content, 6)) == 6  # 4 strata of round(1.5) = 2
    assert len(drawn(content, 10_000)) == 200


@pytest.mark.parametrize("size", [1, 7, 100, 999, 1000])
def test_one_seed_one_sample_of_the_size_without_repeats(size):
    content = annotation(COUNTS)
    assert drawn(content, size, 1) == drawn(content, size, 1)
    assert len(drawn(content, size, 1)) == size
    assert size in (1, 1000) or drawn(content, size, 1) != drawn(content, size, 2)


def test_nothing_of_an_expression_or_a_video_is_lost(tmp_path):
    content = annotation(COUNTS)
    source, output = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(json.dumps(content))
    main(
        [
            "--input_json",
            str(source),
            "--output_json",
            str(output),
            "--target_size",
            "120",
            "--no_target_size",
            "9",
            "--seed",
            "4",
        ]
    )
    result = json.loads(output.read_text(encoding="utf-8"))
    assert result["info"] == "kept"
    types = Counter()
    for video, entry in result["videos"].items():
        before = content["videos"][video]
        assert {k: v for k, v in entry.items() if k != "expressions"} == {
            k: v for k, v in before.items() if k != "expressions"
        }
        order = [exp_id for exp_id in before["expressions"] if exp_id in entry["expressions"]]
        assert list(entry["expressions"]) == order
        for exp_id, expression in entry["expressions"].items():
            assert expression == before["expressions"][exp_id]
            types[expression["type_id"] == 2] += 1
    assert types == {False: 120, True: 9}
    assert select_expressions(content, set())["videos"] == {}


def test_the_table_and_the_default_output(tmp_path, capsys, monkeypatch):
    (tmp_path / "meta_expressions_train_.json").write_text(json.dumps(annotation(COUNTS)))
    monkeypatch.setenv("REVOS_ROOT", str(tmp_path))
    main(["--target_size", "200"])
    shown = capsys.readouterr().out
    assert (tmp_path / "meta_expressions_train_select.json").is_file()
    line = next(line for line in shown.splitlines() if line.startswith("reasoning, multiple"))
    assert line.split() == ["reasoning,", "multiple", "150", "15.0", "%", "30", "15.0", "%"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[]", r"in\.json is a list of 0, not an object"),
        (json.dumps({"videos": {"v": {"expressions": []}}}), "video v: expressions is a list of 0, not an object"),
        (json.dumps(annotation({(2, 0): 5})), "nothing can be sampled"),
        (
            json.dumps({"videos": {"v": {"expressions": {"3": {"exp": "x"}}}}}),
            "expression 3 of video v: it has no 'type_id'",
        ),
    ],
)
def test_bad_input_ends_with_one_line_and_no_output(tmp_path, content, said):
    source = tmp_path / "in.json"
    source.write_text(content)
    with pytest.raises(SystemExit, match=said):
        main(["--input_json", str(source)])
    assert not (tmp_path / "meta_expressions_train_select.json").exists()


def test_sizes_and_missing_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("REVOS_ROOT", raising=False)
    with pytest.raises(SystemExit, match="input is missing"):
        main(["--input_json", str(tmp_path / "none.json")])
    with pytest.raises(SystemExit, match="--input_json"):
        main([])
    with pytest.raises(DataError, match="--target_size 0"):
        sample_keys({("referring", "single"): [("v", "0")]}, 0, random.Random(0))


def test_it_runs_as_a_script_from_anywhere(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps(annotation(COUNTS)))
    done = run(
        [sys.executable, data_sampling.__file__, "--input_json", "in.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "1000 expressions written" in done.stdout, done.stderr


def test_system_errors_are_one_line(tmp_path):
    source = tmp_path / "in.json"
    source.write_text(json.dumps(annotation(COUNTS)))
    below = source / "folder" / "out.json"
    with pytest.raises(SystemExit, match=rf"^data_sampling: {source / 'folder'}: Not a directory$"):
        main(["--input_json", str(source), "--output_json", str(below)])
    with pytest.raises(SystemExit, match=rf"^data_sampling: .*{tmp_path} is a folder, not a file$"):
        main(["--input_json", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"--no_target_size -1: at least 0"):
        main(["--input_json", str(source), "--no_target_size", "-1"])
