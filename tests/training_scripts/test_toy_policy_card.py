"""The metrics on the toy policy's card are those of the published reward on the evaluated answers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from training_scripts.toy.policy_card import EvaluationFramesData, benchmark_metrics, reward_metrics, write_card
from veason.answers import format_answer
from veason.inference.prediction import NO_TARGET
from veason.toy.layout_writers import write_revos
from veason.toy.tiny_policy import write_policy
from veason.toy.tiny_policy_config import PolicySize
from veason.toy.world import make_videos


@pytest.mark.parametrize("coordinate_range", [None, 1000])
def test_a_correct_answer_and_malformed_ones(tmp_path, coordinate_range):
    world, evaluation = tmp_path / "ReVOS", tmp_path / "eval"
    write_revos(world, {"valid": make_videos("v", 1, seed=0, frames=6, queries=4)})
    data = EvaluationFramesData(world, 3, 112, meta_file="meta_expressions_valid_.json")
    ground_truth = data.example(0, 0).ground_truth
    best = max(range(len(ground_truth.timestamps)), key=lambda i: ground_truth.masks[i].sum())
    answers = ["no answer"] * len(data)
    boxes = np.array(ground_truth.boxes[best]) * ((coordinate_range or 112) / 112)
    answers[0] = format_answer("it is there", ground_truth.timestamps[best], boxes)
    failures = [None, NO_TARGET] + ["no_answer"] * (len(data) - 2)
    records = [{"sample_id": data.sample_id(i), "answer": answers[i], "failure": failures[i]} for i in range(len(data))]
    evaluation.mkdir()
    header = {"header": {"sampled_frames": 3, "keyframe_resize": 112, "coordinate_range": coordinate_range}}
    (evaluation / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (header, *records)))
    share = 1 / len(data)
    expected = {"format": share, "keyframe": share, "box_iou": share, "parsed": 2 * share, "answers": len(data)}
    assert reward_metrics(evaluation, world) == pytest.approx(expected)
    (evaluation / "metrics.json").write_text(
        json.dumps({"table": {"Overall J&F": {"value": 51.5}, "R": {"value": 3.0}}})
    )
    assert benchmark_metrics(evaluation) == {"Overall J&F": 51.5}


def test_the_card_counts_the_steps_of_the_exported_checkpoint(tmp_path):
    """A run that was stopped after its last checkpoint has more steps in its log."""
    run, output = tmp_path / "run", tmp_path / "policy"
    checkpoint = run / "global_step_2"
    write_policy(checkpoint / "actor" / "huggingface", PolicySize(), seed=0)
    (checkpoint / "trainer.json").write_text('{"step": 2}')
    (run / "huggingface").symlink_to(checkpoint / "actor" / "huggingface")
    rows = [{"step": step, "loss": 1.0 / step, "timing_s/step": 60.0} for step in (1, 2, 3)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_policy(output, PolicySize(), seed=0)
    metrics = {"Overall J&F": 51.5, "answers": 7, "format": 1.0, "keyframe": 0.5, "box_iou": 0.25}
    write_card(output, metrics, "STEPS=3 bash run.sh", [run], 112)
    card = (output / "README.md").read_text()
    assert (
        "Made by `STEPS=3 bash run.sh` at commit" in card
        and "- `run`: 2 steps in 2.0 minutes, final loss 0.500\n" in card
    )
    assert card.startswith("# A tiny Qwen2.5-VL") and "112 x 112 pixels" in card
    assert "| Overall J&F | 51.5 % |" in card and "On the 7 expressions" in card
