"""How fast a group of rollouts is scored: the published schedule and this repository's, side by side in one process.

    python -m benchmarks.reward_throughput                        # the table: hiera-large at 1024, random weights, 1 and 3 boxes
    python -m benchmarks.reward_throughput --variants --attention --profile

The published schedule takes one rollout at a time, in fp32, and encodes the frames for each: sam2's own video
predictor, the masks copied to the host and compared there. Ours is `GroupScorer.score` from texts to scores. Both get
the same frames, boxes and keyframes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.reward_profile import attention_table, print_profile, stage_times
from grpo_reward.parts import frame_ious
from grpo_reward.reward_score import DEFAULT_RULE
from grpo_reward.rules import find_rule
from grpo_reward.scorer import GroupScorer
from veason.answers import format_answer
from veason.data.examples import Example, GroundTruth
from veason.tracking.sam2.loading import POSTPROCESSING, find_config, load_model
from veason.tracking.sam2.pixels import prepare_frames
from veason.tracking.sam2.tracker import Prompt, Speed, VideoTracker

BAR = {1: 25.0, 3: 15.0}  # boxes a rollout -> how many times faster than the published schedule
GROUPS_PER_STEP = 16


@dataclass(frozen=True)
class Job:
    """One group: the frames, the truth, and what its rollouts answered."""

    name: str
    boxes: int
    example: Example
    responses: list[str]
    prompts: list[tuple[int, np.ndarray]]  # keyframe and boxes of each rollout


def make_job(boxes: int, mixed: bool, options: argparse.Namespace) -> Job:
    """Random frames and boxes; time does not depend on what they show."""
    rng = np.random.default_rng(options.seed + boxes)
    size, frames = options.frame_size, options.frames
    images = [Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)) for _ in range(frames)]
    truth = GroundTruth(
        frame_ids=list(range(0, 4 * frames, 4)),
        boxes=[_random_boxes(rng, boxes, size).tolist() for _ in range(frames)],
        masks=rng.integers(0, 2, (frames, size, size), dtype=np.uint8),
    )
    middle = frames // 2
    keyframes = [number % frames if mixed else middle for number in range(options.rollouts)]
    prompts = [(keyframe, _random_boxes(rng, boxes, size)) for keyframe in keyframes]
    responses = [
        format_answer("It is there.", truth.frame_ids[keyframe], found.tolist()) for keyframe, found in prompts
    ]
    name = f"{boxes} box{'es' if boxes > 1 else ''}, {'mixed keyframes' if mixed else 'one keyframe'}"
    return Job(name, boxes, Example("benchmark/0", [], images, truth), responses, prompts)


def _random_boxes(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    corners = np.sort(rng.integers(0, size, (count, 2, 2)), axis=1)
    return corners.reshape(count, 4).astype(np.float64)


class PublishedSchedule:
    """sam2's video predictor, one rollout at a time."""

    def __init__(self, config: str, weights: dict[str, torch.Tensor], device: torch.device):
        import sam2.sam2_video_predictor as official
        from hydra.utils import instantiate
        from omegaconf import OmegaConf

        official.tqdm = lambda frames, **_: frames  # no progress bar for every rollout
        settings = OmegaConf.load(find_config(config))
        settings.model._target_ = "sam2.sam2_video_predictor.SAM2VideoPredictor"
        for key, value in POSTPROCESSING.items():
            OmegaConf.update(settings, f"model.{key}", value, force_add=True)
        self.predictor = instantiate(settings.model, _recursive_=True)
        self.predictor.load_state_dict(weights)
        self.predictor.to(device).eval()
        self.device = device
        self.masks: dict[str, list[np.ndarray]] = {}  # job -> what was tracked for each rollout

    def score(self, job: Job, rollouts: int) -> list[float]:
        """The consistency of the first `rollouts` answers."""
        frames, truth = [np.asarray(image) for image in job.example.images], job.example.truth
        self.masks[job.name] = [self._track(frames, *prompt) for prompt in job.prompts[:rollouts]]
        return [float(frame_ious(masks, truth.masks).mean()) for masks in self.masks[job.name]]

    def _track(self, frames: Sequence[np.ndarray], keyframe: int, boxes: np.ndarray) -> np.ndarray:
        state = self._start(frames)
        for number, box in enumerate(boxes):
            self.predictor.add_new_points_or_box(state, keyframe, number, box=box.astype(np.float32))
        masks = np.zeros((len(frames), *frames[0].shape[:2]), dtype=bool)
        for reverse in (False, True):
            for frame, _, logits in self.predictor.propagate_in_video(state, start_frame_idx=keyframe, reverse=reverse):
                masks[frame] = (logits > 0).any(0)[0].cpu().numpy()
        return masks

    def _start(self, frames: Sequence[np.ndarray]) -> dict:
        """What `init_state` makes of a folder of JPEG files, from frames in memory."""
        height, width = frames[0].shape[:2]
        state = dict.fromkeys(("cached_features", "constants", "point_inputs_per_obj", "mask_inputs_per_obj"))
        state |= dict.fromkeys(("output_dict_per_obj", "temp_output_dict_per_obj", "frames_tracked_per_obj"))
        state = {key: {} for key in state} | {
            "obj_id_to_idx": OrderedDict(),
            "obj_idx_to_id": OrderedDict(),
            "obj_ids": [],
        }
        return state | {
            "images": prepare_frames(frames, self.predictor.image_size, self.device),
            "num_frames": len(frames),
            "offload_video_to_cpu": False,
            "offload_state_to_cpu": False,
            "video_height": height,
            "video_width": width,
            "device": self.device,
            "storage_device": self.device,
        }


def seconds(call: Callable[[], object], device: torch.device, repeats: int, warmup: int = 0) -> float:
    """Median wall time of `call`, the device's work included."""
    times = []
    for number in range(warmup + repeats):
        _synchronize(device)
        start = time.perf_counter()
        call()
        _synchronize(device)
        if number >= warmup:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_weights(options: argparse.Namespace) -> dict[str, torch.Tensor]:
    """The weights of both schedules. Random ones are made to see objects: empty masks would be equal and prove nothing."""
    model = load_model(options.config, options.checkpoint, torch.device("cpu"))
    if options.checkpoint is None:
        torch.nn.init.constant_(model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 10.0)
    return model.state_dict()


def load_scorer(options: argparse.Namespace, weights: dict[str, torch.Tensor], speed: Speed | None) -> GroupScorer:
    device = torch.device(options.device)
    model = load_model(options.config, None, torch.device("cpu"))
    model.load_state_dict(weights)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return GroupScorer(find_rule(DEFAULT_RULE), VideoTracker(model.to(device), dtype, speed=speed))


def agreement(scorer: GroupScorer, job: Job, expected: Sequence[np.ndarray]) -> float:
    """Mean IoU of our masks with the published schedule's, which are fp32's."""
    frames = [np.asarray(image) for image in job.example.images]
    found = scorer.tracker.track_group(frames, [Prompt(*prompt) for prompt in job.prompts[: len(expected)]])
    return float(np.mean([(a & b).sum() / max(1, (a | b).sum()) for a, b in zip(found, expected, strict=True)]))


def measure_published(jobs: Sequence[Job], weights: dict[str, torch.Tensor], options: argparse.Namespace):
    """Seconds per group of the published schedule, by job, and its masks."""
    device, rollouts = torch.device(options.device), options.published_rollouts
    schedule = PublishedSchedule(options.config, weights, device)
    schedule.score(jobs[0], 1)
    times = {job.name: seconds(lambda job=job: schedule.score(job, rollouts), device, 1) for job in jobs}
    return {name: value * options.rollouts / rollouts for name, value in times.items()}, schedule.masks


def measure(scorer: GroupScorer, jobs: Sequence[Job], options: argparse.Namespace) -> dict[str, float]:
    """Seconds per group, by job; the first call of each job warms up."""
    device = torch.device(options.device)
    return {
        job.name: seconds(lambda job=job: scorer.score(job.example, job.responses), device, options.repeats, 2)
        for job in jobs
    }


def print_table(published: dict[str, float], ours: dict[str, float], jobs: Sequence[Job]) -> None:
    rollouts, groups = len(jobs[0].responses), GROUPS_PER_STEP
    print(
        f"\n| a group of {rollouts} | published: s a group | a step of {groups} groups | ours: s a group | a step | "
        "faster | bar |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for job in jobs:
        before, after = published[job.name], ours[job.name]
        ratio = before / after
        verdict = f"{BAR[job.boxes]:.0f}: {'met' if ratio >= BAR[job.boxes] else 'MISSED'}" if job.boxes in BAR else ""
        steps = before * GROUPS_PER_STEP, after * GROUPS_PER_STEP
        print(
            f"| {job.name} | {before:.3f} | {steps[0]:.1f} | {after:.4f} | {steps[1]:.2f} | {ratio:.1f} x | {verdict} |"
        )


def variants() -> dict[str, Speed]:
    """Ours with one thing changed at a time."""
    shipped = Speed()
    return {
        "nothing compiled": Speed(compile_encoder=False, compile_steps=False),
        "encoder not compiled": replace(shipped, compile_encoder=False),
        "steps not compiled": replace(shipped, compile_steps=False),
    }


def describe(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return f"{name}, PyTorch {torch.__version__}"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config",
        default="configs/sam2.1/sam2.1_hiera_l.yaml",
        help="SAM 2 model file, or its name inside the sam2 package",
    )
    parser.add_argument("--checkpoint", help="its weights; random without")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--frame_size", type=int, default=560)
    parser.add_argument("--rollouts", type=int, default=8, help="rollouts a group")
    parser.add_argument(
        "--published_rollouts", type=int, default=8, help="how many of them the published schedule is measured on"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", action="store_true", help="also ours with one optimisation changed at a time")
    parser.add_argument("--attention", action="store_true", help="also the kernels for memory attention at its shapes")
    parser.add_argument(
        "--profile", action="store_true", help="also the seconds of each stage and the heaviest kernels"
    )
    parser.add_argument("--output", type=Path, help="write all figures to this JSON file")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    device = torch.device(options.device)
    torch.manual_seed(options.seed)
    print(describe(device), flush=True)
    jobs = [make_job(boxes, mixed, options) for boxes in BAR for mixed in (False, True)]

    weights = make_weights(options)
    published, masks = measure_published(jobs, weights, options)
    figures: dict = {"device": describe(device), "published": published}
    print(
        "published schedule: " + "; ".join(f"{name} {value:.3f} s a group" for name, value in published.items()),
        flush=True,
    )

    start = time.perf_counter()
    scorer = load_scorer(options, weights, None)
    for job in jobs:
        scorer.score(job.example, job.responses)
    print(f"loading and first calls, compilation included: {time.perf_counter() - start:.1f} s", flush=True)
    figures["ours"] = measure(scorer, jobs, options)
    print_table(published, figures["ours"], jobs)
    figures["agreement"] = {job.name: agreement(scorer, job, masks[job.name]) for job in jobs}
    print(
        "IoU of our masks with the published schedule's: "
        + "; ".join(f"{name} {iou:.4f}" for name, iou in figures["agreement"].items())
    )
    if device.type == "cuda":
        print(f"peak memory: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)
    if options.profile:
        for job in jobs[1::2]:
            figures.setdefault("stages", {})[job.name] = stage_times(scorer, job)
            print_profile(scorer, job)
    if options.attention:
        figures["attention"] = attention_table(device)
    for name, speed in variants().items() if options.variants else ():
        del scorer
        torch.compiler.reset()
        scorer = load_scorer(options, weights, speed)
        figures.setdefault("variants", {})[name] = found = measure(scorer, jobs[1::2], options)
        iou = agreement(scorer, jobs[1], masks[jobs[1].name])
        print(
            f"{name}: "
            + "; ".join(f"{job} {value:.4f} s a group" for job, value in found.items())
            + f"; IoU {iou:.4f}",
            flush=True,
        )
    if options.output:
        options.output.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
