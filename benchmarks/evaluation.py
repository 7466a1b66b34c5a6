"""Samples per second of an evaluation: the published loop and this repository's, on the same clips in one process.

    python -m benchmarks.evaluation             # one H100, about 4 minutes: 3B dimensions, hiera-large, random weights
    python -m benchmarks.evaluation --smoke     # the same code with tiny models on the CPU, to check that it runs

Clips of 60 frames of 480 x 854, two expressions each: one is answered with one box, the other with three. (The real
sets have more per video: ReasonVOS about 5 expressions, MeViS valid_u 16, ReVOS 20.) Weights are random, so both ways
generate the same fixed number of tokens and then track the same boxes from the same keyframe, from JPEG to PNG files.

The published loop: one sample after the other, transformers `generate`, then sam2's own video predictor from the clip's
folder, object by object, under bf16 autocast; its data loader prepares the next prompts meanwhile. Ours:
`eval.evaluation_worker`, as `eval.evaluate` runs it. Loading and the first samples of each, which compile, are not
counted. Where flash-attn is absent, transformers' vision tower loops over attention windows; `of generate: the prompt`
bounds what that costs. vLLM runs without CUDA graphs here unless asked, to our disadvantage.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.evaluation_job import expected_answer, prepare, write_clips, write_policy_folder
from benchmarks.evaluation_published import build_published, published_loop
from benchmarks.packing import synchronize
from eval.evaluation_folder import JOURNAL
from eval.evaluation_options import EvaluateConfig
from eval.evaluation_worker import EvaluationWorker
from eval.mask_scoring import read_predictions
from veason.command_line import HelpFormatter
from veason.inference.segmenter import Segmenter
from veason.inference.vllm_policy import ChatPrompt, SamplingOptions, VLLMPolicy
from veason.metrics.vos_metrics import jaccard
from veason.tracking.sam2.tracker import Sam2Tracker

TARGET = 8.0  # times the published loop's samples per second


class ScriptedPolicy(VLLMPolicy):
    """Generates, then returns given answers: the weights are random."""

    keyframe = 0

    def generate(self, prompts: Sequence[ChatPrompt]) -> list[str]:
        super().generate(prompts)
        return [expected_answer(prompt.name, self.keyframe) for prompt in prompts]

    def _sampling_params(self, prompt: ChatPrompt) -> Any:
        parameters = super()._sampling_params(prompt)
        parameters.detokenize = False  # the toy tokenizer has no text for most of the 151,936 ids
        return parameters


def build_ours(options: argparse.Namespace, worker: EvaluationWorker) -> None:
    sampling = SamplingOptions(max_tokens=options.tokens, ignore_eos=True)
    eager = not options.graphs
    policy = ScriptedPolicy(
        options.policy, sampling, gpu_memory_utilization=0.5, enforce_eager=eager, load_format="dummy", max_images=8
    )
    policy.keyframe = options.frames // 2
    tracker = Sam2Tracker.from_files(options.sam2_config, options.sam2_weights, options.device, max_frames=64)
    worker.segmenter = Segmenter(policy, tracker, size=worker.segmenter.size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--clips", type=int, default=16, help="clips of the run")
    parser.add_argument(
        "--published_clips", type=int, default=1, help="of these; the published loop's time is the same for each"
    )
    parser.add_argument("--frames", type=int, default=60, help="frames of a clip")
    parser.add_argument("--tokens", type=int, default=256, help="generated for each sample")
    parser.add_argument(
        "--graphs",
        action="store_true",
        help="let vLLM compile and capture CUDA graphs, as eval.evaluate does: a minute more",
    )
    parser.add_argument("--smoke", action="store_true", help="tiny models, to check that it runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        began = time.perf_counter()
        options.elapsed = lambda: f"{time.perf_counter() - began:.0f} s"
        prepare(options, work)
        root = Path(work) / "ReasonVOS"
        write_clips(root, options.clips, options)
        write_policy_folder(Path(options.policy), options.smoke)
        from transformers import AutoProcessor

        options.processor = AutoProcessor.from_pretrained(options.policy)
        size = 112 if options.smoke else 560
        config = EvaluateConfig(options.policy, str(root), str(Path(work) / "ours"))
        worker = EvaluationWorker(config, 0, Segmenter(None, None, size=size))  # type: ignore[arg-type]
        published = measure_published(options, worker)
        ours = measure_ours(options, worker)
        report(options, published, ours, agreement(options, worker))


def measure_published(options: argparse.Namespace, worker: EvaluationWorker) -> dict[str, float]:
    model, predictor = build_published(options)
    samples = 2 * options.published_clips
    few_tokens = argparse.Namespace(**{**vars(options), "tokens": min(8, options.tokens)})
    published_loop(worker, range(1), few_tokens, model, predictor)  # not counted
    seconds = published_loop(worker, range(samples), options, model, predictor)
    print(f"published loop: {samples} samples in {seconds['total']:.1f} s, at {options.elapsed()}", flush=True)
    del model, predictor
    gc.collect()
    if options.device == "cuda":
        torch.cuda.empty_cache()
    return {key: value / samples for key, value in seconds.items()}


def measure_ours(options: argparse.Namespace, worker: EvaluationWorker) -> dict[str, float]:
    samples = 2 * options.clips
    build_ours(options, worker)
    print(f"ours: loaded at {options.elapsed()}", flush=True)
    worker.run(range(2))  # compiles
    print(f"ours: compiled at {options.elapsed()}", flush=True)
    synchronize()
    started = time.perf_counter()
    worker.run(range(samples))
    synchronize()
    total = (time.perf_counter() - started) / samples
    journal = (Path(worker.folder.path) / JOURNAL / "0.jsonl").read_text(encoding="ascii").splitlines()
    spent = [json.loads(line)["seconds"] for line in journal[-samples:]]
    parts = {
        f"{part} (overlapped)" if part == "write" else part: float(np.mean([s[part] for s in spent]))
        for part in spent[0]
    }
    return {**parts, "total": total}


def agreement(options: argparse.Namespace, worker: EvaluationWorker) -> float:
    """Mean J of the masks that the two ways wrote for the same samples."""
    scores = []
    for sample in worker.benchmark.samples[: 2 * options.published_clips]:
        published, ours = (read_predictions(Path(options.work) / way, sample)[0] for way in ("published", "ours"))
        scores.append(jaccard(ours, published).mean())
    return float(np.mean(scores))


def report(options: argparse.Namespace, published: dict[str, float], ours: dict[str, float], agree: float) -> None:
    times = published["total"] / ours["total"]
    parts = ({key: round(value, 3) for key, value in way.items()} for way in (published, ours))
    print("\n| way | seconds per sample | samples/s | parts |\n| --- | --- | --- | --- |")
    for name, way, part in zip(("published loop", "this repository"), (published, ours), parts):
        print(f"| {name} | {way['total']:.3f} | {1 / way['total']:.3f} | {part} |")
    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    job = {
        "clips": options.clips,
        "frames": options.frames,
        "tokens": options.tokens,
        "device": device,
        "torch": torch.__version__,
    }
    verdict = "" if options.smoke else f"; target {TARGET}: {'met' if times >= TARGET else 'MISSED'}"
    print(f"\nmasks of the two ways agree to J = {agree:.3f} (random weights)")
    print(f"{times:.2f} times as fast{verdict}\n{json.dumps(job)}; the whole comparison took {options.elapsed()}")


if __name__ == "__main__":
    main()
