"""A folder named global_step_N is always whole, and the right one is found again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from verl.trainer.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
    saved_checkpoints,
)


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


def test_a_branch_keeps_what_it_writes_and_latest_follows_it(tmp_path: Path) -> None:
    for step in (3, 6):
        save_checkpoint(OneFile(step), tmp_path, step, {})
    path = save_checkpoint(OneFile(4), tmp_path, 4, {}, limit=1)  # a run that went on from step 3
    assert sorted(saved_checkpoints(tmp_path)) == [4, 6]
    assert find_checkpoint("latest", tmp_path) == find_checkpoint(str(tmp_path), "/elsewhere") == path
    assert (tmp_path / "huggingface" / "model.safetensors").read_text() == "4"
    (tmp_path / "latest").write_text("global_step_5")
    with pytest.raises(CheckpointError, match=r"names global_step_5.*global_step_4, global_step_6"):
        find_checkpoint("latest", tmp_path)


def test_a_kill_while_a_step_is_replaced_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_checkpoint(OneFile(1), tmp_path, 5, {})
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if source.name.endswith(".partial"):
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        patch.setattr("verl.trainer.checkpoint.write_text", lambda path, text: path.write_text(text))
        save_checkpoint(OneFile(2), tmp_path, 5, {})
    assert not path.exists()
    assert (
        find_checkpoint("latest", tmp_path) == path
        and (path / "actor/huggingface/model.safetensors").read_text() == "1"
    )
    save_checkpoint(OneFile(2), tmp_path, 5, {})
    assert (tmp_path / "huggingface" / "model.safetensors").read_text() == "2"
    assert {entry.name for entry in tmp_path.iterdir()} == {"global_step_5", "latest", "huggingface"}


def test_no_link_to_a_model_that_is_not_there(tmp_path: Path) -> None:
    class OnlyAdapter(OneFile):
        def save(self, folder: str) -> None:
            Path(folder, "actor", "huggingface").mkdir(parents=True)
            Path(folder, "actor", "huggingface", "tokenizer.json").touch()

    save_checkpoint(OneFile(1), tmp_path, 1, {})
    save_checkpoint(OnlyAdapter(), tmp_path, 2, {})
    assert not (tmp_path / "huggingface").is_symlink()


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
