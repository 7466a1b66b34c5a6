"""A pickle in the place of a tracker's weights is refused and never run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from veason.errors import DataError
from veason.tracking.sam2.fit import weight_shapes
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
