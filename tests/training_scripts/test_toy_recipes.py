"""Each experiment loads and differs from the recipe in its overrides only; the recipe differs from the published one in
sizes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from eval.evaluation_options import EvaluateConfig, parse_overrides
from grpo_reward.rules import find_rule
from training_scripts.toy.experiments import (
    ExperimentRun,
    RunStage,
    execute_runs,
    make_environments,
    make_run,
    select_experiments,
)
from training_scripts.toy.recipes import EXPERIMENTS, GRPO, SFT, ToyPaths, recipe, training_overrides
from verl.config import Config, load_config

ROOT = Path(__file__).parents[2]
PUBLISHED = "config=configs/video_seg_zero_3b_keyframe_sam_sft_mod.yaml"
# Keys in which the toy recipe may differ from the published one: sizes, paths, and what a tiny policy needs.
SIZES = {
    "data.train_files",
    "data.val_files",
    "data.val_meta_file",
    "data.val_max_samples",
    "data.prompt_template",
    "data.keyframe_resize",
    "data.max_prompt_length",
    "data.max_response_length",
    "worker.rollout.prompt_length",
    "worker.rollout.response_length",
    "data.rollout_batch_size",
    "worker.actor.global_batch_size",
    "worker.actor.max_tokens_per_micro_batch",
    "worker.actor.model.model_path",
    "worker.actor.model.tokenizer_path",
    "worker.actor.model.enable_gradient_checkpointing",
    "worker.actor.optim.lr",
    "worker.actor.fsdp.mp_param_dtype",
    "worker.actor.offload.param_offload",
    "worker.actor.offload.optimizer_offload",
    "worker.ref.offload.param_offload",
    "worker.ref.fsdp.torch_dtype",
    "worker.ref.fsdp.mp_param_dtype",
    "worker.rollout.tensor_parallel_size",
    "worker.rollout.dtype",
    "worker.rollout.enforce_eager",
    "worker.rollout.kv_cache_gib",
    "worker.rollout.enable_sleep_mode",
    "worker.rollout.enable_chunked_prefill",
    "worker.rollout.max_num_seqs",
    "worker.rollout.gpu_memory_utilization",
    "worker.reward.tracker_options.sam2_config",
    "worker.reward.tracker_options.sam2_checkpoint",
}


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("REVOS_ROOT", "SAM2_CHECKPOINT", "MODEL_PATH"):
        monkeypatch.setenv(name, "/somewhere")


@pytest.fixture
def paths(tmp_path: Path) -> ToyPaths:
    (tmp_path / "sam2_tiny.pt").touch()
    write_config(tmp_path / "policy", "qwen2_5_vl", 14)
    return ToyPaths(tmp_path / "policy", tmp_path, tmp_path / "world", tmp_path / "output")


def write_config(policy: Path, model_type: str, patch: int) -> None:
    policy.mkdir(exist_ok=True)
    vision = {"patch_size": patch, "spatial_merge_size": 2}
    (policy / "config.json").write_text(json.dumps({"model_type": model_type, "vision_config": vision}))


def flatten(tree: dict, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in tree.items():
        found |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


def differences(one: Config, other: Config) -> set[str]:
    ours, theirs = flatten(asdict(one)), flatten(asdict(other))
    return {key for key in ours if ours[key] != theirs[key]}


def test_the_recipe_differs_from_the_published_one_in_sizes_only() -> None:
    changed = differences(recipe(), load_config([PUBLISHED]))
    assert {key for key in changed if not key.startswith("trainer.")} <= SIZES


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if EXPERIMENTS[name].program is not None])
def test_every_experiment_loads_and_has_a_rule(name: str, paths: ToyPaths) -> None:
    experiment = EXPERIMENTS[name]
    config = load_config(training_overrides(experiment, 3, 40, paths))
    find_rule(config.worker.reward.compute_score)
    assert config.data.seed == 3 and config.trainer.max_steps == 40
    if experiment.program == GRPO:
        plain = load_config(training_overrides(EXPERIMENTS["grpo"], 3, 40, paths))
        keys = {override.partition("=")[0] for override in experiment.overrides}
        keys |= {"worker.actor.model.model_path"} if experiment.random_init else set()
        assert differences(config, plain) - {"worker.actor.model.tokenizer_path"} == keys
    else:
        grpo = recipe()
        assert config.data.rollout_batch_size == grpo.data.rollout_batch_size * grpo.worker.rollout.n
        assert config.data.name.endswith("OnlineToyData")  # as in the SFT of the initial policy
        assert experiment.program == SFT and config.data.prompt_template == grpo.data.prompt_template


def test_a_run_trains_and_then_evaluates_at_the_recipe_s_sizes(paths: ToyPaths) -> None:
    train, evaluate = make_run("no_sam2", 1, 40, 100, ["worker.rollout.n=4"], paths).stages
    assert (
        train.result == paths.output / "no_sam2-1/train/global_step_40/trainer.json"
        and "worker.rollout.n=4" in train.command
    )
    config = parse_overrides(EvaluateConfig, [word for word in evaluate.command if "=" in word])
    assert config.model_path == str(train.result.parent / "actor/huggingface") and config.limit == 100
    assert (
        config.keyframe_resize == recipe().data.keyframe_resize
        and config.prompt_template == recipe().data.prompt_template
    )
    (later,) = make_run("no_sam2", 1, 40, 100, [], paths, ["evaluate"]).stages
    assert later == evaluate
    (alone,) = make_run("sft", 0, 40, None, [], paths).stages
    assert f"model_path={paths.policy}" in alone.command


@pytest.mark.parametrize("name", ["grpo", "control"])
def test_a_policy_of_another_family_sees_frames_of_as_many_tokens(name: str, paths: ToyPaths) -> None:
    write_config(paths.policy, "qwen3_vl", 16)
    train, evaluate = make_run(name, 0, 36, 300, [], paths).stages
    config = load_config([word for word in train.command if "=" in word])
    assert config.data.keyframe_resize == 128 and "keyframe_resize=128" in evaluate.command
    assert config.data.max_response_length == 512 and "max_response_length=512" in evaluate.command
    write_config(paths.policy, "qwen2_5_vl", 14)
    train, evaluate = make_run(name, 0, 36, 300, [], paths).stages
    assert not any("keyframe_resize" in word for word in train.command) and "keyframe_resize=112" in evaluate.command


def test_unknown_runs_and_missing_trackers_are_refused(paths: ToyPaths, tmp_path: Path) -> None:
    assert select_experiments("no_kl,grpo") == ["sft", "no_kl", "grpo"]
    assert select_experiments("all") == list(EXPERIMENTS)
    with pytest.raises(SystemExit, match="unknown run no_sam3; the runs are all, sft"):
        select_experiments("grpo,no_sam3")
    (tmp_path / "sam2_tiny.pt").unlink()
    with pytest.raises(SystemExit, match="no tracker in"):
        paths.tracker_files()


def test_jobs_share_gpus_and_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    jobs = make_environments(3, tmp_path / "runs")
    assert [job["CUDA_VISIBLE_DEVICES"] for job in jobs] == ["2", "5", "2"]
    assert {job["OMP_NUM_THREADS"] for job in jobs} == {"5"}
    assert len({job["TRITON_CACHE_DIR"] for job in jobs}) == 3


def stage(folder: Path, name: str, code: str) -> RunStage:
    """A stage that runs `code`, then appends the job's number to its result."""
    result = folder / f"{name}.txt"
    code = f"import os, sys; {code}; open({str(result)!r}, 'a').write(os.environ['JOB'])"
    return RunStage(name, [sys.executable, "-S", "-c", code], result)


def run_of(folder: Path, *codes: str) -> ExperimentRun:
    return ExperimentRun(folder, [stage(folder, f"stage{number}", code) for number, code in enumerate(codes)])


def test_runs_share_the_jobs_and_a_failure_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs = [
        run_of(tmp_path / "bad", "sys.exit('no memory')", "pass"),
        *(run_of(tmp_path / name, "pass") for name in "abc"),
    ]
    assert not execute_runs(runs, [{"JOB": "0"}, {"JOB": "1"}])
    assert not (tmp_path / "bad" / "stage1.txt").exists()
    assert "bad: stage0 failed with status 1" in capsys.readouterr().out
    assert "no memory" in (tmp_path / "bad" / "stage0.log").read_text()
    assert {(tmp_path / name / "stage0.txt").read_text() for name in "abc"} <= {"0", "1"}


def test_a_second_call_resumes_after_the_last_result(tmp_path: Path) -> None:
    assert not execute_runs([run_of(tmp_path, "pass", "sys.exit(3)")], [{"JOB": "0"}])
    assert execute_runs([run_of(tmp_path, "pass", "pass")], [{"JOB": "1"}])
    assert execute_runs([run_of(tmp_path, "pass", "pass")], [{"JOB": "2"}])
    assert [(tmp_path / f"stage{number}.txt").read_text() for number in (0, 1)] == ["0", "1"]
    assert set(json.loads((tmp_path / "stages.json").read_text())) == {"stage0", "stage1"}
