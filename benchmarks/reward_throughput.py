"""How fast a group of rollouts is scored: the published schedule and this repository's, side by side in one process.

    python -m benchmarks.reward_throughput      # the table: hiera-large at 1024 pixels, random weights, 1 and 3 boxes
    python -m benchmarks.reward_throughput --variants --profile

The published schedule takes one rollout at a time, in fp32, and encodes the frames for each: sam2's own video
predictor, the masks copied to the host and compared there. Ours is `RewardScorer.score`, from texts to scores. Both get
the same frames, boxes and keyframes.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.packing import seconds
from benchmarks.reward_job import RewardJob, SequentialSam2Scorer, make_job
from benchmarks.reward_profile import print_profile, stage_times
from grpo_reward.reward_score import DEFAULT_RULE
from grpo_reward.rules import find_rule
from grpo_reward.scorer import RewardScorer
from veason.command_line import HelpFormatter
from veason.tracking.sam2.compilation import CompileOptions
from veason.tracking.sam2.loading import load_model
from veason.tracking.sam2.tracker import Sam2Tracker
from veason.tracking.tracker_prompts import BoxPrompt

TARGETS = {1: 25.0, 3: 15.0}  # boxes per rollout -> how many times faster than the published schedule
GROUPS_PER_STEP = 16


def make_weights(options: argparse.Namespace) -> dict[str, torch.Tensor]:
    """The weights of both schedules; random ones are made to segment objects, since empty masks would always agree."""
    model = load_model(options.config, options.checkpoint, torch.device("cpu"))
    if options.checkpoint is None:
        torch.nn.init.constant_(model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 10.0)
    return model.state_dict()


def load_scorer(
    options: argparse.Namespace, weights: dict[str, torch.Tensor], compile_options: CompileOptions | None
) -> RewardScorer:
    device = torch.device(options.device)
    model = load_model(options.config, None, torch.device("cpu"))
    model.load_state_dict(weights)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return RewardScorer(find_rule(DEFAULT_RULE), Sam2Tracker(model.to(device), dtype, compile_options=compile_options))


def agreement(scorer: RewardScorer, job: RewardJob, expected: Sequence[np.ndarray]) -> float:
    """Mean IoU of our masks with the published schedule's, which are fp32's."""
    frames = [np.asarray(image) for image in job.example.images]
    assert scorer.tracker is not None
    found = scorer.tracker.track_group(frames, [BoxPrompt(*prompt) for prompt in job.prompts[: len(expected)]])
    return float(np.mean([(a & b).sum() / max(1, (a | b).sum()) for a, b in zip(found, expected, strict=True)]))


def measure_published(jobs: Sequence[RewardJob], weights: dict[str, torch.Tensor], options: argparse.Namespace):
    """Seconds per group of the published schedule, by job, and its masks."""
    rollouts = options.published_rollouts
    schedule = SequentialSam2Scorer(options.config, weights, torch.device(options.device))
    schedule.score(jobs[0], 1)
    times = {job.name: seconds(partial(schedule.score, job, rollouts), 1, 0) for job in jobs}
    return {name: value * options.rollouts / rollouts for name, value in times.items()}, schedule.masks


def measure(scorer: RewardScorer, jobs: Sequence[RewardJob], options: argparse.Namespace) -> dict[str, float]:
    """Seconds per group, by job; the first call of each job warms up."""
    return {job.name: seconds(partial(scorer.score, job.example, job.responses), options.repeats) for job in jobs}


def print_table(published: dict[str, float], ours: dict[str, float], jobs: Sequence[RewardJob]) -> None:
    rollouts, groups = len(jobs[0].responses), GROUPS_PER_STEP
    print(
        f"\n| group of {rollouts} | published: s per group | step of {groups} groups | ours: s per group | step | "
        "faster | target |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for job in jobs:
        before, after = published[job.name], ours[job.name]
        ratio = before / after
        target = TARGETS[job.boxes]
        verdict = f"{target:.0f}: {'met' if ratio >= target else 'MISSED'}"
        steps = before * GROUPS_PER_STEP, after * GROUPS_PER_STEP
        print(
            f"| {job.name} | {before:.3f} | {steps[0]:.1f} | {after:.4f} | {steps[1]:.2f} | {ratio:.1f} x | {verdict} |"
        )


def variants() -> dict[str, CompileOptions]:
    """Ours with one option changed at a time."""
    default = CompileOptions()
    return {
        "nothing compiled": CompileOptions(image_encoder=False, steps=False),
        "encoder not compiled": replace(default, image_encoder=False),
        "steps not compiled": replace(default, steps=False),
    }


def describe(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return f"{name}, PyTorch {torch.__version__}"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--config",
        default="configs/sam2.1/sam2.1_hiera_l.yaml",
        help="SAM 2 model file, or its name inside the sam2 package",
    )
    parser.add_argument("--checkpoint", help="its weights; random without")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    parser.add_argument("--frames", type=int, default=5, help="frames of a clip")
    parser.add_argument("--frame_size", type=int, default=560, help="side of a frame, in pixels")
    parser.add_argument("--rollouts", type=int, default=8, help="rollouts per group")
    parser.add_argument(
        "--published_rollouts", type=int, default=8, help="how many of them the published schedule is measured on"
    )
    parser.add_argument("--repeats", type=int, default=7, help="timed repetitions")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights and clips")
    parser.add_argument("--variants", action="store_true", help="also ours with one optimization changed at a time")
    parser.add_argument(
        "--profile", action="store_true", help="also the seconds of each stage and the heaviest kernels"
    )
    parser.add_argument("--output", type=Path, help="write all measurements to this JSON file")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    device = torch.device(options.device)
    torch.manual_seed(options.seed)
    print(describe(device), flush=True)
    jobs = [make_job(boxes, mixed, options) for boxes in TARGETS for mixed in (False, True)]

    weights = make_weights(options)
    published, masks = measure_published(jobs, weights, options)
    results: dict = {"device": describe(device), "published": published}
    print(
        "published schedule: " + "; ".join(f"{name} {value:.3f} s per group" for name, value in published.items()),
        flush=True,
    )

    start = time.perf_counter()
    scorer = load_scorer(options, weights, None)
    for job in jobs:
        scorer.score(job.example, job.responses)
    print(f"loading and first calls, compilation included: {time.perf_counter() - start:.1f} s", flush=True)
    results["ours"] = measure(scorer, jobs, options)
    print_table(published, results["ours"], jobs)
    results["agreement"] = {job.name: agreement(scorer, job, masks[job.name]) for job in jobs}
    print(
        "IoU of our masks with the published schedule's: "
        + "; ".join(f"{name} {iou:.4f}" for name, iou in results["agreement"].items())
    )
    if device.type == "cuda":
        print(f"peak memory: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)
    if options.profile:
        for job in jobs[1::2]:
            results.setdefault("stages", {})[job.name] = stage_times(scorer, job)
            print_profile(scorer, job)
    for name, compile_options in variants().items() if options.variants else ():
        del scorer
        torch.compiler.reset()
        scorer = load_scorer(options, weights, compile_options)
        results.setdefault("variants", {})[name] = found = measure(scorer, jobs[1::2], options)
        iou = agreement(scorer, jobs[1], masks[jobs[1].name])
        print(
            f"{name}: "
            + "; ".join(f"{job} {value:.4f} s per group" for job, value in found.items())
            + f"; IoU {iou:.4f}",
            flush=True,
        )
    if options.output:
        options.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
