"""A pickle in the place of a tracker's weights is refused and never run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from transformers_models import sam3_tracker

from veason.errors import DataError
from veason.tracking import build_tracker
from veason.tracking.sam2.config_matching import weight_shapes
from veason.tracking.sam2.loading import _load_weights


class Malicious:
    """Pickled, it makes a folder where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["pickle", "torch", "inside"])
@pytest.mark.parametrize("name", ["sam2.pt", "sam2.safetensors"])
def test_a_pickled_sam2_is_refused_and_not_run(kind: str, name: str, tmp_path: Path) -> None:
    path, proof = tmp_path / name, tmp_path / "proof"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Malicious(proof)))
    else:
        torch.save({"model": {"weight": Malicious(proof)}} if kind == "inside" else Malicious(proof), path)
    with pytest.raises(DataError, match="holds no weights"):
        weight_shapes(path)
    with pytest.raises(Exception, match=r"(?i)weights.only|header|unsupported|invalid"):
        _load_weights(torch.nn.Linear(1, 1), path, "sam2.yaml")
    assert not proof.exists()


@pytest.fixture(scope="module")
def sam3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sam3")
    sam3_tracker().save_pretrained(folder)
    return folder


INDEX = '{"metadata": {}, "weight_map": {"mask_decoder.x": "NAME"}}'


@pytest.mark.parametrize("tracker", ["sam3", "transformers"])
@pytest.mark.parametrize(
    ("place", "others"),
    [
        ("model.safetensors", {}),
        ("pytorch_model.bin", {"other.safetensors": ""}),
        ("pytorch_model-00001-of-00001.bin", {"pytorch_model.bin.index.json": INDEX, "other.safetensors": ""}),
        ("part.bin", {"model.safetensors.index.json": INDEX, "other.safetensors": ""}),
        ("named.bin", {"config.json": "transformers_weights", "other.safetensors": ""}),
    ],
    ids=["in the place of safetensors", "bin", "sharded bin", "named by an index", "named by the configuration"],
)
def test_a_pickled_model_of_transformers_is_refused_and_not_run(
    tracker: str, place: str, others: dict[str, str], sam3_folder: Path, tmp_path: Path
) -> None:
    folder, proof = tmp_path / "weights", tmp_path / "proof"
    folder.mkdir()
    shutil.copy(sam3_folder / "config.json", folder)
    for name, text in others.items():
        if name == "config.json":
            text = json.dumps(json.loads((folder / name).read_text()) | {text: place})
        (folder / name).write_text(text.replace("NAME", place))
    torch.save({"mask_decoder.x": Malicious(proof)}, folder / place)
    with pytest.raises(DataError, match="holds no weights that can be loaded") as caught:
        build_tracker(tracker, "cpu", checkpoint=str(folder))
    assert "\n" not in str(caught.value) and not proof.exists()


@pytest.mark.parametrize("tracker", ["sam3", "transformers"])
def test_a_pickle_beside_the_weights_is_not_run(tracker: str, sam3_folder: Path, tmp_path: Path) -> None:
    folder, proof = tmp_path / "weights", tmp_path / "proof"
    shutil.copytree(sam3_folder, folder)
    for name in ("pytorch_model.bin", "sam2.pt", "model.bin"):
        torch.save(Malicious(proof), folder / name)
    build_tracker(tracker, "cpu", checkpoint=str(folder))
    assert not proof.exists()


def test_the_malicious_pickle_would_run(tmp_path: Path) -> None:
    torch.save(Malicious(tmp_path / "proof"), tmp_path / "any.bin")
    torch.load(tmp_path / "any.bin", weights_only=False)
    assert (tmp_path / "proof").is_dir()
