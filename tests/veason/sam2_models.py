"""Small SAM 2 models of random weights, sam2's own predictor and ours on the same boxes, and random clips."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from veason.toy.tiny_tracker import TrackerSize, tracker_config
from veason.tracking.sam2.feature_window import FeatureWindow
from veason.tracking.sam2.loading import POSTPROCESSING, load_model
from veason.tracking.sam2.object_batch import BatchObject, ObjectBatch
from veason.tracking.sam2.preprocessing import preprocess_frames
from veason.tracking.sam2.tracker import Sam2Tracker
from veason.tracking.tracker_prompts import BoxPrompt, FramePrompt, MultiObjectPrompt, usable_objects

CPU = torch.device("cpu")
SIZES = {128: TrackerSize(), 192: TrackerSize(image_size=192, hidden_size=64, memory_size=32, memory_frames=4)}
# the published models propose three masks while they track, which the toy's does not
THREE_MASKS = {
    "multimask_output_in_sam": True,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
}


def write_config(path, size, **settings):
    from omegaconf import OmegaConf

    config = OmegaConf.create(tracker_config(SIZES[size]))
    for key, value in settings.items():
        config.model[key] = value
    OmegaConf.save(config, path)
    return path


def make_model(config, seed=0):
    """Random weights, on which objects are present on some frames and absent from others."""
    torch.manual_seed(seed)
    model = load_model(config, None, CPU)
    head = model.sam_mask_decoder.pred_obj_score_head.layers[-1]
    torch.nn.init.normal_(head.weight, std=4.0)
    frames, tracker = make_clip(8, 32, 32), Sam2Tracker(model)
    with torch.no_grad():
        features = tracker.network.encode_images(preprocess_frames(frames, model.image_size, CPU))
        labels = torch.tensor([[2, 3]] * 8).int()
        _, _, scores = tracker.network.segment_prompts(features, torch.rand(8, 2, 2) * 100, labels)
        head.bias -= scores.median()
    return model


def make_official(config, model=None):
    """sam2's predictor with the weights of `model`."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    settings = OmegaConf.load(config)
    settings.model._target_ = "sam2.sam2_video_predictor.SAM2VideoPredictor"
    for key, value in POSTPROCESSING.items():
        OmegaConf.update(settings, f"model.{key}", value, force_add=True)
    predictor = instantiate(settings.model, _recursive_=True).eval()
    if model is not None:
        predictor.load_state_dict(model.state_dict())
    return predictor.requires_grad_(False)


def run_official(predictor, frames, keyframe, boxes):
    """Mask logits [T, K, H, W] of sam2's predictor, forward and then in reverse."""
    return run_official_objects(predictor, frames, BoxPrompt(keyframe, boxes).objects)


def run_official_objects(predictor, frames, objects):
    """The same of objects with one set of keyframes, with boxes and points."""
    height, width = frames[0].shape[:2]
    state = {name: {} for name in ("cached_features", "constants", "point_inputs_per_obj", "mask_inputs_per_obj")}
    state |= {name: {} for name in ("output_dict_per_obj", "temp_output_dict_per_obj", "frames_tracked_per_obj")}
    state |= {"obj_id_to_idx": OrderedDict(), "obj_idx_to_id": OrderedDict(), "obj_ids": [], "num_frames": len(frames)}
    state |= {
        "images": preprocess_frames(frames, predictor.image_size, CPU),
        "video_height": height,
        "video_width": width,
    }
    state |= {"offload_video_to_cpu": False, "offload_state_to_cpu": False, "device": CPU, "storage_device": CPU}
    for number, item in enumerate(objects):
        for given in item:
            points, labels = np.asarray(given.points, np.float32), np.asarray(given.labels, np.int32)
            box = None if given.box is None else np.asarray(given.box, np.float32)
            predictor.add_new_points_or_box(state, given.frame, number, points, labels, box=box)
    first, logits = min(given.frame for item in objects for given in item), {}
    for reverse in (False, True):
        for frame, _, masks in predictor.propagate_in_video(state, start_frame_idx=first, reverse=reverse):
            logits[frame] = masks[:, 0]
    return torch.stack([logits[frame] for frame in range(len(frames))])


def run_ours(tracker, frames, keyframe, boxes, size=None):
    """The same from our batches, [T, K, H, W]."""
    return run_our_objects(tracker, frames, BoxPrompt(keyframe, boxes).objects, size)


def run_our_objects(tracker, frames, objects, size=None):
    """The same of objects with any keyframes, [T, K, H, W]."""
    height, width = frames[0].shape[:2]
    size, scale = size or (height, width), tracker.network.size / np.array([width, height])
    scaled = usable_objects(MultiObjectPrompt(tuple(objects)), len(frames), scale)
    window = FeatureWindow(tracker.network, frames.__getitem__, range(len(frames)), len(frames))
    batch = ObjectBatch(tracker.network, [BatchObject.make(each) for each in scaled], len(frames))
    logits = torch.zeros(len(frames), len(objects), *size)
    for step, found in batch.run(window):
        logits[step, range(len(objects))] = F.interpolate(found, size, mode="bilinear")[:, 0]
    return logits


def make_clip(total, height, width, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (total, 6, 6, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height))) for frame in small])


def make_boxes(count, height, width, seed=0):
    corners = np.sort(np.random.default_rng(seed).uniform(0, 1, (count, 2, 2)), axis=1)
    return (corners * [width, height]).reshape(count, 4).astype(np.float32)


def make_object(keyframes, height, width, points=0, box=True, seed=0):
    """An object with a box, and points of both labels, on each of its keyframes."""
    rng = np.random.default_rng(seed)
    prompts = []
    for keyframe in keyframes:
        (corners,) = make_boxes(1, height, width, seed=rng.integers(1 << 30))
        labels = np.array([1, 0, 1, 1, 0][:points], int)
        prompts.append(
            FramePrompt(keyframe, corners if box else None, rng.uniform(0, [width, height], (points, 2)), labels)
        )
    return tuple(prompts)
