"""The tiny SAM 2: sam2's own builder loads it as a video predictor, and its training overfits a clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from sam2.build_sam import build_sam2_video_predictor

from veason.toy.tiny_tracker import TrackerSize, build_tracker_model, write_tracker
from veason.toy.tracker_eval import evaluate_tracker, find_tracked_objects, validation_videos
from veason.toy.tracker_loss import DecoderHook, DecoderOutput, clip_loss, track_clips
from veason.toy.train_tracker import (
    LossHistory,
    TrackerTraining,
    TrainingStage,
    WeightEMA,
    evaluate_weights,
    jitter_boxes,
    learning_rate,
)
from veason.toy.training_clips import random_clips
from veason.tracking.sam2.tracker import Sam2Tracker
from veason.tracking.tracker_prompts import BoxPrompt

SMALL = TrackerSize(image_size=64, hidden_size=64, memory_size=32, trunk_size=8)


def test_sam2_builds_its_video_predictor_from_the_folder(tmp_path):
    write_tracker(tmp_path, SMALL)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(tmp_path), version_base="1.2"):
            predictor = build_sam2_video_predictor("sam2_tiny.yaml", str(tmp_path / "sam2_tiny.pt"), device="cpu")
    finally:
        GlobalHydra.instance().clear()
    assert type(predictor).__name__ == "SAM2VideoPredictor" and predictor.image_size == 64


def test_the_projects_tracker_runs_on_it(tmp_path):
    write_tracker(tmp_path, SMALL)
    tracker = Sam2Tracker.from_files(tmp_path / "sam2_tiny.yaml", tmp_path / "sam2_tiny.pt")
    frames = np.random.default_rng(0).integers(0, 256, (4, 48, 80, 3), dtype=np.uint8)
    (masks,) = tracker.track_group(
        frames, [BoxPrompt(2, np.array([[5, 5, 30, 30], [40, 10, 70, 40]], dtype=np.float32))]
    )
    assert masks.shape == (4, 48, 80) and masks.dtype == bool


def test_clips_show_their_targets_where_the_boxes_say():
    clips = random_clips(6, frames=4, prompted=1, side=64, generator=torch.Generator().manual_seed(0))
    assert clips.frames.shape == (6, 4, 3, 64, 64) and clips.masks.shape == (6, 2, 4, 64, 64)
    assert clips.frames.min() >= 0 and clips.frames.max() <= 1
    assert clips.present[:, :, 1][clips.usable].all()
    for clip, target in clips.usable.nonzero().tolist():
        rows, columns = (clips.masks[clip, target, 1] > 0.5).nonzero(as_tuple=True)
        seen = torch.stack([columns.min(), rows.min(), columns.max(), rows.max()])
        assert (clips.boxes[clip, target] - seen).abs().max() <= 1.5
    again = random_clips(6, frames=4, prompted=1, side=64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(clips.frames, again.frames)


def test_every_part_that_tracks_gets_a_gradient():
    model = build_tracker_model(SMALL).train()
    hook = DecoderHook(model)
    clips = random_clips(2, frames=3, prompted=1, side=64, generator=torch.Generator().manual_seed(1))
    outputs = track_clips(model, hook, clips.frames, clips.boxes, prompted=1, length=8)
    assert len(outputs) == 3 and outputs[0].mask_logits.shape == (4, 4, 16, 16)
    clip_loss(outputs, clips, prompted=1, balance=1.0, token=2).total.backward()
    for part in (
        model.image_encoder.trunk,
        model.image_encoder.neck,
        model.memory_attention,
        model.sam_mask_decoder.transformer,
    ):
        assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in part.parameters())
    heads = model.sam_mask_decoder.output_hypernetworks_mlps
    assert [any(weight.grad is not None for weight in head.parameters()) for head in heads] == [True, True, True, True]
    assert heads[2].layers[0].weight.grad.abs().sum() > 0 == heads[1].layers[0].weight.grad.abs().sum()


def test_training_overfits_a_clip():
    model = build_tracker_model(SMALL).train()
    hook, optimizer = DecoderHook(model), torch.optim.AdamW(model.parameters(), 2e-3)
    clips = random_clips(2, frames=2, prompted=0, side=64, generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(40):
        loss = clip_loss(track_clips(model, hook, clips.frames, clips.boxes, 0, 8), clips, 0, balance=1.0, token=1)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss)
    assert losses[-1].total < 0.6 * losses[0].total
    assert losses[-1].prompted_iou > losses[0].prompted_iou + 0.2


def test_a_loss_of_perfect_logits_is_small_and_an_empty_mask_is_not():
    clips = random_clips(2, frames=1, prompted=0, side=32, generator=torch.Generator().manual_seed(0))
    ground_truth = (clips.masks.flatten(0, 1)[:, 0] > 0.5).float()

    def loss_of(logits):
        count = len(logits)
        output = DecoderOutput(
            logits.unsqueeze(1).expand(-1, 4, -1, -1), torch.ones(count, 4), torch.full((count,), 9.0)
        )
        return clip_loss([output], clips, 0, balance=0.0, token=1)

    good, empty = loss_of(40 * ground_truth - 20), loss_of(torch.full_like(ground_truth, -20.0))
    assert good.prompted_iou > 0.99 and empty.prompted_iou == 0
    assert good.total < 0.3 * empty.total
    assert torch.isnan(good.other_iou)


def test_the_schedules():
    assert learning_rate(0, 0.0) < 1e-5 and learning_rate(500, 0.0) == pytest.approx(5e-4)
    assert learning_rate(500, 1.0) == pytest.approx(1e-5) and learning_rate(500, 2.0) == pytest.approx(1e-5)
    boxes = torch.tensor([[[10.0, 20, 30, 60]]]).expand(400, 1, 4)
    moved = jitter_boxes(boxes, 64, torch.Generator().manual_seed(0)) - boxes
    assert 0.4 < (moved == 0).all(-1).float().mean() < 0.6
    assert moved[..., 0].abs().max() <= 1.6 and 1.6 < moved[..., 1].abs().max() <= 3.2


def test_weights_are_averaged_and_stored_in_half_precision():
    model = build_tracker_model(SMALL)
    average = WeightEMA(model)
    with torch.no_grad():
        model.no_mem_embed.fill_(1.0)
    for _ in range(60):
        average.update(model)
    state = average.state_dict(model)
    assert state["no_mem_embed"].dtype == torch.float16 and state["no_mem_embed"].mean() > 0.9
    assert set(state) == set(model.state_dict())


def test_the_class_balance_falls_as_masks_improve():
    training = TrackerTraining(SMALL, seconds=60, seed=0, device=torch.device("cpu"))
    assert training.balance == 1.0
    training.losses = LossHistory(means={"IoU prompted": 0.725})
    assert training.balance == pytest.approx(0.5)
    training.losses = LossHistory(means={"IoU prompted": 0.9})
    assert training.balance == 0.0
    loss = training.step(TrainingStage(1.0, 2, 2, 2))
    assert torch.isfinite(loss.total) and training.steps == 1


@pytest.mark.gpu
def test_a_stage_trains_and_is_evaluated_on_a_gpu(tmp_path):
    device = torch.device("cuda")
    training = TrackerTraining(SMALL, seconds=4, seed=0, device=device)
    training.run_stage(0, report_every=1)
    training.step(TrainingStage(1.0, 3, 4, 2))
    write_tracker(tmp_path, SMALL)
    training.save(tmp_path)
    assert training.losses.history["loss"][-1] < training.losses.history["loss"][0]
    assert evaluate_weights(tmp_path, device, validation_videos(1))["tracks"] > 0


def test_the_evaluation_tracks_objects_of_held_out_videos():
    videos = validation_videos(1)
    assert videos[0].name.startswith("unseen")
    for track in find_tracked_objects(videos[0]):
        assert (
            5 <= track.prompted < len(videos[0].frames) - 5
            and videos[0].facts[track.object_index].visible_ratio[track.prompted] >= 0.5
        )

    class Perfect:
        def track_group(self, _frames, _prompts):
            return [videos[0].union([track.object_index]) for track in find_tracked_objects(videos[0])]

    metrics = evaluate_tracker(Perfect(), videos)
    assert metrics["prompted"] == metrics["before"] == metrics["after"] == metrics["within"] == 1.0
    assert metrics["tracks"] == len(find_tracked_objects(videos[0]))
