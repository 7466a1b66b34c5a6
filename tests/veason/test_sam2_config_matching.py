"""SAM 2 weights against model files: told from shapes in a moment, with the file that would fit."""

from __future__ import annotations

import pytest
import torch

from tests.veason.sam2_models import write_config
from veason.errors import DataError
from veason.toy_assets import toy_tracker_options
from veason.tracking import check_tracker
from veason.tracking.sam2.config_matching import check_weights_match, infer_config, model_shapes, weight_shapes
from veason.tracking.sam2.loading import find_config, load_model, shipped_configs

TINY, LARGE = "configs/sam2.1/sam2.1_hiera_t.yaml", "configs/sam2.1/sam2.1_hiera_l.yaml"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of the published tiny model's shapes, without values that take space."""
    path = tmp_path_factory.mktemp("weights") / "sam2.1_hiera_tiny.pt"
    shapes = model_shapes(find_config(TINY))
    torch.save({"model": {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}}, path)
    return path


def test_shapes_are_those_of_the_model_that_is_built():
    model = load_model(TINY, None, torch.device("cpu"))
    assert model_shapes(find_config(TINY)) == {name: tuple(value.shape) for name, value in model.state_dict().items()}


def test_the_model_file_is_told_from_the_weights(weights):
    assert len(shipped_configs()) == 8
    shapes = [model_shapes(find_config(name)) for name in shipped_configs()]
    assert all(one != other for number, one in enumerate(shapes) for other in shapes[:number])
    assert infer_config(weights) == TINY and weight_shapes(weights) == model_shapes(find_config(TINY))
    check_weights_match(TINY, weights)


def test_another_model_is_said_in_one_line_with_the_one_that_fits(weights):
    with pytest.raises(DataError) as found:
        check_tracker("sam2", {"sam2_config": LARGE, "sam2_checkpoint": str(weights)})
    message = str(found.value)
    assert f"sam2_checkpoint={weights} does not fit sam2_config={LARGE}" in message
    assert "these weights fit sam2_config=" + TINY in message and "\n" not in message and len(message) < 600


def test_weights_of_an_own_model(tmp_path):
    toy = toy_tracker_options()
    check_weights_match(toy["config"], toy["checkpoint"])
    with pytest.raises(DataError, match="fits no model file of the sam2 package; give its own"):
        infer_config(toy["checkpoint"])
    with pytest.raises(DataError, match="does not fit") as found:
        check_weights_match(write_config(tmp_path / "other.yaml", 192), toy["checkpoint"])
    assert "these weights fit" not in str(found.value)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 no zip"])
def test_what_holds_no_weights_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"sam2_checkpoint=.*{name} holds no weights") as found:
        infer_config(tmp_path / name)
    assert "\n" not in str(found.value)
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(DataError, match="holds no weights"):
        infer_config(tmp_path / "list.pt")
