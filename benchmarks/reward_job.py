"""The job of `benchmarks.reward_throughput`: random groups of rollouts, and the published schedule that scores them."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from grpo_reward.parts import frame_ious
from veason.answers import format_answer
from veason.data.examples import GroundTruth, TrainingExample
from veason.tracking.sam2.loading import POSTPROCESSING, find_config
from veason.tracking.sam2.preprocessing import preprocess_frames


@dataclass(frozen=True)
class RewardJob:
    """One group: the frames, the ground truth, and the responses of its rollouts."""

    name: str
    boxes: int
    example: TrainingExample
    responses: list[str]
    prompts: list[tuple[int, np.ndarray]]  # keyframe and boxes of each rollout


def make_job(boxes: int, mixed: bool, options: argparse.Namespace) -> RewardJob:
    """Random frames and boxes; the time does not depend on what they show."""
    rng = np.random.default_rng(options.seed + boxes)
    size, frames = options.frame_size, options.frames
    images = [Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)) for _ in range(frames)]
    ground_truth = GroundTruth(
        timestamps=list(range(0, 4 * frames, 4)),
        boxes=[_random_boxes(rng, boxes, size).tolist() for _ in range(frames)],
        masks=rng.integers(0, 2, (frames, size, size), dtype=np.uint8),
    )
    middle = frames // 2
    keyframes = [number % frames if mixed else middle for number in range(options.rollouts)]
    prompts = [(keyframe, _random_boxes(rng, boxes, size)) for keyframe in keyframes]
    responses = [
        format_answer("It is there.", ground_truth.timestamps[keyframe], found.tolist()) for keyframe, found in prompts
    ]
    name = f"{boxes} box{'es' if boxes > 1 else ''}, {'mixed keyframes' if mixed else 'one keyframe'}"
    return RewardJob(name, boxes, TrainingExample("benchmark/0", [], images, ground_truth), responses, prompts)


def _random_boxes(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    corners = np.sort(rng.integers(0, size, (count, 2, 2)), axis=1)
    return corners.reshape(count, 4).astype(np.float64)


class SequentialSam2Scorer:
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
        self.masks: dict[str, list[np.ndarray]] = {}  # job -> the masks of each rollout

    def score(self, job: RewardJob, rollouts: int) -> list[float]:
        """The consistency of the first `rollouts` answers."""
        frames, ground_truth = [np.asarray(image) for image in job.example.images], job.example.ground_truth
        assert ground_truth is not None
        self.masks[job.name] = [
            propagate(self.predictor, self._start(frames), *prompt) for prompt in job.prompts[:rollouts]
        ]
        return [float(frame_ious(masks, ground_truth.masks).mean()) for masks in self.masks[job.name]]

    def _start(self, frames: Sequence[np.ndarray]) -> dict:
        """The state that `init_state` makes of a folder of JPEG files, from frames in memory."""
        height, width = frames[0].shape[:2]
        state = dict.fromkeys(("cached_features", "constants", "point_inputs_per_obj", "mask_inputs_per_obj"))
        state |= dict.fromkeys(("output_dict_per_obj", "temp_output_dict_per_obj", "frames_tracked_per_obj"))
        state = {key: {} for key in state} | {
            "obj_id_to_idx": OrderedDict(),
            "obj_idx_to_id": OrderedDict(),
            "obj_ids": [],
        }
        return state | {
            "images": preprocess_frames(frames, self.predictor.image_size, self.device),
            "num_frames": len(frames),
            "offload_video_to_cpu": False,
            "offload_state_to_cpu": False,
            "video_height": height,
            "video_width": width,
            "device": self.device,
            "storage_device": self.device,
        }


def propagate(predictor: Any, state: dict, keyframe: int, boxes: np.ndarray) -> np.ndarray:
    """bool [T, H, W] of sam2's video predictor, forward and backward from the keyframe."""
    for number, box in enumerate(boxes):
        predictor.add_new_points_or_box(state, frame_idx=keyframe, obj_id=number, box=box.astype(np.float32))
    found = {}
    for reverse in (False, True):
        for frame, _, logits in predictor.propagate_in_video(state, start_frame_idx=keyframe, reverse=reverse):
            found[frame] = (logits > 0).any(0)[0].cpu().numpy()
    return np.stack([found[frame] for frame in sorted(found)])
