"""Four small toy videos and two data sets, made once."""

from __future__ import annotations

import pytest
import torch

from veason.toy.layout_writers import write_reasonvos, write_revos
from veason.toy.world import make_videos


@pytest.fixture(scope="session")
def toy_videos():
    torch.set_num_threads(1)
    return make_videos("shown", 4, seed=3, frames=12)


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory, toy_videos):
    root = tmp_path_factory.mktemp("world")
    write_revos(root / "ReVOS", {"train": toy_videos[:2], "valid": toy_videos[2:]})
    write_reasonvos(root / "ReasonVOS", toy_videos[2:])
    return root
