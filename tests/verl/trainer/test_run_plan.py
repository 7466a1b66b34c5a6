"""What is missing is said in one line, before any model is loaded."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from verl.atomic_files import fsync_file
from verl.config import Config, ConfigError, override
from verl.models.hub_download import MODEL_PATH_KEY
from verl.trainer.checkpoint_folders import CheckpointError
from verl.trainer.machine_checks import resolve_on_machine
from verl.trainer.model_fingerprint import fingerprint_model
from verl.trainer.run_plan import make_run_plan


def refusal(config: Config, packages: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        resolve_on_machine(config, packages or {})
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def whole(config: Config, tmp_path: Path) -> Config:
    """A configuration whose checkpoint looks like one."""
    folder = tmp_path / "policy"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).touch()
    return override(config, {MODEL_PATH_KEY: str(folder)})


@pytest.mark.parametrize(
    ("present", "parts"), [(0, ["2 CUDA GPUs", "trainer.device=cpu"]), (1, ["shows 1", "trainer.n_gpus_per_node=1"])]
)
def test_missing_gpus(whole: Config, monkeypatch: pytest.MonkeyPatch, present: int, parts: list[str]) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: present)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    message = refusal(override(whole, {"trainer.device": "cuda"}))
    assert all(part in message for part in parts), message


def test_auto_takes_what_there_is(whole: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    auto = override(whole, {"trainer.device": "auto"})
    assert resolve_on_machine(auto, {"torch": "everything"}).trainer.device == "cpu" and auto.trainer.device == "auto"


def test_a_missing_package(whole: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else find(name))
    assert refusal(whole, {"torch": "everything", "vllm": "rollout"}).startswith(
        "vllm is not installed (rollout): run `make venv`"
    )


def test_a_missing_checkpoint(whole: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for path, part in (
        (None, f"{MODEL_PATH_KEY} is not set"),
        (tmp_path / "nowhere", f"no checkpoint at {MODEL_PATH_KEY}={tmp_path / 'nowhere'}"),
        ("nobody/nothing-of-that-name", "nobody/nothing-of-that-name, neither a folder nor on the hub"),
        (tmp_path, "has no config.json and no *.safetensors"),
    ):
        assert part in refusal(override(whole, {MODEL_PATH_KEY: path and str(path)}))


def test_a_download_is_found_by_model_and_tokenizer(
    whole: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "owner" / "policy").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "owner" / "policy" / name).write_text("{}")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: f"{tmp_path}/{name}")
    hub = {MODEL_PATH_KEY: "owner/policy", "worker.actor.model.tokenizer_path": "owner/policy"}
    model = resolve_on_machine(override(whole, hub), {}).worker.actor.model
    assert model.model_path == model.tokenizer_path == f"{tmp_path}/owner/policy"


def test_steps_and_updates(config: Config) -> None:
    plan = make_run_plan(config, samples=13)
    assert plan.steps == 2 * 13 // 4 and plan.passes_per_group == {"ref": 1, "old_log_prob": 0, "update": 1}
    changes = {"data.rollout_batch_size": 8, "trainer.max_steps": 3, "trainer.test_freq": 2, "trainer.save_freq": 2}
    config = override(config, changes)
    plan = make_run_plan(config, samples=13)
    assert (plan.steps, plan.updates_per_step, plan.updates) == (3, 2, 6)
    assert (
        [plan.validates(step) for step in (1, 2, 3)] == [plan.saves(step) for step in (1, 2, 3)] == [False, True, True]
    )
    assert plan.passes_per_group == {"ref": 1, "old_log_prob": 1, "update": 1}
    with pytest.raises(ConfigError, match=r"data.rollout_batch_size=8 is more than the 6 prompts"):
        make_run_plan(config, samples=3)


def test_the_step_to_go_on_from_is_the_checkpoints_own(config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "trainer.json").write_text('{"step": 4}')
    (folder / "files.json").write_text(json.dumps({"trainer.json": fsync_file(folder / "trainer.json")}))
    plan = make_run_plan(override(config, {"trainer.load_checkpoint_path": str(folder)}), samples=13)
    assert (plan.checkpoint, plan.start_step) == (folder, 4)


def test_a_wrong_checkpoint_to_go_on_from(config: Config) -> None:
    with pytest.raises(CheckpointError, match="/nowhere/global_step_3 does not exist"):
        make_run_plan(override(config, {"trainer.load_checkpoint_path": "/nowhere/global_step_3"}), samples=13)


@pytest.fixture(params=["model_fingerprint", "initial_model"])  # the present name in trainer.json, and the earlier one
def started(config: Config, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Config, Path]:
    """A run that was started from a link to the first of two states of one model, as fine-tuning leaves it."""
    for step, fill in ((1, b"\x01"), (2, b"\x02")):
        folder = tmp_path / f"sft/global_step_{step}"
        folder.mkdir(parents=True)
        # only the last layers differ, as under a frozen vision tower
        (folder / "model.safetensors").write_bytes(bytes(30 << 20) + fill * (10 << 20))
    link = tmp_path / "sft/huggingface"
    link.symlink_to("global_step_1")
    config = override(config, {MODEL_PATH_KEY: str(link), "trainer.resume_mode": "auto"})
    plan = make_run_plan(config, samples=13)
    folder = Path(config.trainer.save_checkpoint_path or "") / "global_step_4"
    folder.mkdir(parents=True)
    (folder / "trainer.json").write_text(json.dumps({"step": 4, request.param: plan.model_fingerprint}))
    (folder / "files.json").write_text(json.dumps({"trainer.json": fsync_file(folder / "trainer.json")}))
    return config, link


def test_a_resumed_run_with_another_reference_model_is_refused(started: tuple[Config, Path]) -> None:
    config, link = started
    assert make_run_plan(config, samples=13).start_step == 4
    link.unlink()
    link.symlink_to("global_step_2")
    text = f"model_path={link} is not the reference model that the run was started with: model.safetensors differs; "
    with pytest.raises(
        CheckpointError, match=re.escape(text + f"the run was started from {link.parent}/global_step_1")
    ):
        make_run_plan(config, samples=13)
    lora = override(config, {"worker.actor.model.lora_rank": 8, "worker.actor.use_kl_loss": False})
    with pytest.raises(CheckpointError, match="is not the base of the adapter"):
        make_run_plan(lora, samples=13)
    free = override(config, {"worker.actor.use_kl_loss": False})
    assert make_run_plan(free, samples=13).start_step == 4  # all weights are in the checkpoint


def test_a_copy_of_the_same_model_is_the_same_and_a_missing_one_is_for_others_to_name(
    started: tuple[Config, Path], tmp_path: Path
) -> None:
    config, link = started
    shutil.copytree(link, tmp_path / "copy")
    for path in (tmp_path / "copy", tmp_path / "nowhere"):
        assert make_run_plan(override(config, {MODEL_PATH_KEY: str(path)}), samples=13).start_step == 4
    unknown = {"step": 4, "model_fingerprint": {"folder": "nobody/nothing", "files": {}}}  # it was in no cache here
    checkpoint = Path(config.trainer.save_checkpoint_path or "") / "global_step_4"
    (checkpoint / "trainer.json").write_text(json.dumps(unknown))
    (checkpoint / "files.json").write_text(json.dumps({"trainer.json": fsync_file(checkpoint / "trainer.json")}))
    assert make_run_plan(config, samples=13).start_step == 4
    assert fingerprint_model("nobody/nothing") == {"folder": "nobody/nothing", "files": {}}
    assert fingerprint_model(None)["files"] == {}
