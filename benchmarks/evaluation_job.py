"""The job of `benchmarks.evaluation`: clips on the disk, and a policy and a tracker of random weights."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch

from veason.answers import format_answer
from veason.toy import tiny_tracker
from veason.toy.tiny_policy_config import PolicySize, qwen2_5_config, qwen2_5_processor
from veason.toy.tokenizer import train_tokenizer
from veason.toy.tokenizer_corpus import toy_sentences
from veason.tracking.sam2.loading import load_model

THREE_B = PolicySize(
    hidden_size=2048, layers=36, heads=16, kv_heads=2, intermediate_size=11008,
    vision_hidden_size=1280, vision_depth=32, vision_heads=16, vision_intermediate_size=3420,
)  # fmt: skip
VOCABULARY, FULL_ATTENTION = 151936, [7, 15, 23, 31]
BOXES = {  # expression -> boxes in the 560 x 560 square
    0: [[180, 160, 380, 400]],
    1: [[40, 60, 200, 240], [220, 200, 380, 420], [400, 90, 540, 300]],
}


def prepare(options: argparse.Namespace, work: str) -> None:
    options.work, options.policy = work, str(Path(work) / "policy")
    options.height, options.width, options.device = 480, 854, "cuda"
    options.sam2_config = "configs/sam2.1/sam2.1_hiera_l.yaml"
    if options.smoke:
        options.height, options.width, options.device = 72, 128, "cpu"
        options.clips, options.published_clips, options.frames, options.tokens = 2, 1, 8, 4
        options.sam2_config = str(Path(work) / "sam2_tiny.yaml")
        tiny_tracker.write_tracker(work)
    elif not torch.cuda.is_available():
        raise SystemExit("benchmarks.evaluation: no GPU here; --smoke runs the same code on the CPU")
    torch.manual_seed(0)
    options.sam2_weights = str(Path(work) / "sam2.pt")
    torch.save(load_model(options.sam2_config, None, torch.device("cpu")).state_dict(), options.sam2_weights)


def write_clips(root: Path, clips: int, options: argparse.Namespace) -> None:
    """Moving texture, in ReasonVOS's layout."""
    names = [f"{number:05d}" for number in range(options.frames)]
    rng = np.random.default_rng(0)
    height, width = options.height, options.width
    scene = cv2.resize(
        rng.integers(0, 255, (height // 8, (width + 8 * clips + options.frames) // 8, 3), np.uint8), None, fx=8, fy=8
    )

    def write(clip: int) -> None:
        folder = root / "JPEGImages" / f"clip{clip:03d}"
        folder.mkdir(parents=True)
        for number, name in enumerate(names):
            cv2.imwrite(str(folder / f"{name}.jpg"), scene[:height, 8 * clip + number :][:, :width])

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(clips)))
    expressions = [{"exp_text": f"thing {number}", "obj_id": number, "exp_id": number} for number in BOXES]
    videos = {
        f"clip{clip:03d}": {"source": "made", "frames": names, "expressions": expressions} for clip in range(clips)
    }
    (root / "meta_expressions_.json").write_text(json.dumps({"videos": videos}))


def write_policy_folder(folder: Path, smoke: bool) -> None:
    """Config, tokenizer and processor of a policy without weights. The tokenizer is the toy world's: only lengths
    matter here.
    """
    tokenizer = train_tokenizer(toy_sentences(seed=0), PolicySize().vocab_size)
    config = qwen2_5_config(PolicySize() if smoke else THREE_B, tokenizer)
    if not smoke:
        config.text_config.vocab_size = VOCABULARY
        config.vision_config.fullatt_block_indexes = FULL_ATTENTION
    config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    config.save_pretrained(folder)
    qwen2_5_processor(tokenizer).save_pretrained(folder)


def expected_answer(name: str, keyframe: int) -> str:
    return format_answer("It is there.", keyframe, BOXES[int(name.rsplit("/", 1)[1])])
