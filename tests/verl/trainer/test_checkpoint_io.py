"""A folder named global_step_N is always whole, and the right one is found again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from verl.atomic_files import FileChecksums, fsync_file
from verl.trainer.checkpoint_folders import (
    CheckpointError,
    CheckpointRetention,
    find_checkpoint,
    find_damaged_file,
    saved_checkpoints,
)
from verl.trainer.checkpoint_io import check_shared_folder, load_checkpoint, remove_partial_checkpoints, save_checkpoint
from verl.trainer.run_lock import RunLock


class OneFile:
    """A backend whose state is one number."""

    def __init__(self, value: int = 0, fails: bool = False) -> None:
        self.value, self.fails = value, fails

    def save(self, folder: str) -> FileChecksums:
        weights = Path(folder, "actor", "huggingface")
        weights.mkdir(parents=True)
        (weights / "model.safetensors").write_text(str(self.value))
        if self.fails:
            raise OSError(28, "No space left on device")
        return {"actor/huggingface/model.safetensors": fsync_file(weights / "model.safetensors")}

    def load(self, folder: str) -> None:
        self.value = int(Path(folder, "actor", "huggingface", "model.safetensors").read_text())


def test_save_load_and_latest(tmp_path: Path) -> None:
    save_checkpoint(OneFile(5), tmp_path, 5, {"order": {"position": 20}})
    path = save_checkpoint(OneFile(10), tmp_path, 10, {"order": {"position": 40}})
    assert (tmp_path / "latest").read_text() == path.name == "global_step_10"
    assert (tmp_path / "huggingface" / "model.safetensors").read_text() == "10"
    backend = OneFile()
    state = load_checkpoint(backend, find_checkpoint("latest", tmp_path))
    assert backend.value == 10 and state == {"step": 10, "order": {"position": 40}}
    assert find_checkpoint(str(tmp_path / "global_step_5"), "/elsewhere") == tmp_path / "global_step_5"
    assert find_checkpoint(str(tmp_path), "/elsewhere") == path


def test_a_save_that_fails_harms_nothing(tmp_path: Path) -> None:
    save_checkpoint(OneFile(5), tmp_path, 5, {})
    with pytest.raises(CheckpointError, match=r"global_step_10.*No space left"):
        save_checkpoint(OneFile(10, fails=True), tmp_path, 10, {}, CheckpointRetention(1))
    assert not list(tmp_path.glob(".*"))  # the disk is as full as before, and no fuller
    assert list(saved_checkpoints(tmp_path)) == [5]
    assert (tmp_path / "latest").read_text() == "global_step_5"
    assert (tmp_path / "huggingface" / "model.safetensors").read_text() == "5"
    save_checkpoint(OneFile(10), tmp_path, 10, {})
    assert sorted(saved_checkpoints(tmp_path)) == [5, 10]


def test_old_ones_are_removed_by_number_not_by_name(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        save_checkpoint(OneFile(step), tmp_path, step, {}, CheckpointRetention(2))
    assert sorted(saved_checkpoints(tmp_path)) == [10, 11]


def test_a_branch_keeps_what_it_writes_and_latest_follows_it(tmp_path: Path) -> None:
    for step in (3, 6):
        save_checkpoint(OneFile(step), tmp_path, step, {})
    path = save_checkpoint(OneFile(4), tmp_path, 4, {}, CheckpointRetention(1))  # a run that went on from step 3
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
        patch.setattr("verl.trainer.checkpoint_io.write_text_atomically", lambda path, text: path.write_text(text))
        # a killed process does no more
        patch.setattr("verl.trainer.checkpoint_io.remove_partial_checkpoints", lambda _: None)
        save_checkpoint(OneFile(2), tmp_path, 5, {})
    assert not path.exists()
    remove_partial_checkpoints(tmp_path)
    assert (
        find_checkpoint("latest", tmp_path) == path
        and (path / "actor/huggingface/model.safetensors").read_text() == "1"
    )
    save_checkpoint(OneFile(2), tmp_path, 5, {})
    assert (tmp_path / "huggingface" / "model.safetensors").read_text() == "2"
    assert {entry.name for entry in tmp_path.iterdir()} == {"global_step_5", "latest", "huggingface"}


def test_no_link_to_a_model_that_is_not_there(tmp_path: Path) -> None:
    class OnlyAdapter(OneFile):
        def save(self, folder: str) -> FileChecksums:
            Path(folder, "actor", "huggingface").mkdir(parents=True)
            Path(folder, "actor", "huggingface", "tokenizer.json").touch()
            return {}

    save_checkpoint(OneFile(1), tmp_path, 1, {})
    save_checkpoint(OnlyAdapter(), tmp_path, 2, {})
    assert not (tmp_path / "huggingface").is_symlink()


def test_a_half_written_folder_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "global_step_7").mkdir()
    assert find_checkpoint("latest", tmp_path) is None
    with pytest.raises(CheckpointError, match="holds no complete checkpoint"):
        find_checkpoint(str(tmp_path / "global_step_7"), tmp_path)


def test_what_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    assert find_checkpoint(None, tmp_path) is None
    save_checkpoint(OneFile(5), tmp_path, 5, {})
    with pytest.raises(CheckpointError, match=r"trainer\.resume_mode=auto"):
        find_checkpoint(None, tmp_path)


def test_a_wrong_path_names_what_is_there(tmp_path: Path) -> None:
    save_checkpoint(OneFile(5), tmp_path, 5, {})
    with pytest.raises(CheckpointError, match=r"global_step_6 does not exist.*global_step_5"):
        find_checkpoint(str(tmp_path / "global_step_6"), tmp_path)


def test_the_state_is_json_for_people(tmp_path: Path) -> None:
    path = save_checkpoint(OneFile(1), tmp_path, 1, {"config": {"data": {"seed": 42}}})
    assert json.loads((path / "trainer.json").read_text())["config"]["data"]["seed"] == 42


def damage(path: Path, kind: str) -> str:
    """Damages one file of a checkpoint; returns what names it."""
    weights = path / "actor" / "huggingface" / "model.safetensors"
    if kind == "cut":
        weights.write_text("")
        return "model.safetensors has 0 bytes of 1"
    if kind == "changed":
        weights.write_text("9")
        return "model.safetensors holds other bytes than were saved"
    if kind == "missing":
        weights.unlink()
        return "model.safetensors is missing"
    name = {"state": "trainer.json", "record": "files.json"}[kind]
    (path / name).write_text("{")
    return name


@pytest.mark.parametrize("kind", ["cut", "changed", "missing", "state", "record"])
def test_a_damaged_checkpoint_is_named_and_passed_over(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [save_checkpoint(OneFile(step), tmp_path, step, {}) for step in (1, 2, 3)]
    named = damage(paths[2], kind)
    for where in ("latest", str(tmp_path), str(paths[2])):
        with pytest.raises(CheckpointError, match=rf"global_step_3 is damaged: .*{named}.*trainer\.resume_mode=auto"):
            find_checkpoint(where, tmp_path)
    assert find_checkpoint(None, tmp_path, "auto") == find_checkpoint("latest", tmp_path, "auto") == paths[1]
    assert "global_step_3 is passed over" in caplog.text and named in caplog.text
    for path in paths[:2]:
        damage(path, "missing")
    with pytest.raises(CheckpointError, match="none of global_step_3, global_step_2, global_step_1 is whole"):
        find_checkpoint(None, tmp_path, "auto")
    path = save_checkpoint(OneFile(3), tmp_path, 3, {})  # the step again, in the place of the damaged one
    assert find_damaged_file(path) is None and find_checkpoint("latest", tmp_path) == path


def test_resume_auto_starts_afresh_in_an_empty_folder(tmp_path: Path) -> None:
    assert find_checkpoint(None, tmp_path, "auto") is None
    other = save_checkpoint(OneFile(1), tmp_path / "other", 4, {})
    assert find_checkpoint(str(other), tmp_path, "auto") == other  # a branch that has no checkpoint of its own yet


def test_weights_alone_are_not_resumed(tmp_path: Path) -> None:
    whole = save_checkpoint(OneFile(1), tmp_path, 1, {"weights_only": False})
    save_checkpoint(OneFile(2), tmp_path, 2, {"weights_only": True})
    with pytest.raises(CheckpointError, match=r"weights alone.*model_path=.*global_step_2/actor/huggingface"):
        find_checkpoint("latest", tmp_path)
    assert find_checkpoint(None, tmp_path, "auto") == whole


def test_the_best_by_a_metric_is_kept_beside_the_last(tmp_path: Path) -> None:
    for step, value in ((1, 0.2), (2, 0.9), (3, float("nan")), (4, 0.5), (5, 0.4)):
        retention = CheckpointRetention(1, "val/reward/mean")
        save_checkpoint(OneFile(step), tmp_path, step, {"metrics": {"val/reward/mean": value}}, retention)
    assert sorted(saved_checkpoints(tmp_path)) == [2, 5] and (tmp_path / "best").read_text() == "global_step_2"
    save_checkpoint(OneFile(6), tmp_path, 6, {"metrics": {"loss": 1.0}}, CheckpointRetention(1, "loss", "min"))
    assert sorted(saved_checkpoints(tmp_path)) == [6]


def test_a_worker_that_writes_somewhere_else_is_named_before_anything_is_renamed(tmp_path: Path) -> None:
    class Elsewhere(OneFile):
        def save(self, folder: str) -> FileChecksums:
            files = super().save(folder)
            return files | {"actor/state/rank_00001.safetensors": files["actor/huggingface/model.safetensors"]}

    save_checkpoint(OneFile(1), tmp_path, 1, {})
    with pytest.raises(CheckpointError, match=r"rank_00001.safetensors, which a worker wrote, is not there.*share"):
        save_checkpoint(Elsewhere(2), tmp_path, 2, {}, CheckpointRetention(1))
    assert list(saved_checkpoints(tmp_path)) == [1] and not list(tmp_path.glob(".global*"))


def test_every_worker_proves_that_it_shares_the_folder(tmp_path: Path) -> None:
    class Hosts:
        """Ranks that see these folders under the driver's path."""

        def __init__(self, *seen: Path) -> None:
            self.seen = seen

        def check_folder(self, folder: str, token: str) -> list[tuple[str, str | None]]:
            answers: list[tuple[str, str | None]] = []
            for rank, seen in enumerate(self.seen):
                there = (seen / f".shared_{token}").is_file()
                (seen / f".shared_{token}_{rank}").touch()
                answers.append((f"host{rank}", None if there else "no such file"))
            return answers

    root, other = tmp_path / "run", tmp_path / "other"
    root.mkdir()
    other.mkdir()
    check_shared_folder(Hosts(root, root), root)  # type: ignore[arg-type]
    assert not list(root.iterdir())
    with pytest.raises(CheckpointError, match=r"rank 1 on host1 does not share .*run: no such file; trainer\.save_"):
        check_shared_folder(Hosts(root, other), root)  # type: ignore[arg-type]
    assert not list(root.iterdir())


def test_a_second_run_in_the_folder_is_refused_and_a_dead_one_s_leftovers_go(tmp_path: Path) -> None:
    (tmp_path / ".global_step_4.partial").mkdir()
    with RunLock(tmp_path):
        assert not (tmp_path / ".global_step_4.partial").exists()
        with pytest.raises(CheckpointError, match=rf'belongs to a run .*"pid": {os.getpid()}, "host": ".+"'):
            RunLock(tmp_path).__enter__()
    with RunLock(tmp_path):
        pass


def test_everything_is_on_the_disk_before_a_checkpoint_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of fsync and rename, by the paths behind the descriptors."""
    seen: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def recorded(descriptor: int) -> None:
        seen.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        seen.append(("rename", str(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded)
    monkeypatch.setattr(os, "replace", renamed)
    path = save_checkpoint(OneFile(1), tmp_path, 1, {})
    named = seen.index(("rename", str(path)))
    before = {Path(name).relative_to(tmp_path) for kind, name in seen[:named] if kind == "sync"}
    partial = Path(".global_step_1.partial")
    for folder in ("actor/huggingface", "."):
        assert partial / folder in before
    assert partial / "actor/huggingface/model.safetensors" in before
    assert ("sync", str(tmp_path)) in seen[named:]  # and then the name itself
