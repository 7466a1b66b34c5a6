"""`make demo`: every stage of the project on a toy world, with the commands that a real run uses, on a CPU or a GPU.

    .venv/bin/python -m training_scripts.demo [--output outputs/demo] [--steps 12]

Data, teacher and a few steps of fine-tuning a policy of random weights come first. Fine-tuning needs minutes of a GPU
to get anywhere, so reinforcement learning starts from the shipped policy, whose card says how it was made, and scores
with the shipped tracker. The policy is evaluated before and after on videos that neither of them has seen. Each stage
is a command of its own, printed before it runs, with its output kept in OUTPUT/logs. The last lines say whether reward
and J&F rose.
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

from training_scripts.toy.recipes import Places, evaluation_words, recipe
from veason.data import open_benchmark
from veason.frames import read_frame
from veason.masks import read_mask
from veason.pictures import draw_boxes, overlay_masks, save_picture, strip
from verl.trainer.curves import plot_metrics
from verl.trainer.run_log import read_metrics

DEMO_MARK = ".made-by-demo"  # a folder without it is not ours to replace
SHIPPED = Path("weights/toy_policy")
COLUMNS = {"Overall J": "J", "Overall F": "F", "Overall J&F": "J&F", "R binary": "R"}


@dataclass
class Demo:
    """The stages, in order; each adds its seconds to `seconds`."""

    places: Places
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
        with (
            log_path.open("w") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                print(line, end="", flush=True)
        if process.returncode:
            print(
                f"demo: the stage '{stage}' ended with status {process.returncode}; its output is in {log_path}",
                file=sys.stderr,
            )
            raise SystemExit(process.returncode)
        self.seconds[stage] = time.perf_counter() - start

    def make_data(self) -> None:
        revos = self.places.world / "ReVOS"
        self.run("toy world", "-m", "veason.toy.world", "--output", self.places.world, "--train_videos", "60", "--valid_videos", "24",
                 "--reasonvos_videos", "1", "--queries", "6")  # fmt: skip
        self.run("sampling", "training_data_construction/data_sampling.py", "--input_json", revos / "meta_expressions_train_.json",
                 "--output_json", revos / "meta_expressions_train_select.json", "--target_size", "300")  # fmt: skip
        self.run("teacher", "training_data_construction/seed_cot_generation.py", "--data_root", revos, "--output", self.output / "cot",
                 "--teacher", "toy", "--keyframe_resize", "112")  # fmt: skip

    def fine_tune(self) -> None:
        self.run("random policy", "-m", "veason.toy.tiny_policy", "--output", self.output / "policy")
        self.run(
            "SFT from nothing",
            "-m",
            "verl.trainer.sft",
            "config=configs/toy/sft_demo.yaml",
            f"trainer.n_gpus_per_node={workers()}",
            "trainer.max_steps=10",
            "trainer.test_freq=10",
            f"data.prompt_template={recipe().data.prompt_template}",
        )

    def reinforce(self) -> None:
        sam2_config, sam2_checkpoint = self.places.tracker_files()
        self.run("GRPO", "-m", "verl.trainer.main", "config=configs/toy/demo.yaml", f"worker.actor.model.model_path={self.places.policy}",
                 f"worker.reward.sam2_config={sam2_config}", f"worker.reward.sam2_checkpoint={sam2_checkpoint}",
                 f"trainer.n_gpus_per_node={workers()}", f"trainer.max_steps={self.steps}", f"trainer.test_freq={self.steps}",
                 "trainer.val_before_train=true")  # fmt: skip

    def evaluate(self, when: str, policy: Path) -> None:
        self.run(
            f"evaluation {when} GRPO",
            "-m",
            "eval.evaluate",
            *evaluation_words(policy, self.evaluation(when), None, self.places),
        )

    def evaluation(self, when: str) -> Path:
        return self.output / "eval" / when

    def table(self, when: str) -> dict[str, float | None]:
        """The evaluation's numbers, in percent."""
        table = json.loads((self.evaluation(when) / "metrics.json").read_text())["table"]
        return {title: table[column]["value"] for column, title in COLUMNS.items()}

    @property
    def output(self) -> Path:
        return self.places.output

    @property
    def trained_policy(self) -> Path:
        return self.output / "grpo" / f"global_step_{self.steps}" / "actor" / "huggingface"


def workers() -> int:
    """One worker on a GPU; on a CPU two, so that the demo shows them sharing a step."""
    return 1 if torch.cuda.is_available() else 2


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
    parser.add_argument("--steps", type=int, default=12, help="GRPO steps")
    parser.add_argument(
        "--policy",
        type=Path,
        help=f"where GRPO starts; {SHIPPED} unless told, or what SFT has just made where that is missing",
    )
    parser.add_argument("--tracker", type=Path, default=Path("weights/toy_tracker"))
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["DEMO_ROOT"] = str(
        options.output
    )  # where configs/toy/demo.yaml and configs/toy/sft_demo.yaml find their data and write
    policy = options.policy or (SHIPPED if SHIPPED.is_dir() else options.output / "sft" / "huggingface")
    places = Places(policy, options.tracker, options.output / "world", options.output)
    places.tracker_files()
    fresh_folder(options.output)
    demo = Demo(places, options.steps)
    demo.make_data()
    demo.fine_tune()
    print(f"\n=== from here on with the policy in {places.policy}", flush=True)
    demo.evaluate("before", places.policy)
    demo.reinforce()
    demo.evaluate("after", demo.trained_policy)
    report(demo)


def report(demo: Demo) -> None:
    """Prints the tables, the places and what became of it, and draws the two pictures."""
    curve = plot_metrics(demo.output / "grpo", demo.output / "reward.png")
    overlay = draw_prediction(demo, demo.output / "prediction.png")
    before, after = demo.table("before"), demo.table("after")
    print(
        "\n| unseen videos, in percent | J    | F    | J&F  | R    |\n| ------------------------- | ---- | ---- | "
        "---- | ---- |"
    )
    for when, table in (("before", before), ("after", after)):
        values = ("  - " if value is None else f"{value:4.1f}" for value in table.values())
        print(f"| {when + ' GRPO':25} | {' | '.join(values)} |")
    print("\n| stage                     | seconds |\n| ------------------------- | ------- |")
    for stage, seconds in [*demo.seconds.items(), ("together", sum(demo.seconds.values()))]:
        print(f"| {stage:25} | {seconds:7.1f} |")
    print(f"\nreward curve: {curve}\none prediction: {overlay}\npolicy after GRPO: {demo.trained_policy}\n")
    first, *_, last = (row["val/reward/mean"] for row in read_metrics(demo.output / "grpo") if "val/reward/mean" in row)
    print(f"GRPO started from {demo.places.policy}.")
    print("\n".join(verdict((first, last), (before["J&F"] or 0.0, after["J&F"] or 0.0))))


def verdict(rewards: tuple[float, float], scores: tuple[float, float]) -> list[str]:
    """What became of reward and J&F from before to after, in plain words, whichever way they went."""
    lines = []
    for what, (old, new), form in (
        ("Mean reward of greedy answers about unseen videos before and after, of 5", rewards, "{:.2f}"),
        ("J&F on unseen videos before and after, in percent", scores, "{:.1f}"),
    ):
        change = f"rose by {form.format(new - old)}" if new > old else f"did NOT rise ({form.format(new - old)})"
        lines.append(f"{what}: {form.format(old)} -> {form.format(new)}, it {change}.")
    return lines


def draw_prediction(demo: Demo, path: Path) -> Path:
    """The best prediction on the toy ReVOS as a strip of frames, the boxes on the keyframe."""
    run = demo.evaluation("after")
    present = [score for score in json.loads((run / "metrics.json").read_text())["samples"] if score["type_id"] != 2]
    best = max(present, key=lambda score: score["J"])
    records = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()[1:]]
    record = next(record for record in records if record["sample_id"] == best["sample_id"])
    benchmark = open_benchmark("revos", demo.places.world / "ReVOS", None)
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
