"""Estimated memory and seconds of a run, against every run that was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.verl.shipped_configs import ROOT, VARIABLES
from verl.config import load_config, override
from verl.trainer import resource_estimates, show_plan
from verl.trainer.baseline_runs import find_measured_run, read_baseline_runs
from verl.trainer.resource_estimates import StepTokens, activation_bytes, estimate_bytes, estimate_seconds, find_model
from verl.workers.memory import GIB


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


def planned(path: str, **changes: object):
    config = override(
        load_config([f"config={path}"]), {key.replace("__", "."): value for key, value in changes.items()}
    )
    found = find_model(config)
    assert found is not None
    return config, found[0]


MICRO_BATCH = "worker__actor__max_tokens_per_micro_batch"
TWO_GPUS = "grpo_3b_two_gpus_140gb"
ALLOCATOR = 0.2  # what PyTorch's allocator keeps is not estimated (ALLOCATOR_SHARE)
# (program, model, GPUs, tensor parallel, prompts, peak) of a measured run -> recipe, changes, relative tolerance
MEASURED = {
    ("main", "3b", 1, 1, 16, 72.0): ("grpo_3b_one_gpu", {}, 0.03),
    # the GPU has 139.8 GiB, and the allocator has taken all of it
    ("main", "3b", 1, 1, 16, 139.6): (
        "grpo_3b_140gb",
        {MICRO_BATCH: 14000, "worker__actor__model__gradient_checkpointing_language": 0.5},
        0.07,
    ),
    ("main", "3b", 1, 1, 16, 137.0): ("grpo_3b_140gb", {}, ALLOCATOR),
    ("main", "3b", 2, 2, 16, 105.3): (TWO_GPUS, {"worker__rollout__tensor_parallel_size": 2}, ALLOCATOR),
    ("main", "3b", 2, 1, 16, 105.1): (TWO_GPUS, {}, ALLOCATOR),
    ("main", "3b", 2, 1, 32, 106.4): (TWO_GPUS, {"data__rollout_batch_size": 32}, ALLOCATOR),
    ("main", "7b", 1, 1, 16, 139.7): ("grpo_3b_one_gpu", {MICRO_BATCH: 7000}, 0.03),
    ("sft", "3b", 1, 1, 16, 56.8): ("sft_qwen2_5_vl_3b_lora", {}, 0.03),
}


def key_of(run):
    program = run.program.rpartition(".")[2]
    return program, run.model, run.gpus, run.tensor_parallel, run.prompts, run.peak_gib


def test_every_measured_peak_is_compared():
    assert {key_of(run) for run in read_baseline_runs() if run.peak_gib} == set(MEASURED)


@pytest.mark.parametrize("key", MEASURED, ids=str)
def test_the_estimated_memory_is_the_measured_peak(key, monkeypatch):
    recipe, changes, tolerance = MEASURED[key]
    (measured,) = (run for run in read_baseline_runs() if key_of(run) == key)
    monkeypatch.setenv("MODEL_PATH", f"/weights/{measured.model}")
    config, size = planned(f"configs/{recipe}.yaml", **changes)
    assert size.label == measured.model
    assert (config.worker.actor.max_tokens_per_micro_batch or 0) == measured.micro_batch_tokens
    lines = show_plan.memory_lines(planned_run(config, measured), size, tokens_of(measured))
    line = next(line for line in lines if line.startswith("update: about"))
    estimated = float(line.split()[2])
    assert estimated == pytest.approx(measured.peak_gib, rel=tolerance)
    if tolerance == ALLOCATOR:  # the plan says so, and its bound holds
        assert "with what PyTorch's allocator keeps" in line
        assert measured.peak_gib <= estimated * resource_estimates.ALLOCATOR_SHARE


def tokens_of(run):
    images = ((run.frame_side, run.frame_side),) * run.frames
    return StepTokens(run.prompts, run.rollouts, run.prompt_tokens, run.response_tokens, images)


def planned_run(config, run):
    fine_tunes = run.program == "verl.trainer.sft"
    return show_plan.PlanInputs(run.program, config, None, [], not fine_tunes, 0.0, fine_tunes, ())


@pytest.mark.parametrize("recipe", ["grpo_3b_one_gpu", TWO_GPUS])
def test_gathered_weights_and_whole_gradients_stay_on_each_gpu(recipe):
    kept = {"worker__actor__fsdp__enable_full_shard": False, "worker__actor__fsdp__reduce_gradients_once": True}
    freed = dict.fromkeys(kept, True) | {"worker__actor__fsdp__reduce_gradients_once": False}
    config, size = planned(f"configs/{recipe}.yaml", trainer__n_gpus_per_node=2, **kept)
    sizes = estimate_bytes(config, size, True, None)
    assert sizes["gathered"] == 2 * size.total and sizes["gradients"] == 4 * size.trained
    config, size = planned(f"configs/{recipe}.yaml", trainer__n_gpus_per_node=2, **freed)
    sizes = estimate_bytes(config, size, True, None)
    assert "gathered" not in sizes and sizes["gradients"] == 2 * size.trained


def test_a_micro_batch_has_one_group_at_least():
    config, size = planned("configs/grpo_3b_48gb.yaml")  # of 7,000 tokens
    short, long = (StepTokens(16, 8, 2240, tokens, ((560, 560),) * 5) for tokens in (512, 1024))
    assert activation_bytes(config, size, long) / activation_bytes(config, size, short) == (2240 + 8 * 1024) / 7000


@pytest.mark.parametrize("measured", [run for run in read_baseline_runs() if run.program != "eval.evaluate"], ids=str)
def test_the_seconds_of_a_measured_run_are_what_was_measured(measured, monkeypatch):
    monkeypatch.setenv("MODEL_PATH", f"/weights/{measured.model}")
    recipe = "sft_qwen2_5_vl_3b_lora" if measured.program == "verl.trainer.sft" else "grpo_3b_one_gpu"
    gpus = {
        "trainer__n_gpus_per_node": measured.gpus,
        "worker__rollout__tensor_parallel_size": measured.tensor_parallel,
    }
    config, size = planned(f"configs/{recipe}.yaml", **gpus)
    seconds = estimate_seconds(config, size, tokens_of(measured), measured)
    assert seconds == pytest.approx(measured.seconds, rel=1e-6)


def test_more_gpus_and_more_tokens_change_time_and_memory():
    config, size = planned("configs/grpo_3b_one_gpu.yaml")
    baseline = find_measured_run("verl.trainer.main", "3b")
    assert baseline is not None
    assert baseline.gpus == 1
    tokens = StepTokens(16, 8, 2650, 512, ((560, 560),) * 6)
    one = estimate_seconds(config, size, tokens, baseline)
    two_gpus = override(config, {"trainer.n_gpus_per_node": 2})
    two = estimate_seconds(two_gpus, size, tokens, baseline)
    assert two["update"] == pytest.approx(one["update"] / 2)
    assert one["generation"] > two["generation"] > 0.5 * one["generation"]
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


@pytest.mark.parametrize(
    ("gpus", "parallel", "prompts", "seconds"),
    [
        (1, 1, 16, 16.4),  # the last of its date
        (2, 2, 16, 11.58),
        (2, 1, 16, 10.3),
        (2, 1, 32, 19.68),
        (8, 2, 16, 11.58),
        (8, 1, 16, 10.3),
        (8, 1, 128, 19.68),
    ],
)
def test_the_measured_run_most_like_the_planned_one_is_taken(gpus, parallel, prompts, seconds):
    found = find_measured_run("verl.trainer.main", "3b", gpus, parallel, prompts=prompts)
    assert found is not None and found.step_seconds == seconds
    seven = find_measured_run("verl.trainer.main", "7b", gpus, parallel)
    assert seven is not None and seven.model == "7b"


def test_baselines_are_read_from_the_repository(tmp_path, monkeypatch):
    assert {each.program for each in read_baseline_runs()} >= {"verl.trainer.main", "verl.trainer.sft", "eval.evaluate"}
    for each in read_baseline_runs():
        module = each.command.split()[2]  # python -m MODULE
        assert each.command.startswith("python -m ") and Path(f"{module.replace('.', '/')}.py").is_file()
        assert each.versions and each.date
    monkeypatch.setattr("verl.trainer.baseline_runs.BASELINES_FOLDER", tmp_path)
    read_baseline_runs.cache_clear()
    assert find_measured_run("verl.trainer.main", "3b") is None
    read_baseline_runs.cache_clear()


def test_the_lora_adapter_is_counted():
    config, size = planned("configs/grpo_3b_lora.yaml")
    layers, width, kv, inner = 36, 2048, 256, 11008
    per_layer = 2 * (width + width) + 2 * (width + kv) + 3 * (width + inner)
    assert size.trained == 64 * layers * per_layer
    assert resource_estimates.checkpoint_bytes(config, size)["adapter"] == 4 * size.trained
