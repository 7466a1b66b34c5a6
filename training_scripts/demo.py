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
import errno
import json
import os
import pty
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from eval.report.command import ReportConfig, write_report
from training_scripts.toy.recipes import ToyPaths, evaluation_overrides, recipe
from veason.command_line import HelpFormatter, parse_arguments
from verl.trainer.run_log import read_metrics

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
        status = run_logged(command, log_path)
        if status:
            print(f"demo: stage '{stage}' failed with status {status}; see {log_path}", file=sys.stderr)
            raise SystemExit(status)
        self.seconds[stage] = time.perf_counter() - start
        print(f"{stage}: {self.seconds[stage]:.0f} s", flush=True)

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

    def run_sft(self) -> None:
        self.run("random policy", "-m", "veason.toy.tiny_policy", "--output", self.output / "policy")
        self.run(
            "SFT from random weights",
            "-m",
            "verl.trainer.sft",
            "config=configs/toy/sft_demo.yaml",
            f"trainer.n_gpus_per_node={worker_count()}",
            "trainer.max_steps=10",
            "trainer.test_freq=10",
            f"data.prompt_template={recipe().data.prompt_template}",
        )

    def run_grpo(self) -> None:
        sam2_config, sam2_checkpoint = self.paths.tracker_files()
        self.run(
            "GRPO",
            "-m",
            "verl.trainer.main",
            "config=configs/toy/demo.yaml",
            f"worker.actor.model.model_path={self.paths.policy}",
            f"worker.reward.sam2_config={sam2_config}",
            f"worker.reward.sam2_checkpoint={sam2_checkpoint}",
            f"trainer.n_gpus_per_node={worker_count()}",
            f"trainer.max_steps={self.steps}",
            f"trainer.test_freq={self.steps}",
            "trainer.val_before_train=true",
        )

    def evaluate(self, when: str, policy: Path) -> None:
        options = evaluation_overrides(policy, self.evaluation_folder(when), None, self.paths)
        self.run(f"evaluation {when} GRPO", "-m", "eval.evaluate", *options)

    def evaluation_folder(self, when: str) -> Path:
        return self.output / "eval" / when

    def scores(self, when: str) -> dict[str, float | None]:
        """The evaluation's scores in percent."""
        table = json.loads((self.evaluation_folder(when) / "metrics.json").read_text())["table"]
        return {title: table[column]["value"] for column, title in COLUMNS.items()}

    @property
    def output(self) -> Path:
        return self.paths.output


def run_logged(command: Sequence[str], log_path: Path) -> int:
    """Runs a command; what it writes goes to the console and to a file. Returns its exit status.

    On a terminal the command has one of its own, so that it shows its progress bars; of a bar the file keeps the last
    state.
    """
    reading, writing = pty.openpty() if sys.stdout.isatty() else os.pipe()
    if sys.stdout.isatty():
        termios.tcsetwinsize(writing, termios.tcgetwinsize(sys.stdout.fileno()))
    with log_path.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=writing, stderr=writing)
        os.close(writing)
        left = b""
        while chunk := _read(reading):
            sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
            *lines, left = (left + chunk).split(b"\n")
            log.writelines(line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace") + "\n" for line in lines)
        os.close(reading)
        return process.wait()


def _read(descriptor: int) -> bytes:
    """Up to 64 KiB; nothing at the end, which a terminal reports as an error."""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def worker_count() -> int:
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
    parser.add_argument("--steps", type=int, default=9, help="GRPO steps")
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
    demo.run_sft()
    print(f"\n=== GRPO starts from {paths.policy}", flush=True)
    demo.evaluate("before", paths.policy)
    demo.run_grpo()
    demo.evaluate("after", options.output / "grpo" / f"global_step_{demo.steps}" / "actor" / "huggingface")
    write_reports(demo)


def write_reports(demo: Demo) -> None:
    """Writes the pages of the run and of its evaluations; prints one table, a sentence, and where the page is."""
    before, after = demo.evaluation_folder("before"), demo.evaluation_folder("after")
    write_report(ReportConfig(str(after), against=str(before), max_pictures=40))
    page = write_report(ReportConfig(str(demo.output / "grpo"), evaluation=f"{before},{after}"))
    rewards = [row["val/reward/mean"] for row in read_metrics(demo.output / "grpo") if "val/reward/mean" in row]
    numbers = {"reward, 0 to 5": (rewards[0], rewards[-1])}
    scores = demo.scores("before"), demo.scores("after")
    numbers |= {f"{title}, percent": (scores[0][title] or 0.0, scores[1][title] or 0.0) for title in COLUMNS.values()}
    print("\n".join(["", *comparison_table(numbers), "", summary_sentence(demo, numbers), "", f"report: {page}"]))


def comparison_table(numbers: Mapping[str, tuple[float, float]]) -> list[str]:
    """Markdown: a row per number, before and after GRPO."""
    lines = [
        "| held-out videos  | before GRPO | after GRPO | change |",
        "| ---------------- | ----------- | ---------- | ------ |",
    ]
    for name, (old, new) in numbers.items():
        lines.append(f"| {name:16} | {old:11.2f} | {new:10.2f} | {new - old:+6.2f} |")
    return lines


def summary_sentence(demo: Demo, numbers: Mapping[str, tuple[float, float]]) -> str:
    """What GRPO changed, whichever the sign."""
    changes = []
    for name, label, digits in (("reward, 0 to 5", "mean reward of greedy answers", 2), ("J&F, percent", "J&F", 1)):
        old, new = numbers[name]
        word = "increased" if new > old else "did NOT increase"
        changes.append(f"the {label} {word} from {old:.{digits}f} to {new:.{digits}f}")
    minutes = sum(demo.seconds.values()) / 60
    start = f"In {demo.steps} steps of GRPO from {demo.paths.policy}"
    return f"{start} {' and '.join(changes)} (on held-out videos; {minutes:.1f} minutes for all stages)."


if __name__ == "__main__":
    main()
