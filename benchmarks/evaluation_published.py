"""The published evaluation loop: one sample after the other, `generate`, then sam2's own video predictor."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.evaluation_job import BOXES
from benchmarks.packing import synchronize
from benchmarks.reward_job import SequentialSam2Scorer, propagate
from eval.evaluation_worker import EvaluationWorker
from veason.inference.vllm_policy import ChatPrompt
from veason.video.sources import open_folder


class PromptDataset(torch.utils.data.Dataset):
    """The processor's tensors of one sample, as the published data loader prepares them."""

    def __init__(self, prompts: Sequence[Any], processor: Any) -> None:
        self.prompts, self.processor = prompts, processor

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        prompt: ChatPrompt = self.prompts[index]()
        text = self.processor.apply_chat_template(prompt.messages, tokenize=False, add_generation_prompt=True)
        return dict(self.processor(text=[text], images=prompt.images, return_tensors="pt"))


def published_loop(
    worker: EvaluationWorker, indices: Sequence[int], options: argparse.Namespace, model: Any, predictor: Any
) -> dict[str, float]:
    """Seconds of each part, and `total`, over samples one after the other."""
    device = options.device
    samples = [worker.benchmark.samples[index] for index in indices]
    prompts = [
        lambda sample=sample: worker.segmenter.build_prompts(open_folder(sample.frame_dir), [sample.expression])[0]
        for sample in samples
    ]
    loader = torch.utils.data.DataLoader(
        PromptDataset(prompts, options.processor), batch_size=None, num_workers=0 if options.smoke else 8
    )
    seconds = {"generate": 0.0, "track": 0.0, "write": 0.0}
    started = time.perf_counter()
    for sample, inputs in zip(samples, loader):
        seconds["generate"] += generate(model, inputs, options.tokens, device)
        mark = time.perf_counter()
        factors = np.array([sample.width, sample.height] * 2) / worker.segmenter.size
        boxes = np.array(BOXES[int(sample.exp_id)]) * factors
        masks = published_tracking(predictor, sample.frame_dir, options.frames // 2, boxes.astype(int), device)
        seconds["track"] += time.perf_counter() - mark
        mark = time.perf_counter()
        folder = Path(options.work) / "published" / sample.result_dir
        folder.mkdir(parents=True, exist_ok=True)
        for frame, mask in zip(sample.frames, masks):
            Image.fromarray(mask.astype(np.uint8) * 255).convert("L").save(folder / f"{frame}.png")
        seconds["write"] += time.perf_counter() - mark
    total = time.perf_counter() - started
    return {**seconds, "total": total, "of generate: the prompt": len(samples) * generate(model, inputs, 1, device)}


def generate(model: Any, inputs: dict[str, torch.Tensor], tokens: int, device: str) -> float:
    """Seconds of transformers' greedy `generate`."""
    started = time.perf_counter()
    on_device = {key: value.to(device) for key, value in inputs.items()}
    model.generate(**on_device, use_cache=True, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    synchronize()
    return time.perf_counter() - started


def published_tracking(predictor: Any, folder: Path, keyframe: int, boxes: np.ndarray, device: str) -> np.ndarray:
    """bool [T, H, W] of sam2's video predictor, forward and backward from the keyframe."""
    with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
        state = predictor.init_state(str(folder))
        return propagate(predictor, state, keyframe, boxes)


def build_published(options: argparse.Namespace) -> tuple[Any, Any]:
    from sam2.utils import misc
    from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

    misc.tqdm = lambda frames, **_: frames  # no progress bar for every clip
    attention = "sdpa"
    if options.device == "cuda":
        from transformers.utils import is_flash_attn_2_available

        attention = "flash_attention_2" if is_flash_attn_2_available() else "sdpa"
    config = AutoConfig.from_pretrained(options.policy)
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    with torch.device(options.device):
        model = Qwen2_5_VLForConditionalGeneration._from_config(
            config, dtype=dtype, attn_implementation=attention
        ).eval()
    print(f"published loop: transformers generate with {attention}, sam2 video predictor", flush=True)
    weights = torch.load(options.sam2_weights, weights_only=True)
    return model, SequentialSam2Scorer(options.sam2_config, weights, torch.device(options.device)).predictor
