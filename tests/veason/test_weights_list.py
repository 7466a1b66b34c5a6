"""`veason models` lists the weights that can be had; the numbers are those of docs/models.md and of the models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.hub_cache import write_hub_cache
from veason.cli import main
from veason.toy_assets import TOY_POLICY, TOY_TRACKER
from veason.weights_list import KNOWN_WEIGHTS, cached_models, weights_table

MODELS_PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
BY_NAME = {each.name: each for each in KNOWN_WEIGHTS}


def test_the_list_says_what_is_here(tmp_path, monkeypatch, capsys):
    write_hub_cache(monkeypatch, tmp_path, "facebook/sam2.1-hiera-large", TOY_TRACKER)
    assert main(["models"]) == 0
    lines = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert re.search(r"sam2.1-hiera-large +224.4 million +0.84 +Apache-2.0 +yes", lines["SAM 2.1 large"])
    assert re.search(r"3.75 billion +6.99 +Qwen research +no ", lines["Qwen2.5-VL-3B"])
    assert re.search(r"6.7 million .* yes ", lines["toy policy"])
    assert " ? " in lines["Veason-R1-7B"]


def test_an_empty_cache_is_no_error(tmp_path):
    assert cached_models(tmp_path / "none") == {}
    assert sum(line.rstrip().endswith("yes") for line in weights_table({}, KNOWN_WEIGHTS[-4:])) == 0


@pytest.mark.parametrize("size", ["t", "s", "b+", "l"])
def test_trackers_have_their_parameters(size):
    from veason.tracking.sam2.tracker import Sam2Tracker

    tracker = Sam2Tracker.from_files(f"configs/sam2.1/sam2.1_hiera_{size}.yaml", "random", "cpu")
    name = {"t": "tiny", "s": "small", "b+": "base plus", "l": "large"}[size]
    count = sum(parameter.numel() for parameter in tracker.network.model.parameters()) / 1e6
    assert count == pytest.approx(BY_NAME[f"SAM 2.1 {name}"].parameters, abs=0.06)


@pytest.mark.parametrize(("name", "folder"), [("toy policy", TOY_POLICY), ("toy tracker", TOY_TRACKER)])
def test_toy_models_have_their_parameters(name, folder):
    count = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            count += sum(torch.Size(tensors.get_slice(key).get_shape()).numel() for key in tensors.keys())  # noqa: SIM118
    assert count / 1e6 == pytest.approx(BY_NAME[name].parameters, abs=0.06)


def test_the_page_of_models_has_the_same_numbers():
    for name, parameters in re.findall(r"^\| (Qwen[\w.-]+)-Instruct \|[^|]+\| ([\d.]+) billion", MODELS_PAGE, re.M):
        assert BY_NAME[name].parameters / 1000 == pytest.approx(float(parameters), abs=0.006)
    for name, parameters in re.findall(
        r"^\| (tiny|small|base plus|large)[^|]*\|[^|]+\| ([\d.]+) \|", MODELS_PAGE, re.M
    ):
        assert BY_NAME[f"SAM 2.1 {name}"].parameters == float(parameters)


@pytest.mark.parametrize("words", [["--output", "x.json"], ["--repository", "clone"]])
def test_half_of_the_options_is_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["models", *words])
    assert stop.value.code == 2 and "belong together" in capsys.readouterr().err
