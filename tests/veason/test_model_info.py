"""Facts about a checkpoint from its config.json, without torch."""

import json
import subprocess
import sys

import pytest

from veason.errors import DataError
from veason.frames import check_pixel_multiple
from veason.model_info import ModelInfo, read_model_info


def write(folder, **content):
    (folder / "config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("model_type", "patch", "info"),
    [("qwen2_5_vl", 14, ModelInfo("qwen2_5_vl", 28, None)), ("qwen3_vl", 16, ModelInfo("qwen3_vl", 32, 1000))],
)
def test_known_models(tmp_path, model_type, patch, info):
    vision = {"patch_size": patch, "spatial_merge_size": 2}
    assert read_model_info(write(tmp_path, model_type=model_type, vision_config=vision)) == info


@pytest.mark.parametrize(("model_type", "side"), [("llava", None), ("llava", 1000), ("qwen3_vl", None)])
def test_a_checkpoint_says_for_itself_where_its_boxes_are(tmp_path, model_type, side):
    vision = {"patch_size": 14, "spatial_merge_size": 2}
    info = read_model_info(write(tmp_path, model_type=model_type, vision_config=vision, coordinate_range=side))
    assert info == ModelInfo(model_type, 28, side)


def test_what_is_no_such_checkpoint_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no checkpoint at .*: config\.json is missing"):
        read_model_info(tmp_path)
    with pytest.raises(
        DataError, match="model_type 'llava' is not known, as qwen2_5_vl, qwen3_vl are: write coordinate_range"
    ):
        read_model_info(write(tmp_path, model_type="llava", vision_config={"patch_size": 14, "spatial_merge_size": 2}))
    with pytest.raises(DataError, match=r"no configuration of a vision-language model \(no 'vision_config'"):
        read_model_info(write(tmp_path, model_type="qwen2"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="no configuration of a vision-language model"):
        read_model_info(tmp_path)


@pytest.mark.parametrize(("side", "multiple", "seen"), [(560, 32, 576), (500, 28, 504), (28, 28, 56), (3612, 28, 3584)])
def test_a_frame_size_that_the_model_would_change_is_refused(side, multiple, seen):
    with pytest.raises(DataError, match=f"frames of {side} x {side} pixels would reach the policy as {seen} x {seen}"):
        check_pixel_multiple(side, multiple)


@pytest.mark.parametrize(("side", "multiple"), [(560, 28), (448, 28), (448, 32), (640, 32), (56, 28)])
def test_a_multiple_is_accepted(side, multiple):
    check_pixel_multiple(side, multiple)


def test_torch_is_not_imported():
    code = "import sys, veason.model_info, veason.frames; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
