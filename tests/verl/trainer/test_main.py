"""The commands: what a person can mend ends in one line, before Ray or a model is started; the published variables are
taken.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import Qwen3VLConfig

from veason.errors import DataError
from veason.prompts import DEFAULT_TEMPLATE
from verl.config import Config, ConfigError, load_config, override
from verl.config.checks import check_config
from verl.protocol import Task
from verl.single_controller import ClusterError, WorkerError
from verl.trainer import sft
from verl.trainer.main import (
    build_task,
    check_frame_size,
    check_reward,
    checkpoint_settings,
    prepare_environment,
    run,
    use_checkpoint_coordinate_range,
    use_checkpoint_prompt_template,
)
from verl.trainer.prompt_data import check_validation, open_prompts
from verl.trainer.run_plan import make_run_plan
from verl.trainer.stop_signals import StoppedBySignal

GRPO, SFT = "verl.trainer.main", "verl.trainer.sft"
ROOT = Path(__file__).parents[3]
PUBLISHED = "config=training_scripts/video_seg_zero_3b_keyframe_sam_sft_mod.yaml"


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("REVOS_ROOT", "MODEL_PATH", "SAM2_CHECKPOINT", "COT_ROOT", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def test_what_is_missing_ends_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    overrides = [
        PUBLISHED,
        "worker.actor.model.model_path=/nowhere",
        "worker.reward.sam2_checkpoint=/nowhere",
        f"data.train_files={tmp_path}",
    ]
    no_sam2 = "worker.reward.compute_score=no_sam2"
    demo = [no_sam2, "config=configs/toy/demo.yaml", f"worker.actor.model.model_path={tmp_path}/policy"]
    for program, given, part in (
        (GRPO, [PUBLISHED], "error: data.train_files is not set: export REVOS_ROOT=..."),
        (GRPO, [*overrides, "worker.rollout.m=8"], "error: unknown key worker.rollout.m"),
        (
            GRPO,
            [*overrides, "worker.reward.compute_score=veason_strikt"],
            "error: worker.reward.compute_score: 'veason_strikt' is unknown; did you mean veason_strict?",
        ),
        (
            GRPO,
            [*overrides, "worker.reward.sam2_checkpoint=null"],
            "error: worker.reward.tracker_options.sam2_checkpoint is not set",
        ),
        (
            GRPO,
            [*overrides, "worker.reward.sam2_checkpoint=null"],
            "error: worker.reward.tracker_options.sam2_checkpoint is not set",
        ),
        (GRPO, [*overrides, "worker.reward.sam2_checkpoint=random"], "error: this recipe needs 2 CUDA GPUs"),
        (GRPO, overrides, "worker.reward.tracker_options.sam2_checkpoint=/nowhere"),
        (GRPO, [*overrides, no_sam2], "error: this recipe needs 2 CUDA GPUs"),
        (
            GRPO,
            [*overrides, no_sam2, "trainer.device=cpu"],
            "error: no checkpoint at worker.actor.model.model_path=/nowhere",
        ),
        (
            SFT,
            ["config=configs/toy/sft_demo.yaml", "worker.actor.model.model_path=/nowhere"],
            "error: no checkpoint at",
        ),
        (GRPO, demo, "error: no checkpoint at"),
    ):
        assert run(given, program) == 1
        message = capsys.readouterr().err.strip()
        assert message.startswith("error: ") and part in message and "\n" not in message


def test_missing_data_is_named(policy_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (policy_folder / "model.safetensors").touch()
    overrides = [
        "config=configs/toy/demo.yaml",
        "worker.reward.compute_score=no_sam2",
        f"worker.actor.model.model_path={policy_folder}",
        f"data.train_files={tmp_path}/ReVOS",
    ]
    assert run([*overrides, "trainer.device=cpu"], GRPO) == 1
    message = capsys.readouterr().err.strip()
    assert str(tmp_path / "ReVOS") in message and "\n" not in message


def test_a_variable_that_vllm_refuses_is_dropped_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_ATTENTION_BACKEND", "XFORMERS")
    prepare_environment()
    assert "VLLM_ATTENTION_BACKEND" not in os.environ
    assert capsys.readouterr().err.count("\n") == 1
    prepare_environment()
    assert capsys.readouterr().err == ""


def test_factories_travel_and_find_their_module(config: Config) -> None:
    import pickle

    files = {"data.val_files": "/val", "data.val_meta_file": "meta_expressions_valid_.json"}
    config = override(config, files | {"data.options": {"extra": 1}})
    task = pickle.loads(pickle.dumps(build_task(config)))
    assert task.data.keywords["options"] == {"extra": 1}
    assert (
        task.validation.keywords["train_files"] == "/val"
        and task.validation.keywords["meta_file"] == "meta_expressions_valid_.json"
    )
    plain = override(config, {"worker.reward.compute_score": "no_sam2"})
    assert build_task(plain).scorer("cpu").tracker is None and build_task(plain, needs_rollout=False).scorer is None


PIPELINES = {"run_toy_sft.sh", "run_toy_experiments.sh"}  # draw their videos before anything is trained


@pytest.mark.parametrize(
    "script", sorted({path.name for path in (ROOT / "training_scripts").glob("run_*.sh")} - PIPELINES)
)
def test_launchers_reach_their_program(script: str) -> None:
    """Each passes its overrides on: a wrong one is refused by name."""
    result = subprocess.run(
        ["bash", str(ROOT / "training_scripts" / script), "trainer.no_such_key=1"],
        capture_output=True,
        text=True,
        cwd="/",
        env=os.environ | {"PYTHON": sys.executable, "VLLM_ATTENTION_BACKEND": "XFORMERS"},
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert (
        "error: unknown key trainer.no_such_key" in result.stderr
        and "VLLM_ATTENTION_BACKEND=XFORMERS is dropped" in result.stderr
    )


def test_a_validation_with_nothing_to_validate_is_refused() -> None:
    config = Config()
    prompts: Any = SimpleNamespace(validation=[])
    check_validation(config, prompts)
    config = override(config, {"trainer.val_only": True})
    with pytest.raises(ConfigError, match=r"trainer\.val_only=true needs data\.val_files"):
        check_validation(config, prompts)
    prompts.validation = [None]
    check_validation(config, prompts)


def test_a_step_of_fine_tuning_is_one_update_whatever_the_published_keys_say(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Config] = []
    monkeypatch.setattr("verl.trainer.main.run_loop", lambda config, *_, **__: seen.append(config))
    batches = {"worker.actor.global_batch_size": 16, "worker.actor.ppo_epochs": 2}
    sft.train(override(Config(), batches | {"data.rollout_batch_size": 64}))
    plan = make_run_plan(seen[0], samples=640)
    assert (plan.updates_per_step, plan.updates) == (1, 10)


def test_frames_fit_the_visual_tokens_of_the_policy(config: Config) -> None:
    check_frame_size(config)
    with pytest.raises(ConfigError, match=r"data\.keyframe_resize=500 is not a multiple of 28, .*; nearest: 504"):
        check_frame_size(override(config, {"data.keyframe_resize": 500}))


def test_settings_travel_with_the_weights(config: Config, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A training asks as its checkpoint wants to be asked, and writes how its own are to be asked."""
    folder = Path(config.worker.actor.model.model_path or "")
    given = override(config, {"data.prompt_template": None, "data.keyframe_resize": 112})
    assert use_checkpoint_prompt_template(given) is given  # the checkpoint has none
    written = checkpoint_settings(given)
    assert written["prompt_template"] == DEFAULT_TEMPLATE and written["keyframe_resize"] == 112
    assert {"torch", "transformers"} <= set(written["versions"]) and written["sampled_frames"] == 8
    own = tmp_path / "policy"
    own.mkdir()
    (own / "config.json").write_text((folder / "config.json").read_text())
    earlier = {"prompt_template": "Where is {expression}?", "keyframe_resize": 224, "sampled_frames": 5}
    (own / "veason.json").write_text(json.dumps(earlier))
    given = override(given, {"worker.actor.model.model_path": str(own)})
    asked = use_checkpoint_prompt_template(given)
    assert asked.data.prompt_template == "Where is {expression}?"
    assert "data.keyframe_resize=112, the checkpoint's veason.json says 224" in capsys.readouterr().out
    again = checkpoint_settings(asked)
    assert (again["prompt_template"], again["sampled_frames"]) == ("Where is {expression}?", 5)
    other = override(given, {"data.prompt_template": "Find {expression}."})
    assert use_checkpoint_prompt_template(other) is other
    assert "prompt_template='Find {expression}.', the checkpoint's" in capsys.readouterr().out
    (own / "veason.json").write_text('{"size": 3}')
    with pytest.raises(DataError, match=r"veason\.json: unknown key size"):
        use_checkpoint_prompt_template(given)


def test_a_data_set_that_lacks_a_method_is_named(config: Config) -> None:
    class Mine:
        def example(self, index: int, seed: int) -> None: ...

    lacking = override(config, {"data.name": "my:Mine"})
    with pytest.raises(
        ConfigError, match=r"data\.name=my:Mine gives a Mine, which has no __len__, sample_id, messages_and_sizes: "
    ):
        open_prompts(lacking, Task(Mine))  # type: ignore[arg-type]


def test_the_published_names_of_the_tracker_s_files_are_handed_to_it() -> None:
    overrides = ["worker.reward.sam2_config=sam2.yaml", "--worker.reward.sam2_checkpoint", "random"]
    reward = load_config([*overrides, "worker.reward.tracker_options.max_frames=8"]).worker.reward
    assert reward.tracker_options == {"sam2_config": "sam2.yaml", "sam2_checkpoint": "random", "max_frames": 8}
    without = load_config([*overrides, "worker.reward.sam2_config=null"]).worker.reward
    assert without.tracker_options == {"sam2_checkpoint": "random"}
    assert load_config(["worker.reward.weights.spatial=2"]).worker.reward.weights == {"spatial": 2.0}


def test_another_tracker_takes_the_place_of_sam2_in_the_published_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REVOS_ROOT", "MODEL_PATH", "SAM2_CHECKPOINT"):
        monkeypatch.setenv(name, "/nowhere")
    own = "worker.reward.tracker=tests.veason.scripted_parts:BoxTracker"
    assert check_reward(load_config([PUBLISHED, own])) == {}
    with pytest.raises(ConfigError, match=r"worker\.reward\.tracker_options\.speed is unknown"):
        check_reward(load_config([PUBLISHED, own, "worker.reward.tracker_options.speed=2"]))


def test_boxes_are_asked_for_as_the_checkpoint_writes_them(config: Config, tmp_path: Path) -> None:
    assert use_checkpoint_coordinate_range(config, may_change=False).data.coordinate_range is None  # Qwen2.5-VL: pixels
    folder = tmp_path / "qwen3"
    Qwen3VLConfig().save_pretrained(folder)
    config = override(config, {"worker.actor.model.model_path": str(folder)})
    assert use_checkpoint_coordinate_range(config, may_change=False).data.coordinate_range == 1000
    pixels = override(config, {"data.coordinate_range": config.data.keyframe_resize})
    # nothing but its pre-training says otherwise
    assert use_checkpoint_coordinate_range(pixels, may_change=False) == pixels
    (folder / "veason.json").write_text('{"coordinate_range": 1000}')
    with pytest.raises(
        ConfigError, match=r"data\.coordinate_range=560, but .*veason\.json says that its boxes are in the range 0"
    ):
        use_checkpoint_coordinate_range(pixels, may_change=False)
    assert use_checkpoint_coordinate_range(pixels, may_change=True) == pixels  # fine-tuning teaches it anew
    (folder / "veason.json").write_text('{"coordinate_range": 1000, "keyframe_resize": 448}')
    written = checkpoint_settings(pixels)
    assert (written["coordinate_range"], written["keyframe_resize"]) == (560, pixels.data.keyframe_resize)
    (folder / "veason.json").write_text('{"coordinate_range": null}')
    assert use_checkpoint_coordinate_range(pixels, may_change=False) == pixels  # the same range
    assert use_checkpoint_coordinate_range(config, may_change=False).data.coordinate_range is None
    with pytest.raises(ConfigError, match=r"data\.coordinate_range"):
        check_config(override(config, {"data.coordinate_range": 0}))


@pytest.mark.parametrize(
    ("ends", "status", "lines"),
    [
        (
            WorkerError("rank 0 died in `update`", died=True),
            75,
            [
                "error: rank 0 died in `update`",
                "resume by: python -m ending 'trainer.experiment_name=a b' trainer.resume_mode=auto",
            ],
        ),
        (WorkerError("rank 0 failed in `update`: OSError"), 1, ["error: rank 0 failed in `update`: OSError"]),
        (ClusterError("no Ray cluster runs here"), 1, ["error: no Ray cluster runs here"]),
        (StoppedBySignal(signal.SIGTERM, "step 3 is saved"), 143, ["SIGTERM: step 3 is saved"]),
        (KeyboardInterrupt(), 130, ["SIGINT: ended before the first step"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_however_a_run_ends_it_says_so_and_how_to_go_on(
    ends: BaseException,
    status: int,
    lines: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def train(_: Config) -> None:
        raise ends

    monkeypatch.setitem(sys.modules, "ending", SimpleNamespace(train=train))
    assert run(["trainer.experiment_name=a b"], "ending") == status
    assert capsys.readouterr().err.splitlines() == lines


def test_restarts_are_led_by_a_process_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("verl.trainer.main.run_with_restarts", lambda *given: seen.append(given) or 7)
    monkeypatch.setitem(sys.modules, "ending", SimpleNamespace(train=lambda _: None))
    assert run(["trainer.max_restarts=2"], "ending") == 7
    assert seen == [([sys.executable, "-m", "ending", "trainer.max_restarts=2"], 2)]
    monkeypatch.setenv("VERL_RESTARTS_HANDLED", "1")
    assert run(["trainer.max_restarts=2"], "ending") == 0 and len(seen) == 1
