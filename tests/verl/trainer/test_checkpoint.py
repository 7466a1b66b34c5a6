"""A folder named global_step_N is always whole, and the right one is found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from verl.trainer.checkpoint import CheckpointError, find_checkpoint, load_checkpoint, save_checkpoint, saved_checkpoints


class OneFile:
    """An engine whose state is one number."""

    def __init__(self, value: int = 0, fails: bool = False) -> None:
        self.value, self.fails = value, fails

    def save(self, folder: str) -> None:
        weights = Path(folder, "actor", "huggingface")
        weights.mkdir(parents=True)
        (weights / "model.safetensors").write_text(str(self.value))
        if self.fails:
            raise OSError(28, "No space left on device")

    def load(self, folder: str) -> None:
        self.value = int(Path(folder, "actor", "huggingface", "model.safetensors").read_text())


def test_save_load_and_latest(tmp_path: Path) -> None:
    save_checkpoint(OneFile(5), tmp_path, 5, {"order": {"position": 20}})
    path = save_checkpoint(OneFile(10), tmp_path, 10, {"order": {"position": 40}})
    assert (tmp_path / "latest").read_text() == path.name == "global_step_10"
    assert (tmp_path / "huggingface" / "model.safetensors").read_text() == "10"
    engine = OneFile()
    state = load_checkpoint(engine, find_checkpoint("latest", tmp_path))
    assert engine.value == 10 and state == {"step": 10, "order": {"position": 40}}
    assert find_checkpoint(str(tmp_path / "global_step_5"), "/elsewhere") == tmp_path / "global_step_5"
    assert find_checkpoint(str(tmp_path), "/elsewhere") == path


def test_a_save_that_fails_harms_nothing(tmp_path: Path) -> None:
    save_checkpoint(OneFile(5), tmp_path, 5, {})
    with pytest.raises(CheckpointError, match=r"global_step_10.*No space left"):
        save_checkpoint(OneFile(10, fails=True), tmp_path, 10, {}, limit=1)
    assert list(saved_checkpoints(tmp_path)) == [5]
    assert (tmp_path / "latest").read_text() == "global_step_5"
    assert (tmp_path / "huggingface" / "model.safetensors").read_text() == "5"
    save_checkpoint(OneFile(10), tmp_path, 10, {})
    assert sorted(saved_checkpoints(tmp_path)) == [5, 10]


def test_old_ones_are_removed_by_number_not_by_name(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        save_checkpoint(OneFile(step), tmp_path, step, {}, limit=2)
    assert sorted(saved_checkpoints(tmp_path)) == [10, 11]


def test_a_half_written_folder_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "global_step_7").mkdir()
    assert find_checkpoint("latest", tmp_path) is None
    with pytest.raises(CheckpointError, match="holds no whole checkpoint"):
        find_checkpoint(str(tmp_path / "global_step_7"), tmp_path)


def test_what_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    assert find_checkpoint(None, tmp_path) is None
    save_checkpoint(OneFile(5), tmp_path, 5, {})
    with pytest.raises(CheckpointError, match="load_checkpoint_path=latest"):
        find_checkpoint(None, tmp_path)


def test_a_wrong_path_names_what_is_there(tmp_path: Path) -> None:
    save_checkpoint(OneFile(5), tmp_path, 5, {})
    with pytest.raises(CheckpointError, match=r"global_step_6 does not exist.*global_step_5"):
        find_checkpoint(str(tmp_path / "global_step_6"), tmp_path)


def test_the_state_is_json_for_people(tmp_path: Path) -> None:
    path = save_checkpoint(OneFile(1), tmp_path, 1, {"config": {"data": {"seed": 42}}})
    assert json.loads((path / "trainer.json").read_text())["config"]["data"]["seed"] == 42
