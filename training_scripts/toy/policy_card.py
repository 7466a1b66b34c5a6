"""The toy policy as it ships: bf16 safetensors in files below 15 MB, and the card that says how it was made and what it
is worth.

    python -m training_scripts.toy.policy_card ship --runs outputs/toy/sft --output weights/toy_policy
    python -m training_scripts.toy.policy_card card --runs outputs/toy/see outputs/toy/sft --output weights/toy_policy \\
        --evaluation outputs/toy/eval --world outputs/toy/world/ReVOS --command "bash training_scripts/run_toy_sft.sh"

J&F and R come from the evaluation's metrics.json; the share of answers in the right form, the keyframe's area and the
boxes' IoU are those of the published reward on the same answers, in [0, 1], over the expressions whose target is in the
video.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from grpo_reward.reward_score import score_answer
from veason.data.base import VideoSample
from veason.data.training import KeyframeTrainingData
from veason.frames import evaluation_frames
from veason.pipeline import NO_TARGET
from verl.trainer.run_log import read_metrics

SHARD = "14MB"  # a file that any host takes
TABLE = ("Overall J&F", "Overall J", "Overall F", "Referring J&F", "Reasoning J&F", "R binary")


class AsEvaluated(KeyframeTrainingData):
    """The truth on the frames that the evaluation shows."""

    def _frames(self, sample: VideoSample, index: int, seed: int) -> list[int]:
        return evaluation_frames(len(sample.frames), self.sampled_frames)


def answer_figures(evaluation: Path, world: Path) -> dict[str, float]:
    """Means over the evaluated answers: `form`, `keyframe`, `box_iou`, and `readable`, the share that inference could
    read.
    """
    header, *records = map(json.loads, (evaluation / "predictions.jsonl").read_text(encoding="utf-8").splitlines())
    settings = header["header"]
    data = AsEvaluated(
        world, settings["sampled_frames"], settings["keyframe_resize"], meta_file="meta_expressions_valid_.json"
    )
    answers = {record["sample_id"]: record["answer"] for record in records}
    rows = []
    for index in range(len(data)):
        if data.sample_id(index) in answers:
            score = score_answer(answers[data.sample_id(index)], data.example(index, 0).truth, None, "no_sam2")
            rows.append((score.format / 2, score.keyframe, score.spatial))
    form, keyframe, box_iou = np.mean(rows, axis=0).tolist()
    readable = float(np.mean([record["failure"] in (None, NO_TARGET) for record in records]))
    return {"form": form, "keyframe": keyframe, "box_iou": box_iou, "readable": readable, "answers": len(rows)}


def benchmark_figures(evaluation: Path) -> dict[str, float]:
    """What of the evaluation's table is there, in percent."""
    table = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))["table"]
    return {name: table[name]["value"] for name in TABLE if name in table and table[name]["value"] is not None}


def ship(checkpoint: Path, output: Path) -> int:
    """Writes the checkpoint in bf16; gives its bytes of weights."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.bfloat16)
    model.save_pretrained(output, max_shard_size=SHARD)
    AutoProcessor.from_pretrained(checkpoint).save_pretrained(output)
    return weight_bytes(output)


def weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def told(run: Path) -> str:
    """What went into the checkpoint that a run has left; the run may have been ended after it."""
    shipped = json.loads(
        (run / "huggingface").resolve().parents[1].joinpath("trainer.json").read_text(encoding="utf-8")
    )["step"]
    steps = read_metrics(run)[:shipped]
    minutes = sum(row.get("seconds/step", 0.0) for row in steps) / 60
    return f"- `{run.name}`: {len(steps)} steps in {minutes:.1f} minutes, loss {steps[-1]['loss']:.3f} at the end"


def write_card(output: Path, figures: dict[str, float], command: str, runs: Sequence[Path]) -> None:
    """`README.md`; `runs` are the folders of the stages in their order."""
    size = weight_bytes(output)
    config = Qwen2_5_VLForConditionalGeneration.config_class.from_pretrained(output)
    text, vision = config.text_config, config.vision_config
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    rows = "\n".join(f"| {name} | {value:.1f} % |" for name, value in figures.items() if name in TABLE)
    stages = "\n".join(map(told, runs))
    output.joinpath("README.md").write_text(
        f"""# A small Qwen2.5-VL for the toy world

{text.num_hidden_layers} layers of {text.hidden_size} channels over a vision tower of {vision.depth} layers of {vision.hidden_size};
{size / 1e6:.1f} MB in bf16. It was trained from random weights by this project's own fine-tuning (`verl.trainer.sft`) on chains of
thought about drawn videos: first on those of a teacher that is always right, from which it learned to see (`configs/toy/pretrain.yaml`), then
on those of a hasty one (`configs/toy/sft.yaml`, `veason/toy/hasty.py`). It answers in the published form, in 112 x 112 pixels, to the
question `Find "<expression>".`, and knows toy videos only. Its rotary sections and base are its own (config.json), everything else is
Qwen2.5-VL's.

It is where `training_scripts/run_toy_grpo.sh` and `make demo` start from, so it has the faults that GRPO is to mend: it gives up
most questions that compare shapes, and boxes one shape too many when it is asked what a single one does.

On the {figures["answers"]:.0f} expressions with a target of unseen toy ReVOS videos, answers greedy, masks by `weights/toy_tracker`:

| | |
| --- | --- |
{rows}
| answers in the right form | {100 * figures["form"]:.1f} % |
| area at the keyframe / largest | {100 * figures["keyframe"]:.1f} % |
| IoU of the boxes | {100 * figures["box_iou"]:.1f} % |

Made by `{command}` at commit {commit.stdout.strip() or "unknown"}:

{stages}

`figures.json` has the numbers.

Licence: Apache-2.0. No image or weight of others went into it.
""",
        encoding="utf-8",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ship", "card"))
    parser.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        required=True,
        help="the fine-tunings' folders in their order; the last one ships",
    )
    parser.add_argument("--output", type=Path, required=True, help="the policy's folder")
    parser.add_argument(
        "--evaluation", type=Path, help="folder of eval.evaluate on the world's valid videos, by the policy in --output"
    )
    parser.add_argument("--world", type=Path, help="the toy ReVOS")
    parser.add_argument("--command", default="bash training_scripts/run_toy_sft.sh", help="for the card")
    options = parser.parse_args()
    if options.what == "ship":
        print(f"{ship(options.runs[-1] / 'huggingface', options.output) / 1e6:.1f} MB in {options.output}")
        return
    if options.evaluation is None or options.world is None:
        parser.error("a card needs --evaluation and --world")
    figures = {**benchmark_figures(options.evaluation), **answer_figures(options.evaluation, options.world)}
    (options.output / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    write_card(options.output, figures, options.command, options.runs)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
