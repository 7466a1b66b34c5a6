"""Exports the toy policy in bf16 shards below 15 MB, and writes its model card.

    python -m training_scripts.toy.policy_card export --runs outputs/toy/sft --output weights/toy_policy
    python -m training_scripts.toy.policy_card card --runs outputs/toy/pretrain outputs/toy/sft \\
        --output weights/toy_policy --evaluation outputs/toy/eval --world outputs/toy/world/ReVOS

J&F and R come from the evaluation's metrics.json. The format, keyframe and spatial parts of the published reward are
computed on the same answers, in [0, 1], over the expressions with a target.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from grpo_reward.rules import find_rule
from grpo_reward.scorer import RewardScorer
from veason.command_line import HelpFormatter, parse_arguments
from veason.data.base import VideoSample
from veason.data.training import KeyframeTrainingData
from veason.frames import evaluation_frames
from veason.inference.prediction import NO_TARGET
from verl.trainer.run_log import read_metrics

MAX_SHARD_SIZE = "14MB"
COLUMNS = ("Overall J&F", "Overall J", "Overall F", "Referring J&F", "Reasoning J&F", "R binary")


class EvaluationFramesData(KeyframeTrainingData):
    """Training data with the frames that the evaluation shows."""

    def _frames(self, sample: VideoSample, index: int, seed: int) -> list[int]:
        return evaluation_frames(len(sample.frames), self.sampled_frames)


def reward_metrics(evaluation: Path, world: Path) -> dict[str, float]:
    """Means over the evaluated answers: the reward parts `format`, `keyframe` and `box_iou` in [0, 1], the share
    `parsed` of answers that inference can parse, and the number of `answers`.
    """
    header, *records = map(json.loads, (evaluation / "predictions.jsonl").read_text(encoding="utf-8").splitlines())
    settings = header["header"]
    data = EvaluationFramesData(
        world,
        settings["sampled_frames"],
        settings["keyframe_resize"],
        meta_file="meta_expressions_valid_.json",
        coordinate_range=settings.get("coordinate_range"),
    )
    scorer = RewardScorer(find_rule("no_sam2"), None)
    answers = {record["sample_id"]: record["answer"] for record in records}
    rows = []
    for index in range(len(data)):
        if data.sample_id(index) in answers:
            (score,) = scorer.score(data.example(index, 0), [answers[data.sample_id(index)]])
            rows.append((score.parts["format"] / 2, score.parts["keyframe"], score.parts["spatial"]))
    format_part, keyframe, box_iou = np.mean(rows, axis=0).tolist()
    parsed = float(np.mean([record["failure"] in (None, NO_TARGET) for record in records]))
    return {"format": format_part, "keyframe": keyframe, "box_iou": box_iou, "parsed": parsed, "answers": len(rows)}


def benchmark_metrics(evaluation: Path) -> dict[str, float]:
    """The columns of the evaluation's table that are present, in percent."""
    table = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))["table"]
    return {name: table[name]["value"] for name in COLUMNS if name in table and table[name]["value"] is not None}


def export_policy(checkpoint: Path, output: Path) -> int:
    """Writes the checkpoint in bf16; returns the size of its weights in bytes."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.bfloat16)
    model.save_pretrained(output, max_shard_size=MAX_SHARD_SIZE)
    AutoProcessor.from_pretrained(checkpoint).save_pretrained(output)
    return weight_bytes(output)


def weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def describe_training(run: Path) -> str:
    """A line about the steps up to the run's exported checkpoint; the run may have continued after it."""
    trainer = (run / "huggingface").resolve().parents[1] / "trainer.json"
    steps = read_metrics(run)[: json.loads(trainer.read_text(encoding="utf-8"))["step"]]
    minutes = sum(row.get("timing_s/step", 0.0) for row in steps) / 60
    return f"- `{run.name}`: {len(steps)} steps in {minutes:.1f} minutes, final loss {steps[-1]['loss']:.3f}"


FAMILIES = {"qwen2_5_vl": "Qwen2.5-VL", "qwen3_vl": "Qwen3-VL"}
CARD = """# A tiny {family} for the toy world

{layers} layers with {hidden} channels over a vision tower of {vision_layers} layers with {vision_hidden};
{size:.1f} MB in bf16. It was trained from random weights with this project's own SFT (`verl.trainer.sft`) on chains of
thought about rendered videos: first with a teacher without errors (`configs/toy/pretrain.yaml`), then with a noisy one
(`configs/toy/sft.yaml`, `veason/toy/noisy_teacher.py`). It answers the prompt `Find "<expression>".` about frames of
{side} x {side} pixels in the published format, and works on toy videos only. Its rotary embedding is its own
(config.json); the rest of the architecture is {family}'s.

`training_scripts/run_toy_grpo.sh` and `make demo` start from it. It reproduces the errors of the noisy teacher, which
GRPO is to correct: it answers most comparisons with "no target", and adds a box to many answers about a single object.

On the {answers:.0f} expressions with a target of held-out toy ReVOS videos, greedy answers, masks by
`weights/toy_tracker`:

| | |
| --- | --- |
{rows}
| format part | {format:.1f} % |
| keyframe part | {keyframe:.1f} % |
| spatial part (IoU of the boxes) | {box_iou:.1f} % |

Made by `{command}` at commit {commit}:

{stages}

`metrics.json` has the metrics.

Licence: Apache-2.0. No third-party image or weight was used.
"""


def write_card(output: Path, metrics: dict[str, float], command: str, runs: Sequence[Path], side: int) -> None:
    """Writes the model card, `README.md`.

    Args:
        runs: the folders of the training stages in order.
        side: of the frames, in pixels.
    """
    config = AutoConfig.from_pretrained(output)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    card = CARD.format(
        family=FAMILIES[config.model_type],
        side=side,
        layers=config.text_config.num_hidden_layers,
        hidden=config.text_config.hidden_size,
        vision_layers=config.vision_config.depth,
        vision_hidden=config.vision_config.hidden_size,
        size=weight_bytes(output) / 1e6,
        answers=metrics["answers"],
        rows="\n".join(f"| {name} | {value:.1f} % |" for name, value in metrics.items() if name in COLUMNS),
        command=command,
        commit=commit.stdout.strip() or "unknown",
        stages="\n".join(map(describe_training, runs)),
        **{name: 100 * metrics[name] for name in ("format", "keyframe", "box_iou")},
    )
    (output / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("action", choices=("export", "card"), help="export: weights of a run; card: metrics and README")
    parser.add_argument(
        "--runs", type=Path, nargs="+", required=True, help="SFT folders in order; the last is exported"
    )
    parser.add_argument("--output", type=Path, required=True, help="the policy's folder")
    parser.add_argument("--evaluation", type=Path, help="output of eval.evaluate on the valid split by that policy")
    parser.add_argument("--world", type=Path, help="the toy ReVOS")
    parser.add_argument("--command", default="bash training_scripts/run_toy_sft.sh", help="recorded on the card")
    options = parse_arguments(parser)
    if options.action == "export":
        print(f"{export_policy(options.runs[-1] / 'huggingface', options.output) / 1e6:.1f} MB in {options.output}")
        return
    if options.evaluation is None or options.world is None:
        parser.error("card needs --evaluation and --world")
    metrics = {**benchmark_metrics(options.evaluation), **reward_metrics(options.evaluation, options.world)}
    (options.output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    header = json.loads((options.evaluation / "predictions.jsonl").read_text(encoding="utf-8").splitlines()[0])
    write_card(options.output, metrics, options.command, options.runs, header["header"]["keyframe_resize"])
    print(json.dumps({name: round(value, 3) for name, value in metrics.items()}))


if __name__ == "__main__":
    main()
