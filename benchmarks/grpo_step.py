"""One GRPO step of the 3B policy on one GPU, stage by stage, against the seed's schedule of the same job in the same run.

    python -m benchmarks.grpo_step                       # one H100, about 5 minutes; prints the table
    python -m benchmarks.grpo_step --steps 4 --schedules ours
    python -m benchmarks.grpo_step --tiny                # the same code on a CPU

The job: 16 prompts x 8 rollouts, 6 frames of 560 x 560, 512 tokens forced, 3B dimensions, full fine-tuning over fp32 master weights,
SAM 2.1 hiera-large in the reward. Weights are random (time does not depend on them) and what they write cannot be read, so the scorer
gets well-formed answers in its place.

The seed's schedule: every response a sequence of its own in each pass (its prompt and images computed again), old log-probabilities in
a pass of their own, SAM 2 in fp32, one response at a time. The seed's padding is left out: the comparison flatters it.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

from benchmarks.packing import model_config
from grpo_reward.reward_score import Breakdown
from grpo_reward.scorer import GroupScorer, build_scorer
from veason.answers import format_answer
from veason.examples import Example, GroundTruth
from veason.prompts import build_messages
from veason.toy.corpus import toy_sentences
from veason.toy.tiny_policy import build_processor
from veason.toy.tiny_tracker import write_tracker
from veason.toy.tokenizer import train_tokenizer
from veason.tracker import Speed, VideoTracker
from veason.tracking.loading import RANDOM
from verl.config import Config
from verl.protocol import GroupAdvantages, GroupRequest
from verl.workers.worker import Worker

TIMES = [0, 7, 14, 21, 28, 35]


def write_policy(folder: Path, tiny: bool) -> None:
    """A checkpoint of 3B dimensions (or a small one) with random bf16 weights."""
    tokenizer = train_tokenizer(toy_sentences(seed=0), 1500)
    config = model_config(tiny)
    for field, token in (
        ("image", "<|image_pad|>"),
        ("video", "<|video_pad|>"),
        ("vision_start", "<|vision_start|>"),
        ("vision_end", "<|vision_end|>"),
    ):
        setattr(config, f"{field}_token_id", tokenizer.convert_tokens_to_ids(token))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)


@dataclass
class BenchData:
    """Prompts of about 2,600 tokens: 6 frames of noise, a question, filler up to the length."""

    side: int = 560
    filler: int = 60

    def __len__(self) -> int:
        return 1 << 20

    def sample_id(self, index: int) -> str:
        return f"bench/{index}"

    def example(self, index: int, seed: int) -> Example:
        rng = np.random.default_rng((index, seed))
        frames = [Image.fromarray(rng.integers(0, 255, (self.side, self.side, 3), dtype=np.uint8)) for _ in TIMES]
        corner = self.side // 4
        masks = np.zeros((len(TIMES), self.side, self.side), np.uint8)
        masks[:, corner : 2 * corner, corner : 2 * corner] = 1
        box = [float(corner), float(corner), 2.0 * corner, 2.0 * corner]
        messages = build_messages("the shape that leaves first " * self.filler, TIMES, size=(self.side, self.side))
        return Example(self.sample_id(index), messages, frames, GroundTruth(TIMES, [[box] for _ in TIMES], masks))


class WellFormed:
    """Scores made-up answers in place of what random weights write: a keyframe and one box of its own for each response."""

    def __init__(self, scorer: GroupScorer) -> None:
        self.scorer = scorer

    def answers(self, example: Example, count: int) -> list[str]:
        draw = random.Random(example.sample_id)
        x1, y1, x2, y2 = example.truth.boxes[0][0]
        shifts = [[draw.randint(-20, 20) for _ in range(4)] for _ in range(count)]
        boxes = [[x1 + a, y1 + b, x2 + c, y2 + d] for a, b, c, d in shifts]
        return [format_answer("It leaves first.", draw.choice(TIMES), [box]) for box in boxes]

    def score(self, example: Example, responses: Sequence[str]) -> list[Breakdown]:
        return self.scorer.score(example, self.answers(example, len(responses)))


class SeedScorer(WellFormed):
    """Each response by itself: its frames encoded again, nothing shared."""

    def score(self, example: Example, responses: Sequence[str]) -> list[Breakdown]:
        return [score for answer in self.answers(example, len(responses)) for score in self.scorer.score(example, [answer])]


def make_scorer(options: dict[str, Any], compiled: bool, device: str) -> WellFormed:
    scorer = build_scorer(**options, device=device)
    if not compiled:
        scorer.tracker = VideoTracker.from_files(
            options["sam2_config"], None, device, speed=Speed(compile_encoder=False, compile_steps=False)
        )
    return WellFormed(scorer)


def configure(folder: Path, args: argparse.Namespace) -> Config:
    """The seed's job on one GPU."""
    config = Config()
    config.trainer.device = "cuda" if torch.cuda.is_available() else "cpu"
    config.data.max_prompt_length, config.data.max_response_length = args.prompt_limit, args.tokens
    actor, rollout = config.worker.actor, config.worker.rollout
    actor.model.model_path = actor.model.tokenizer_path = str(folder)
    actor.optim.lr, actor.kl_loss_coef, actor.entropy_coeff = 1e-6, 5e-3, 0.0
    actor.max_tokens_per_micro_batch = args.budget
    actor.offload.optimizer_offload = args.offload_optimizer
    config.worker.ref.offload.param_offload = True
    rollout.n, rollout.prompt_length, rollout.response_length = args.rollouts, args.prompt_limit, args.tokens
    rollout.ignore_eos, rollout.gpu_memory_utilization = True, args.engine_memory
    return config


class Step:
    """Runs a step on a worker and keeps the seconds of its stages."""

    def __init__(self, worker: Worker, prompts: int) -> None:
        self.worker, self.prompts, self.number = worker, prompts, 0
        self.seconds: dict[str, float] = defaultdict(float)
        self.memory: dict[str, float] = {}

    def timed(self, stage: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken = time.perf_counter() - start
        self.seconds[stage] += taken
        print(f"    {stage} {taken:.2f} s", flush=True)
        if isinstance(result, dict):
            self.memory |= {name: value for name, value in result.items() if name.startswith("memory/")}
        return result

    def run(self, one_by_one: bool) -> None:
        """One step; `one_by_one` makes every response a group of its own after the rollouts, and computes old log-probabilities."""
        worker = self.worker
        requests = [GroupRequest(self.number * self.prompts + i, self.number * self.prompts + i, i) for i in range(self.prompts)]
        self.number += 1
        uids = [request.uid for request in requests]
        self.timed("rollout", lambda: worker.rollout(requests))
        groups = self.timed("score (what is left of it)", lambda: worker.score(uids))
        advantages = {
            g.uid: [np.full(n, total - np.mean(g.totals), np.float32) for n, total in zip(g.response_tokens, g.totals)] for g in groups
        }
        if one_by_one:
            advantages = self.split(advantages)
        self.timed(
            "reference and old log-probabilities" if one_by_one else "reference", lambda: worker.reference(list(advantages), old=one_by_one)
        )
        self.timed("update", lambda: worker.update([GroupAdvantages(uid, values) for uid, values in advantages.items()]))
        worker.drop(list(advantages))

    def split(self, advantages: dict[int, list[np.ndarray]]) -> dict[int, list[np.ndarray]]:
        """Every response as a group of its own."""
        parts: dict[int, list[np.ndarray]] = {}
        for uid, values in advantages.items():
            stored = self.worker.groups.pop(uid)
            for number, value in enumerate(values):
                done: Future = Future()
                done.set_result(stored.result.result())
                single = replace(stored.group, response_ids=[stored.group.response_ids[number]])
                part = replace(stored, group=single, rollout_log_probs=[stored.rollout_log_probs[number]], result=done)
                parts[(uid + 1) * 10_000_000 + number] = [value]
                self.worker.groups[(uid + 1) * 10_000_000 + number] = part
        return parts


def seed_schedule(worker: Worker, sam2_config: str) -> None:
    """SAM 2 serially in fp32, passes of one sequence."""
    ours = worker.scorer
    assert isinstance(ours, WellFormed)
    worker.scorer = SeedScorer(GroupScorer(ours.scorer.rule, VideoTracker.from_files(sam2_config, None, worker.device, torch.float32)))
    worker.actor.config = replace(worker.actor.config, max_tokens_per_micro_batch=None, micro_batch_size_per_device_for_update=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", default="ours,seed")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of our schedule, after one that warms up; the seed's runs once")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--prompt_limit", type=int, default=7100)
    parser.add_argument("--budget", type=int, default=12_000, help="tokens of a packed row")
    parser.add_argument("--engine_memory", type=float, default=0.3)
    parser.add_argument("--offload_optimizer", action="store_true")
    parser.add_argument(
        "--compile_tracker", action="store_true", help="as a real run does: two more minutes at the start, a second less a step"
    )
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if args.tiny:
        args.prompts, args.rollouts, args.tokens, args.steps, args.prompt_limit = 2, 2, 8, 1, 2500
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29533"}
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_policy(folder / "policy", args.tiny)
        reward: dict[str, Any] = {"sam2_config": "configs/sam2.1/sam2.1_hiera_l.yaml", "sam2_checkpoint": RANDOM}
        if args.tiny:
            write_tracker(folder / "tracker")
            reward["sam2_config"] = str(folder / "tracker" / "sam2_tiny.yaml")
        data = partial(BenchData, side=112, filler=2) if args.tiny else BenchData
        worker = Worker(configure(folder / "policy", args), data, partial(make_scorer, reward, args.compile_tracker))
        sizes = worker.setup()
        print("resident, GiB:", {part: round(size / (1 << 30), 2) for part, size in sizes.items()}, flush=True)
        report(worker, reward["sam2_config"], args)


def report(worker: Worker, sam2_config: str, args: argparse.Namespace) -> None:
    """Times each schedule and prints the table."""
    totals: dict[str, float] = {}
    for schedule in args.schedules.split(","):
        if schedule == "seed":
            seed_schedule(worker, sam2_config)
        Step(worker, args.prompts if schedule == "ours" else 1).run(schedule == "seed")  # compiles and warms up
        step, count = Step(worker, args.prompts), args.steps if schedule == "ours" else 1
        for _ in range(count):
            step.run(schedule == "seed")
        totals[schedule] = sum(step.seconds.values()) / count
        print(f"\n{schedule}: one step of {args.prompts} x {args.rollouts}, {args.tokens} tokens, {worker.device_name()}, mean of {count}")
        for stage, value in step.seconds.items():
            print(f"  {stage:<38}{value / count:8.2f} s")
        print(f"  {'whole step':<38}{totals[schedule]:8.2f} s")
        print("  " + ", ".join(f"{name.removeprefix('memory/')} {value:.1f}" for name, value in step.memory.items()), flush=True)
    if {"ours", "seed"} <= totals.keys():
        print(f"\nthe seed's schedule takes {totals['seed'] / totals['ours']:.2f} times as long")


if __name__ == "__main__":
    main()
