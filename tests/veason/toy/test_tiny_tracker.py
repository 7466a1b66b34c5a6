"""The tiny SAM 2: sam2's own builder loads it as a video predictor, and the project's tracker runs on it."""

from __future__ import annotations

import numpy as np
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from sam2.build_sam import build_sam2_video_predictor

from veason.toy.tiny_tracker import TrackerSize, write_tracker
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
