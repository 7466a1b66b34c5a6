"""`--plan` says what a run would do, and starts nothing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.verl.shipped_configs import CONFIGS, ROOT, VARIABLES
from veason.toy.world import make_world
from verl.config import load_config, override
from verl.trainer import estimates, show_plan
from verl.trainer.estimates import StepTokens, activation_bytes, estimate_bytes, estimate_seconds, find_model
from verl.trainer.main import run
from verl.trainer.measured_runs import find_measured_run, read_measured_runs
from verl.workers.memory import GIB


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan") / "world"
    make_world(str(folder), train_videos=6, valid_videos=3, reasonvos_videos=1)
    return folder


def toy(world: Path, *more: str) -> list[str]:
    return [f"data.train_files={world / 'ReVOS'}", "config=configs/toy/grpo.yaml", "trainer.device=cpu", *more]


def test_a_run_that_can_start(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MODEL_PATH", "weights/toy_policy")
    folder = f"trainer.save_checkpoint_path={tmp_path / 'run'}"
    assert run([*toy(world, "trainer.save_freq=10", folder), "--plan"], "verl.trainer.main") == 0
    text = capsys.readouterr().out
    assert "steps: 36; 1 optimizer steps in each, 36 in all" in text
    assert "checkpoints: 4; validations: 0" in text
    assert "a step of 16 x 8: " in text and "model: 7 million parameters, 7 trained" in text
    assert "memory on each worker, GiB:" in text and "disk: a checkpoint takes 0.1 GB" in text
    assert "not on this machine" not in text and not (tmp_path / "run").exists()


def test_every_value_has_its_source(world, capsys):
    assert run([*toy(world), "--plan"], "verl.trainer.main") in (0, 3)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    sources = {words[0].partition("=")[0]: " ".join(words[1:]) for words in lines if words and "=" in words[0]}
    assert sources["data.train_files"] == "command line"
    assert sources["data.keyframe_resize"] == "configs/toy/grpo.yaml"
    assert sources["data.seed"] == "configs/video_seg_zero_3b_keyframe_sam_sft_mod.yaml"  # its base
    assert sources["worker.actor.model.model_path"] == "configs/toy/grpo.yaml, $MODEL_PATH"
    assert sources["worker.rollout.top_p"] == "default"
    assert sources["worker.rollout.prompt_length"] == "derived"
    assert len(sources) > 100


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_has_a_plan_on_a_machine_without_its_files(path, monkeypatch, capsys):
    monkeypatch.setattr("verl.workers.engine.RayEngine.__init__", None)
    monkeypatch.setenv("TOY_WORLD", "/nowhere")
    monkeypatch.setenv("MODEL_PATH", f"/weights/sft-{'7b' if '7b' in path.stem else '3b'}")
    fine_tunes = path.stem.startswith(("sft", "pretrain"))
    program = "verl.trainer.sft" if fine_tunes else "verl.trainer.main"
    assert run([f"config={path}", "--plan"], program) == show_plan.INCOMPLETE
    text = capsys.readouterr().out
    draws_its_data = path.parent.name == "toy" and path.stem in ("pretrain", "sft")
    assert ("data and steps: not known" in text) != draws_its_data and "tokens: " in text
    missing = text.split("not on this machine, so the run would not start here:\n")[1]
    assert missing.count("\n") >= 1 and "Traceback" not in text
    if "3b" in path.stem or "7b" in path.stem:
        assert "time: about " in text and "disk: a checkpoint takes " in text


def test_64_frames_need_room_in_the_prompt(tmp_path, monkeypatch, capsys):
    """Frames of 16 tokens: the limit is the only thing that stops them, and it is named with the sample."""
    make_world(str(tmp_path / "world"), train_videos=2, valid_videos=1, reasonvos_videos=1, frames=70, queries=8)
    monkeypatch.setenv("MODEL_PATH", "weights/toy_policy")
    words = toy(tmp_path / "world", "data.sampled_frames=100", "data.val_files=null", "data.rollout_batch_size=4")
    words += ["worker.actor.global_batch_size=4", "trainer.save_checkpoint_path=null", "--plan"]
    assert run([*words, "data.max_prompt_length=3072"], "verl.trainer.main") == 0
    assert "not on this machine" not in capsys.readouterr().out
    assert run(words, "verl.trainer.main") == 3
    assert "data.max_prompt_length is 512; raise it, lower data.keyframe_resize or data.sampled_frames" in (
        capsys.readouterr().out
    )


def test_what_no_machine_can_run_is_refused(capsys):
    for wrong, says in (
        ("worker.reward.compute_score=veason_strickt", "veason_strict"),
        ("worker.reward.tracker=samm2", "did you mean sam2"),
        ("worker.rollout.nn=3", "did you mean worker.rollout.n"),
        ("data.keyframe_resize=x", "data.keyframe_resize"),
    ):
        assert run(["config=configs/grpo_3b_one_gpu.yaml", wrong, "--plan"], "verl.trainer.main") == 1
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1


def test_a_model_of_the_hub_is_not_downloaded(monkeypatch, capsys):
    monkeypatch.setenv("MODEL_PATH", "nobody/nothing-3b")
    asked = []

    def download(_, local_files_only=False, **__):
        from huggingface_hub.errors import LocalEntryNotFoundError

        asked.append(local_files_only)
        raise LocalEntryNotFoundError("not here")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert run(["config=configs/grpo_3b_one_gpu.yaml", "--plan"], "verl.trainer.main") == 3
    assert asked == [True]
    assert "nobody/nothing-3b is not downloaded yet: the run would get it from the hub" in capsys.readouterr().out


def planned(path: str, **changes: object):
    config = override(
        load_config([f"config={path}"]), {key.replace("__", "."): value for key, value in changes.items()}
    )
    found = find_model(config)
    assert found is not None
    return config, found[0]


@pytest.mark.parametrize(
    ("path", "program", "rollouts", "changes"),
    [
        ("configs/grpo_3b_one_gpu.yaml", "verl.trainer.main", 8, {"worker__rollout__kv_cache_gib": 6.0}),
        ("configs/sft_qwen2_5_vl_3b_lora.yaml", "verl.trainer.sft", 1, {}),
    ],
)
def test_the_estimates_of_a_measured_job_are_what_was_measured(path, program, rollouts, changes):
    config, size = planned(path, **changes)
    baseline = find_measured_run(program, size.label)
    assert baseline is not None and size.label == "3b"
    images = ((560, 560),) * 6
    tokens = StepTokens(16, rollouts, baseline.prompt_tokens, baseline.response_tokens, images)
    seconds = estimate_seconds(config, size, tokens, baseline)
    assert seconds == pytest.approx(baseline.seconds, rel=1e-6)
    sizes = estimate_bytes(config, size, rollouts > 1, None)
    activations = activation_bytes(config, size, tokens)
    assert activations is not None
    resident = sum(sizes.get(part, 0.0) for part in ("weights", "gradients", "optimizer", "scorer"))
    assert (resident + activations) / GIB == pytest.approx(baseline.peak_gib, rel=0.05)


def test_more_gpus_and_more_tokens_change_time_and_memory():
    config, size = planned("configs/grpo_3b_one_gpu.yaml")
    baseline = find_measured_run("verl.trainer.main", "3b")
    assert baseline is not None
    tokens = StepTokens(16, 8, 2650, 512, ((560, 560),) * 6)
    one = estimate_seconds(config, size, tokens, baseline)
    two_gpus = override(config, {"trainer.n_gpus_per_node": 2})
    two = estimate_seconds(two_gpus, size, tokens, baseline)
    assert (
        two["update"] == pytest.approx(one["update"] / 2)
        and one["generation"] > two["generation"] > 0.5 * one["generation"]
    )
    longer = estimate_seconds(config, size, replace(tokens, response_tokens=1024), baseline)
    assert longer["update"] > 1.3 * one["update"] and longer["generation"] == pytest.approx(2 * one["generation"])
    halved = estimate_bytes(two_gpus, size, True, None)
    whole = estimate_bytes(config, size, True, None)
    assert halved["optimizer"] == whole["optimizer"] / 2 and halved["engine"] == whole["engine"]


def test_layers_that_do_not_recompute_take_memory():
    tokens = StepTokens(16, 8, 2650, 512, ((560, 560),) * 6)
    config, size = planned("configs/grpo_3b_one_gpu.yaml")
    recomputed = activation_bytes(config, size, tokens)
    keys = ("gradient_checkpointing_language", "gradient_checkpointing_vision")
    kept = override(config, {f"worker.actor.model.{key}": 0.0 for key in keys})
    half = override(config, {"worker.actor.model.gradient_checkpointing_language": 0.5})
    measured = {name: activation_bytes(each, size, tokens) / GIB for name, each in (("kept", kept), ("half", half))}
    # one H200: updates alone peak at 69.3 GiB with everything recomputed, at 135 GiB with nothing
    assert measured["kept"] - recomputed / GIB == pytest.approx(135 - 69.3, rel=0.05)
    assert measured["half"] - recomputed / GIB == pytest.approx(20, rel=0.05)


def test_a_gpu_that_is_too_small_is_named(monkeypatch, capsys):
    monkeypatch.setattr(show_plan, "_gpu_bytes", lambda: 48 * GIB)
    run(["config=configs/grpo_3b_one_gpu.yaml", "--plan"], "verl.trainer.main")
    assert "GiB of 48 GiB: DOES NOT FIT" in capsys.readouterr().out
    monkeypatch.setattr(show_plan, "_gpu_bytes", lambda: 140 * GIB)
    run(["config=configs/grpo_3b_one_gpu.yaml", "--plan"], "verl.trainer.main")
    assert "GiB of 140 GiB: fits" in capsys.readouterr().out
    for name, gpu in [("grpo_3b_48gb", 44.7), ("grpo_3b_24gb", 22.3)]:  # the GiB of a card of 48 GB and one of 24 GB
        monkeypatch.setattr(show_plan, "_gpu_bytes", lambda gpu=gpu: gpu * GIB)
        run([f"config=configs/{name}.yaml", "--plan"], "verl.trainer.main")
        assert ": fits" in capsys.readouterr().out


@pytest.mark.parametrize(("gpus", "parallel", "seconds"), [(1, 1, 22.38), (2, 2, 11.58), (2, 1, 10.3), (8, 2, 11.58)])
def test_the_measured_run_most_like_the_planned_one_is_taken(gpus, parallel, seconds):
    found = find_measured_run("verl.trainer.main", "3b", gpus, parallel)
    assert found is not None and found.step_seconds == seconds
    seven = find_measured_run("verl.trainer.main", "7b", gpus, parallel)
    assert seven is not None and seven.model == "7b"


def test_baselines_are_read_from_the_repository(tmp_path, monkeypatch):
    assert {each.program for each in read_measured_runs()} >= {"verl.trainer.main", "verl.trainer.sft", "eval.evaluate"}
    assert all(each.source and each.date for each in read_measured_runs())
    monkeypatch.setattr("verl.trainer.measured_runs.FOLDER", tmp_path)
    read_measured_runs.cache_clear()
    assert find_measured_run("verl.trainer.main", "3b") is None
    read_measured_runs.cache_clear()


def test_the_lora_adapter_is_counted():
    config, size = planned("configs/grpo_3b_lora.yaml")
    layers, width, kv, inner = 36, 2048, 256, 11008
    per_layer = 2 * (width + width) + 2 * (width + kv) + 3 * (width + inner)
    assert size.trained == 64 * layers * per_layer
    assert estimates.checkpoint_bytes(config, size)["adapter"] == 4 * size.trained


def test_plan_of_the_launcher_scripts():
    command = ["bash", "training_scripts/run_toy_grpo.sh", "--plan"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    )
    assert done.returncode in (0, 3) and "tokens: " in done.stdout, done.stderr
