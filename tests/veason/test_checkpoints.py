"""A checkpoint folder that a download left incomplete is named by its file; a whole one is accepted."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from veason.checkpoints import check_complete, check_safetensors
from veason.errors import DataError
from veason.toy_assets import TOY_POLICY


def test_the_shipped_policy_is_whole():
    check_complete(TOY_POLICY)


def test_every_file_of_an_index_is_looked_at(tmp_path):
    for name in ("tokenizer.json", "processor_config.json"):
        shutil.copy(TOY_POLICY / name, tmp_path)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in files:
        save_file({name: torch.zeros(10)}, tmp_path / name)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {name: name for name in files}}))
    check_complete(tmp_path)
    content = (tmp_path / files[1]).read_bytes()
    (tmp_path / files[1]).write_bytes(content[:-1])
    with pytest.raises(DataError, match=f"{files[1]} is cut short: {len(content) - 1} bytes of {len(content)}"):
        check_complete(tmp_path)
    (tmp_path / files[1]).unlink()
    with pytest.raises(DataError, match=f"{files[1]} is missing"):
        check_complete(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(DataError, match="is no index of weights"):
        check_complete(tmp_path)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{a"])
def test_what_is_no_safetensors_file_is_named(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.safetensors is no safetensors file"):
        check_safetensors(tmp_path / "a.safetensors")
