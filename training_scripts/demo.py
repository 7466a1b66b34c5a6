"""`make demo`: every stage of the project on the toy world, with the commands of a real run, on a CPU or a GPU.

    .venv/bin/python -m training_scripts.demo
    .venv/bin/python -m training_scripts.demo --output outputs/demo --steps 12

Data, teacher and a few steps of SFT from random weights come first. A useful SFT takes minutes on a GPU, so GRPO starts
from the shipped toy policy and scores with the shipped toy tracker. The policy is evaluated on held-out videos before
and after. Each stage is a command that is printed before it runs; its log is in OUTPUT/logs. The last lines report
whether reward and J&F increased.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from training_scripts.toy.recipes import ToyPaths, evaluation_overrides, recipe
from veason.command_line import HelpFormatter, parse_arguments
from veason.data import open_benchmark
from veason.frames import read_frame
from veason.masks import read_mask
from veason.pictures import draw_boxes, overlay_masks, save_curves, save_picture, strip
from verl.trainer.run_log import read_metrics

PARTS = ("format", "keyframe", "spatial", "consistency")
REWARD_METRICS = ("reward/mean", "val/reward/mean", *(f"part/{part}_mean" for part in PARTS))
DEMO_MARKER = ".made-by-demo"  # a folder without it is never overwritten
SHIPPED_POLICY = Path("weights/toy_policy")
COLUMNS = {"Overall J": "J", "Overall F": "F", "Overall J&F": "J&F", "R binary": "R"}


@dataclass
class Demo:
    """The stages; `seconds` has the wall time of each finished one."""

    paths: ToyPaths
    steps: int
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, stage: str, *arguments: str | Path) -> None:
        """Runs `python ARGUMENTS` as a stage; its output goes to the console and to logs/.

        Raises:
            SystemExit: the command failed; with its exit status.
        """
        command = [sys.executable, *map(str, arguments)]
        print(f"\n=== {stage}: python {' '.join(command[1:])}", flush=True)
        start = time.perf_counter()
        log_path = self.output / "logs" / f"{stage.replace(' ', '_')}.log"
        with (
            log_path.open("w") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                print(line, end="", flush=True)
        if process.returncode:
            print(f"demo: stage '{stage}' failed with status {process.returncode}; see {log_path}", file=sys.stderr)
            raise SystemExit(process.returncode)
        self.seconds[stage] = time.perf_counter() - start

    def make_data(self) -> None:
        revos = self.paths.world / "ReVOS"
        sizes = ["--train_videos", "60", "--valid_videos", "24", "--reasonvos_videos", "1", "--queries", "6"]
        self.run("toy world", "-m", "veason.toy.world", "--output", self.paths.world, *sizes)
        self.run(
            "sampling",
            "training_data_construction/data_sampling.py",
            *("--input_json", revos / "meta_expressions_train_.json"),
            *("--output_json", revos / "meta_expressions_train_select.json"),
            *("--target_size", "300"),
        )
        self.run(
            "teacher",
            "training_data_construction/seed_cot_generation.py",
            *("--data_root", revos, "--output", self.output / "cot"),
            *("--teacher", "toy", "--keyframe_resize", "112"),
        )

    def fine_tune(self) -> None:
        self.run("random policy", "-m", "veason.toy.tiny_policy", "--output", self.output / "policy")
        self.run(
            "SFT from random weights",
            "-m",
            "verl.trainer.sft",
            "config=configs/toy/sft_demo.yaml",
            f"trainer.n_gpus_per_node={workers()}",
            "trainer.max_steps=10",
            "trainer.test_freq=10",
            f"data.prompt_template={recipe().data.prompt_template}",
        )

    def reinforce(self) -> None:
        sam2_config, sam2_checkpoint = self.paths.tracker_files()
        self.run(
            "GRPO",
            "-m",
            "verl.trainer.main",
            "config=configs/toy/demo.yaml",
            f"worker.actor.model.model_path={self.paths.policy}",
            f"worker.reward.sam2_config={sam2_config}",
            f"worker.reward.sam2_checkpoint={sam2_checkpoint}",
            f"trainer.n_gpus_per_node={workers()}",
            f"trainer.max_steps={self.steps}",
            f"trainer.test_freq={self.steps}",
            "trainer.val_before_train=true",
        )

    def evaluate(self, when: str, policy: Path) -> None:
        options = evaluation_overrides(policy, self.evaluation(when), None, self.paths)
        self.run(f"evaluation {when} GRPO", "-m", "eval.evaluate", *options)

    def evaluation(self, when: str) -> Path:
        return self.output / "eval" / when

    def scores(self, when: str) -> dict[str, float | None]:
        """The evaluation's scores in percent."""
        table = json.loads((self.evaluation(when) / "metrics.json").read_text())["table"]
        return {title: table[column]["value"] for column, title in COLUMNS.items()}

    @property
    def output(self) -> Path:
        return self.paths.output

    @property
    def trained_policy(self) -> Path:
        return self.output / "grpo" / f"global_step_{self.steps}" / "actor" / "huggingface"


def workers() -> int:
    """One worker on a GPU; two on a CPU, so that the demo covers data parallelism."""
    return 1 if torch.cuda.is_available() else 2


def clear_folder(path: Path) -> None:
    """Clears the folder of an earlier demo; refuses any other folder that is not empty."""
    if path.exists() and any(path.iterdir()):
        if not (path / DEMO_MARKER).exists():
            raise SystemExit(f"demo: {path} holds files that no demo made; choose another folder with --output")
        shutil.rmtree(path)
    (path / "logs").mkdir(parents=True)
    (path / DEMO_MARKER).touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("outputs/demo"), help="folder of everything that the demo writes"
    )
    parser.add_argument("--steps", type=int, default=12, help="GRPO steps")
    parser.add_argument(
        "--policy",
        type=Path,
        help=f"initial policy of GRPO; default: {SHIPPED_POLICY}, or the demo's own SFT where that is missing",
    )
    parser.add_argument("--tracker", type=Path, default=Path("weights/toy_tracker"), help="folder of the tracker")
    options = parse_arguments(parser)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["DEMO_ROOT"] = str(options.output)  # read by configs/toy/demo.yaml and configs/toy/sft_demo.yaml
    policy = options.policy or (SHIPPED_POLICY if SHIPPED_POLICY.is_dir() else options.output / "sft" / "huggingface")
    paths = ToyPaths(policy, options.tracker, options.output / "world", options.output)
    paths.tracker_files()
    clear_folder(options.output)
    demo = Demo(paths, options.steps)
    demo.make_data()
    demo.fine_tune()
    print(f"\n=== GRPO starts from {paths.policy}", flush=True)
    demo.evaluate("before", paths.policy)
    demo.reinforce()
    demo.evaluate("after", demo.trained_policy)
    report(demo)


def report(demo: Demo) -> None:
    """Prints scores, times, output paths and the summary; draws the reward curve and a prediction."""
    rows = read_metrics(demo.output / "grpo")
    points = {name: [(row["step"], row[name]) for row in rows if name in row] for name in REWARD_METRICS}
    curves = {name: tuple(zip(*found)) for name, found in points.items() if found}
    curve = save_curves(demo.output / "reward.png", curves)
    overlay = draw_prediction(demo, demo.output / "prediction.png")
    before, after = demo.scores("before"), demo.scores("after")
    print("\n| held-out videos, percent  | J    | F    | J&F  | R    |")
    print("| ------------------------- | ---- | ---- | ---- | ---- |")
    for when, scores in (("before", before), ("after", after)):
        values = ("  - " if value is None else f"{value:4.1f}" for value in scores.values())
        print(f"| {when + ' GRPO':25} | {' | '.join(values)} |")
    print("\n| stage                     | seconds |\n| ------------------------- | ------- |")
    for stage, seconds in [*demo.seconds.items(), ("total", sum(demo.seconds.values()))]:
        print(f"| {stage:25} | {seconds:7.1f} |")
    print(f"\nreward curve: {curve}\nprediction: {overlay}\npolicy after GRPO: {demo.trained_policy}\n")
    first, *_, last = (row["val/reward/mean"] for row in rows if "val/reward/mean" in row)
    print(f"GRPO started from {demo.paths.policy}.")
    print("\n".join(summary((first, last), (before["J&F"] or 0.0, after["J&F"] or 0.0))))


def summary(rewards: tuple[float, float], scores: tuple[float, float]) -> list[str]:
    """One line each about the change of reward and J&F from before to after, whichever their sign."""
    lines = []
    for name, (old, new), form in (
        ("Mean reward of greedy answers on held-out videos (0 to 5)", rewards, "{:.2f}"),
        ("J&F on held-out videos, percent", scores, "{:.1f}"),
    ):
        change = (
            f"increased by {form.format(new - old)}" if new > old else f"did NOT increase ({form.format(new - old)})"
        )
        lines.append(f"{name}: {form.format(old)} -> {form.format(new)}, {change}.")
    return lines


def draw_prediction(demo: Demo, path: Path) -> Path:
    """Draws the best prediction as a strip of frames, with the boxes on the keyframe."""
    run = demo.evaluation("after")
    present = [score for score in json.loads((run / "metrics.json").read_text())["samples"] if score["type_id"] != 2]
    best = max(present, key=lambda score: score["J"])
    records = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()[1:]]
    record = next(record for record in records if record["sample_id"] == best["sample_id"])
    benchmark = open_benchmark("revos", demo.paths.world / "ReVOS", None)
    sample = next(sample for sample in benchmark.samples if sample.sample_id == best["sample_id"])
    pictures, labels = [], []
    for index in record["shown"]:
        mask = read_mask(run / record["result_dir"] / f"{sample.frames[index]}.png")
        picture = overlay_masks(read_frame(benchmark.frame_path(sample, index)), mask)
        is_keyframe = index == record["keyframe"]
        pictures.append(draw_boxes(picture, record["boxes"]) if is_keyframe else picture)
        labels.append(f"{index} s{' keyframe' if is_keyframe else ''}")
    return save_picture(path, strip(pictures, labels, columns=4))


if __name__ == "__main__":
    main()
