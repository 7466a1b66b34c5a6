"""The weights in weights/: small, loadable by the code that loads real weights, and as good as their cards say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.veason.toy.tracked_objects import find_tracked_objects
from veason.toy.world import make_video
from veason.tracking.sam2.tracker import Sam2Tracker
from veason.tracking.tracker_prompts import BoxPrompt

WEIGHTS = Path(__file__).parents[3] / "weights"


def test_the_tracker_tracks_held_out_objects():
    folder = WEIGHTS / "toy_tracker"
    assert (folder / "sam2_tiny.safetensors").stat().st_size < 10e6
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["prompted"] > 0.9 and min(metrics["before"], metrics["after"]) > 0.8
    card = (folder / "README.md").read_text()
    assert metrics["command"] in card and f"{metrics['prompted']:.3f}" in card
    tracker = Sam2Tracker.from_files(folder / "sam2_tiny.yaml", folder / "sam2_tiny.safetensors", "cpu")
    video = make_video("unseen_0002", seed=0, frames=11)  # one of those on the card, cut short
    track = find_tracked_objects(video)[0]
    near = slice(track.prompted - 2, track.prompted + 3)
    (masks,) = tracker.track_group(list(video.frames[near]), [BoxPrompt(2, np.array([track.box], dtype=np.float32))])
    ground_truth = video.union([track.object_index])[near]
    ious = (masks & ground_truth).sum((1, 2)) / (masks | ground_truth).sum((1, 2))
    assert ious[2] > 0.8 and ious.mean() > 0.75, ious


@pytest.mark.parametrize("folder", sorted(WEIGHTS.iterdir()), ids=lambda folder: folder.name)
def test_every_folder_has_a_card_with_command_commit_metrics_and_licence(folder):
    card = (folder / "README.md").read_text()
    assert all(word in card for word in ("Made by `", "at commit ", "Licence: ", "| "))
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) <= 20e6
    assert (folder / "metrics.json").is_file() and not list(folder.glob("*.pt"))
