"""Every released SAM 2 and 2.1, tiny to large, against sam2's own predictor: their architecture, random weights.

At 256 pixels instead of 1024, so that eight models run on a CPU.
"""

import pytest
import torch
from sam2_models import make_boxes, make_clip, make_official, run_official, run_ours

from veason.tracking.sam2.loading import find_config
from veason.tracking.sam2.tracker import Sam2Tracker

SIZE = 256


def write_smaller(name, path):
    from omegaconf import OmegaConf

    settings = OmegaConf.load(find_config(name))
    settings.model.image_size = SIZE
    for kind in ("self_attention", "cross_attention"):
        settings.model.memory_attention.layer[kind].feat_sizes = [SIZE // 16, SIZE // 16]
    OmegaConf.save(settings, path)
    return path


@pytest.mark.parametrize("size", ["t", "s", "b+", "l"])
@pytest.mark.parametrize("release", ["sam2", "sam2.1"])
def test_equal_to_the_official_predictor(release, size, tmp_path):
    torch.manual_seed(0)
    config = write_smaller(f"configs/{release}/{release}_hiera_{size}.yaml", tmp_path / "model.yaml")
    predictor = make_official(config)
    torch.nn.init.constant_(predictor.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 10.0)  # the object is there
    frames, boxes = make_clip(3, 90, 120), make_boxes(2, 90, 120)
    expected = run_official(predictor, list(frames), 1, boxes)
    found = run_ours(Sam2Tracker(predictor), frames, 1, boxes)  # the same weights
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max() and expected.abs().max() < 1000
