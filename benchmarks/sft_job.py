"""The job that `benchmarks.sft_step` times: examples of noise with ragged prompts and answers, and the recipe's
configuration.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.grpo_job import BenchData
from veason.data.examples import TrainingExample
from veason.prompts import build_messages
from verl.config import Config, load_config, override

PHRASE = "it moves to the left while the other one stays behind, so "


@dataclass
class SFTData(BenchData):
    """`BenchData` with answers; questions and answers differ in length."""

    phrases: int = 13  # repetitions of PHRASE, a quarter more or less: a response of about 250 tokens

    def example(self, index: int, seed: int) -> TrainingExample:
        draw = random.Random(index)
        question = "the shape that leaves first " * draw.randint(1, 15)
        answer = f"<think>{PHRASE * round(self.phrases * draw.uniform(0.75, 1.25))}</think><answer>{{}}</answer>"
        messages = build_messages(question, self.timestamps, size=(self.side, self.side))
        return replace(super().example(index, seed), messages=messages, response=answer)


@dataclass(frozen=True)
class SFTJob:
    """The size of a step.

    Attributes:
        batch: examples of an optimizer step; steps: timed, after those that warm up.
        side: of a frame, pixels; phrases: of a response, about.
    """

    batch: int = 16
    steps: int = 4
    side: int = 560
    phrases: int = 13

    def data(self) -> SFTData:
        return SFTData(side=self.side, phrases=self.phrases)


TINY = SFTJob(batch=4, steps=1, side=112, phrases=1)


def make_config(job: SFTJob, folder: Path, overrides: list[str]) -> Config:
    """The recipe for 3B, with overrides."""
    os.environ |= {"REVOS_ROOT": "noise", "COT_ROOT": "noise", "MODEL_PATH": str(folder)}
    recipe = Path(__file__).parents[1] / "configs" / "sft_qwen2_5_vl_3b_lora.yaml"
    fixed = [
        f"data.rollout_batch_size={job.batch}",
        f"worker.actor.global_batch_size={job.batch}",
        f"trainer.device={'cuda' if torch.cuda.is_available() else 'cpu'}",
        "trainer.logger=[]",
    ]
    config = load_config([f"config={recipe}", *fixed, *overrides])
    return override(config, {"worker.actor.optim.training_steps": 100})
