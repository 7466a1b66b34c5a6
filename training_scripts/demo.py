"""`make demo`: every stage of the project on a toy world, with the commands that a real run uses, on a CPU or a GPU.

    .venv/bin/python -m training_scripts.demo [--output outputs/demo] [--steps 10]

Each stage is a command of its own, printed before it runs; its output is kept in OUTPUT/logs. The run ends with a table (J, F, J&F and R
of the policy before and after reinforcement learning; seconds per stage), and with the places of the checkpoints and of two pictures.
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

from veason.datasets import open_benchmark
from veason.frames import read_frame
from veason.masks import read_mask
from veason.pictures import draw_boxes, overlay_masks, save_picture, strip
from verl.trainer.curves import plot_metrics
from verl.trainer.run_log import read_metrics

DEMO_MARK = ".made-by-demo"  # a folder without it is not ours to replace


@dataclass
class Demo:
    """The stages, in order; each adds its seconds to `seconds`."""

    output: Path
    steps: int
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, stage: str, *words: str | Path) -> None:
        """Runs `python WORDS` as a stage, with its output on the screen and in logs/.

        Raises:
            SystemExit: the command failed; its exit status is passed on.
        """
        command = [sys.executable, *map(str, words)]
        print(f"\n=== {stage}: python {' '.join(command[1:])}", flush=True)
        start = time.perf_counter()
        log_path = self.output / "logs" / f"{stage.replace(' ', '_')}.log"
        with log_path.open("w") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                print(line, end="", flush=True)
        if process.returncode:
            print(f"demo: the stage '{stage}' ended with status {process.returncode}; its output is in {log_path}", file=sys.stderr)
            raise SystemExit(process.returncode)
        self.seconds[stage] = time.perf_counter() - start

    def make_world(self) -> None:
        self.run("toy world", "-m", "veason.toy.world", "--output", self.world, "--train_videos", "40", "--valid_videos", "6",
                 "--reasonvos_videos", "4", "--queries", "4")  # fmt: skip
        self.run("tiny policy", "-m", "veason.toy.tiny_policy", "--output", self.output / "policy")
        self.run("tiny tracker", "-m", "veason.toy.tiny_tracker", "--output", self.tracker)

    def make_records(self) -> None:
        revos = self.world / "ReVOS"
        self.run("sampling", "training_data_construction/data_sampling.py", "--input_json", revos / "meta_expressions_train_.json",
                 "--output_json", revos / "meta_expressions_train_select.json", "--target_size", "100")  # fmt: skip
        self.run("teacher", "training_data_construction/seed_cot_generation.py", "--data_root", revos, "--output", self.output / "cot",
                 "--teacher", "toy", "--keyframe_resize", "112")  # fmt: skip

    def train(self) -> None:
        self.run("SFT", "-m", "verl.trainer.sft", "config=configs/sft_demo.yaml")
        self.run("GRPO", "-m", "verl.trainer.main", "config=configs/demo.yaml", f"trainer.max_steps={self.steps}")

    def evaluate(self) -> None:
        for policy, path in (("SFT", self.sft_policy), ("GRPO", self.grpo_policy)):
            for benchmark, folder in (("revos", "ReVOS"), ("reasonvos", "ReasonVOS")):
                self.run(f"evaluation {policy} {folder}", "-m", "eval.evaluate", f"benchmark={benchmark}", f"model_path={path}",
                         f"data_path={self.world / folder}", f"output_path={self.evaluation(policy, folder)}",
                         f"sam2_config={self.tracker / 'sam2_tiny.yaml'}", f"sam2_checkpoint={self.tracker / 'sam2_tiny.pt'}",
                         "keyframe_resize=112", "max_response_length=224")  # fmt: skip

    def evaluation(self, policy: str, folder: str) -> Path:
        return self.output / "eval" / policy / folder

    @property
    def world(self) -> Path:
        return self.output / "world"

    @property
    def tracker(self) -> Path:
        return self.output / "tracker"

    @property
    def sft_policy(self) -> Path:
        return self.output / "sft" / "huggingface"

    @property
    def grpo_policy(self) -> Path:
        return self.output / "grpo" / f"global_step_{self.steps}" / "actor" / "huggingface"


def fresh_folder(path: Path) -> None:
    """Empties what an earlier demo left; refuses a folder that no demo made."""
    if path.exists() and any(path.iterdir()):
        if not (path / DEMO_MARK).exists():
            raise SystemExit(f"demo: {path} holds something that no demo made; name another folder with --output")
        shutil.rmtree(path)
    (path / "logs").mkdir(parents=True)
    (path / DEMO_MARK).touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"))
    parser.add_argument("--steps", type=int, default=10, help="GRPO steps")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["DEMO_ROOT"] = str(options.output)  # where configs/demo.yaml and configs/sft_demo.yaml find their data and models
    fresh_folder(options.output)
    demo = Demo(options.output, options.steps)
    demo.make_world()
    demo.make_records()
    demo.train()
    demo.evaluate()
    report(demo)


def report(demo: Demo) -> None:
    """Prints the tables and the places, and draws the two pictures."""
    curve = plot_metrics(demo.output / "grpo", demo.output / "reward.png")
    overlay = draw_prediction(demo, demo.output / "prediction.png")
    print("\n| in percent          | J    | F    | J&F  | R    |\n| ------------------- | ---- | ---- | ---- | ---- |")
    for policy in ("SFT", "GRPO"):
        for folder in ("ReVOS", "ReasonVOS"):
            table = json.loads((demo.evaluation(policy, folder) / "metrics.json").read_text())["table"]
            values = (table.get(f"Overall {name}", table.get(name, {})).get("value") for name in ("J", "F", "J&F", "R binary"))
            print(
                f"| {policy + ' on ' + folder:19} | " + " | ".join("  - " if value is None else f"{value:4.1f}" for value in values) + " |"
            )
    print("\n| stage                     | seconds |\n| ------------------------- | ------- |")
    for stage, seconds in [*demo.seconds.items(), ("together", sum(demo.seconds.values()))]:
        print(f"| {stage:25} | {seconds:7.1f} |")
    rewards = [row["reward/mean"] for row in read_metrics(demo.output / "grpo") if "reward/mean" in row]
    print(f"\nreward of the first and the last GRPO step: {rewards[0]:.3f}, {rewards[-1]:.3f} (of 5)")
    print(f"checkpoints: {demo.sft_policy} and {demo.grpo_policy}\nreward curve: {curve}\none prediction: {overlay}")


def draw_prediction(demo: Demo, path: Path) -> Path:
    """The best prediction on the toy ReVOS as a strip of frames, the boxes on the keyframe."""
    run = demo.evaluation("GRPO", "ReVOS")
    best = max(json.loads((run / "metrics.json").read_text())["samples"], key=lambda score: score["J"])
    records = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()[1:]]
    record = next(record for record in records if record["sample_id"] == best["sample_id"])
    benchmark = open_benchmark("revos", demo.world / "ReVOS", None)
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
