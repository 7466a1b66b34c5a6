"""The job that `benchmarks.grpo_step` times: a policy with random weights, prompts of noise, answers that can be
scored.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import GenerationConfig

from benchmarks.packing import model_config
from benchmarks.qwen3_sizes import LANGUAGE, SIDE, qwen3_model_config
from grpo_reward.reward_score import RewardScore
from grpo_reward.scorer import PreparedExample, RewardScorer, build_scorer
from veason.answers import format_answer
from veason.data.examples import GroundTruth, TrainingExample
from veason.prompts import build_messages
from veason.toy.tiny_policy import TINY_MODELS
from veason.toy.tiny_tracker import write_tracker
from veason.toy.tokenizer import train_tokenizer
from veason.toy.tokenizer_corpus import toy_sentences
from veason.tracking.sam2.compilation import CompileOptions
from veason.tracking.sam2.loading import RANDOM
from veason.tracking.sam2.tracker import Sam2Tracker
from verl.config import Config, load_config, override
from verl.models.families import load_family
from verl.protocol import Scorer, Task

FRAMES, GAP = 6, 7  # frames of a prompt, and the distance between two of them
TIMESTAMPS = [GAP * number for number in range(FRAMES)]
POLICY_GIB = {"tiny": 1, "3b": 8, "7b": 16, "qwen3_2b": 5, "qwen3_4b": 9, "qwen3_8b": 18}  # on the disk
GIB = 1 << 30
NOT_COMPILED = CompileOptions(image_encoder=False, steps=False)


@dataclass(frozen=True)
class GRPOJob:
    """The size of a step.

    Attributes:
        prompts, rollouts: per step and per prompt; tokens: of every response.
        side: of a frame, pixels; at 560 (640 with Qwen3-VL) a prompt of 6 frames has about 2,650 tokens.
        frames: of a prompt.
        size: of the policy, one of `POLICY_GIB`; "tiny" is for a machine without a GPU.
        compile_tracker: compile SAM 2, as a real run does: two more minutes at the start, a second less a step.
    """

    prompts: int = 16
    rollouts: int = 8
    tokens: int = 512
    side: int = 560
    frames: int = FRAMES
    size: str = "3b"
    compile_tracker: bool = False


TINY = GRPOJob(prompts=2, rollouts=2, tokens=8, side=112, size="tiny")


def make_job(size: str) -> GRPOJob:
    """The job at a size of the policy."""
    return TINY if size == "tiny" else GRPOJob(size=size, side=SIDE if size in LANGUAGE else GRPOJob.side)


def scratch_folder(size: str) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder, in memory where it has room: a disk takes 15 s to write a policy of 3B."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2 * POLICY_GIB[size] * GIB
    return tempfile.TemporaryDirectory(prefix="grpo_step_", dir=memory if roomy else None)


def write_policy(folder: Path, size: str) -> None:
    """A checkpoint of that size with random bf16 weights."""
    tokenizer = train_tokenizer(toy_sentences(seed=0), 1500)
    config = qwen3_model_config(size) if size in LANGUAGE else model_config(size)
    for field, token in (
        ("image", "<|image_pad|>"),
        ("video", "<|video_pad|>"),
        ("vision_start", "<|vision_start|>"),
        ("vision_end", "<|vision_end|>"),
    ):
        setattr(config, f"{field}_token_id", tokenizer.convert_tokens_to_ids(token))
    with torch.device("meta"):
        model = load_family(config).from_config(torch.bfloat16)
    model.to_empty(device="cpu")
    model.tie_weights()
    fill_randomly(model, config.text_config.initializer_range)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    processor = TINY_MODELS[config.model_type].make_processor(tokenizer)
    for part in (processor.image_processor, processor.video_processor):
        # TRL lets vLLM try the largest image that is allowed
        part.size = {"shortest_edge": 56**2, "longest_edge": 1024**2}
    processor.save_pretrained(folder)


@torch.no_grad()
def fill_randomly(model: nn.Module, std: float) -> None:
    """Fills matrices from one block of normal numbers, each from its own offset, which is quicker than new numbers;
    norms with 1, biases with 0.

    On the CPU: a driver that has touched the GPU would keep memory there.
    """
    block = (torch.randn(1 << 24, generator=torch.Generator().manual_seed(0)) * std).bfloat16()
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if parameter.ndim == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        start = 7919 * number % (len(block) // 2)
        for part in parameter.view(-1).split(len(block) // 2):
            part.copy_(block[start : start + len(part)])


@dataclass
class BenchData:
    """4,096 prompts: frames of noise and a question."""

    side: int = 560
    frames: int = FRAMES

    @property
    def timestamps(self) -> list[int]:
        return [GAP * number for number in range(self.frames)]

    def __len__(self) -> int:
        return 4096

    def sample_id(self, index: int) -> str:
        return f"bench/{index}"

    def messages_and_sizes(self, index: int, seed: int) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
        size = (self.side, self.side)
        return build_messages("the shape that leaves first", self.timestamps, size=size), [size] * self.frames

    def example(self, index: int, seed: int) -> TrainingExample:
        rng = np.random.default_rng((index, seed))
        shape, shown = (self.side, self.side, 3), self.timestamps
        frames = [Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)) for _ in shown]
        corner = self.side // 4
        masks = np.zeros((self.frames, self.side, self.side), np.uint8)
        masks[:, corner : 2 * corner, corner : 2 * corner] = 1
        box = [float(corner), float(corner), 2.0 * corner, 2.0 * corner]
        messages, _ = self.messages_and_sizes(index, seed)
        ground_truth = GroundTruth(shown, [[box] for _ in shown], masks)
        return TrainingExample(self.sample_id(index), messages, frames, ground_truth)


class SyntheticAnswerScorer:
    """Scores made-up answers in place of what random weights write: a keyframe and one box of its own for each
    response.

    Args:
        alone: each response by itself, as in the published schedule: its frames are encoded again, nothing is shared.
    """

    def __init__(self, scorer: RewardScorer, alone: bool = False) -> None:
        self.scorer, self.alone = scorer, alone

    def prepare(self, example: TrainingExample) -> TrainingExample | PreparedExample:
        return example if self.alone else self.scorer.prepare(example)

    def score(self, example: TrainingExample | PreparedExample, responses: Sequence[str]) -> list[RewardScore]:
        answers = self._answers(example, len(responses))
        if self.alone:
            return [score for answer in answers for score in self.scorer.score(example, [answer])]
        return self.scorer.score(example, answers)

    def score_groups(
        self, groups: Sequence[tuple[TrainingExample | PreparedExample, Sequence[str]]]
    ) -> Sequence[Sequence[RewardScore] | Exception]:
        if self.alone:
            return [self.score(*group) for group in groups]
        answers = [(example, self._answers(example, len(responses))) for example, responses in groups]
        return self.scorer.score_groups(answers)

    @staticmethod
    def _answers(prepared: TrainingExample | PreparedExample, count: int) -> list[str]:
        example = prepared.example if isinstance(prepared, PreparedExample) else prepared
        assert example.ground_truth is not None
        draw = random.Random(example.sample_id)
        x1, y1, x2, y2 = example.ground_truth.boxes[0][0]
        shifts = [[draw.randint(-20, 20) for _ in range(4)] for _ in range(count)]
        boxes = [[x1 + a, y1 + b, x2 + c, y2 + d] for a, b, c, d in shifts]
        return [format_answer("It leaves first.", draw.choice(example.ground_truth.timestamps), [box]) for box in boxes]


class NoReward:
    """Numbers at no cost, where rewards are left out of a comparison."""

    def score(self, example: TrainingExample, responses: Sequence[str]) -> list[RewardScore]:
        draw = random.Random(example.sample_id)
        return [RewardScore(draw.random(), {}, None) for _ in responses]


def tracking_scorer(sam2_config: str, compiled: bool, device: str) -> Scorer:
    """The reward of the recipe; SAM 2 is compiled on demand only."""
    options: dict[str, Any] = {"config": sam2_config, "checkpoint": RANDOM}
    if not compiled:
        options["compile_options"] = NOT_COMPILED
    return SyntheticAnswerScorer(build_scorer(tracker_options=options, device=device))


def plain_tracker(sam2_config: str, device: str | torch.device, dtype: torch.dtype | None = None) -> Sam2Tracker:
    """SAM 2 with random weights, nothing compiled, in the dtype that the device is best at unless one is named."""
    return Sam2Tracker.from_files(sam2_config, RANDOM, device, dtype, compile_options=NOT_COMPILED)


def default_recipe(size: str, gpus: int) -> str:
    """The recipe that a job runs by when none is named."""
    if size in LANGUAGE:
        return f"grpo_qwen3_vl_{size.removeprefix('qwen3_')}"
    if size == "7b":
        return "video_seg_zero_7b_keyframe_sam_sft_mod"
    return "grpo_3b_140gb" if gpus == 1 else "grpo_3b_two_gpus_140gb"


def make_config(
    job: GRPOJob, folder: Path, policy: Path, gpus: int, further: Sequence[str] = (), recipe: str | None = None
) -> Config:
    """A recipe with the job's prompts, lengths and random weights on `gpus` GPUs; the run's folder is `folder`.

    Args:
        further: overrides of the command line.
        recipe: name of a file of configs/; by default that of `default_recipe`.
    """
    overrides = {
        "data.train_files": "noise",
        "data.keyframe_resize": job.side,
        "data.rollout_batch_size": job.prompts,
        "data.max_response_length": job.tokens,
        "worker.actor.global_batch_size": job.prompts,
        "worker.actor.model.model_path": policy,
        "worker.rollout.n": job.rollouts,
        "worker.rollout.ignore_eos": "true",
        "worker.rollout.max_num_seqs": job.prompts * job.rollouts,
        "worker.reward.sam2_checkpoint": RANDOM,
        "trainer.device": "cuda" if torch.cuda.is_available() else "cpu",
        "trainer.n_gpus_per_node": gpus,
        "trainer.save_checkpoint_path": folder,
        "trainer.logger": "[]",
    }
    if job.size == "tiny":
        overrides |= {"worker.actor.max_tokens_per_micro_batch": 2000, "worker.rollout.kv_cache_gib": "null"}
    file = Path(__file__).parents[1] / "configs" / f"{recipe or default_recipe(job.size, gpus)}.yaml"
    config = load_config([f"config={file}", *(f"{key}={value}" for key, value in overrides.items()), *further])
    if job.size == "tiny":
        write_tracker(policy / "tracker")
        files = {"sam2_config": str(policy / "tracker" / "sam2_tiny.yaml"), "sam2_checkpoint": RANDOM}
        config = override(config, {"worker.reward.tracker_options": files})
    return config


def make_task(job: GRPOJob, config: Config) -> Task:
    sam2_config, data = config.worker.reward.tracker_options["sam2_config"], partial(BenchData, job.side, job.frames)
    return Task(data, scorer=partial(tracking_scorer, sam2_config, job.compile_tracker))
