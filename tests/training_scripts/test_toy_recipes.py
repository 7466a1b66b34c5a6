"""Each experiment loads and differs from the recipe where it says so; the recipe differs from the published one in
sizes.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from eval.options import EvaluateConfig, read_words
from grpo_reward.rules import find_rule
from training_scripts.toy.experiments import choose, make_job, make_slots
from training_scripts.toy.recipes import EXPERIMENTS, GRPO, SFT, Places, recipe, training_words
from verl.config import Config, load_config

ROOT = Path(__file__).parents[2]
PUBLISHED = "config=configs/video_seg_zero_3b_keyframe_sam_sft_mod.yaml"
SIZES = {  # what the toy recipe may have different from the published one: sizes, places, and what a small policy needs
    *(
        "data.train_files",
        "data.val_files",
        "data.val_meta_file",
        "data.val_max_samples",
        "data.prompt_template",
        "data.keyframe_resize",
    ),
    *(
        "data.max_prompt_length",
        "data.max_response_length",
        "worker.rollout.prompt_length",
        "worker.rollout.response_length",
    ),
    *(
        "data.rollout_batch_size",
        "worker.actor.global_batch_size",
        "worker.actor.max_tokens_per_micro_batch",
        "worker.actor.model.model_path",
        "worker.actor.model.tokenizer_path",
    ),
    *("worker.actor.model.enable_gradient_checkpointing", "worker.actor.optim.lr", "worker.actor.fsdp.mp_param_dtype"),
    *(
        "worker.actor.offload.param_offload",
        "worker.actor.offload.optimizer_offload",
        "worker.ref.offload.param_offload",
    ),
    *(
        "worker.ref.fsdp.torch_dtype",
        "worker.ref.fsdp.mp_param_dtype",
        "worker.rollout.tensor_parallel_size",
        "worker.rollout.dtype",
    ),
    *(
        "worker.rollout.enforce_eager",
        "worker.rollout.kv_cache_gib",
        "worker.rollout.sleep",
        "worker.rollout.enable_chunked_prefill",
    ),
    *(
        "worker.rollout.max_num_seqs",
        "worker.rollout.gpu_memory_utilization",
        "worker.reward.sam2_config",
        "worker.reward.sam2_checkpoint",
    ),
}


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("REVOS_ROOT", "SAM2_CHECKPOINT", "MODEL_PATH"):
        monkeypatch.setenv(name, "/somewhere")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "sam2_tiny.pt").touch()
    return Places(tmp_path / "policy", tmp_path, tmp_path / "world", tmp_path / "output")


def flat(tree: dict, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


def different(one: Config, other: Config) -> set[str]:
    ours, theirs = flat(asdict(one)), flat(asdict(other))
    return {key for key in ours if ours[key] != theirs[key]}


def test_the_recipe_is_the_published_one_but_for_sizes() -> None:
    changed = different(recipe(), load_config([PUBLISHED]))
    assert {key for key in changed if not key.startswith("trainer.")} <= SIZES


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if EXPERIMENTS[name].program is not None])
def test_every_experiment_loads_and_has_a_rule(name: str, places: Places) -> None:
    experiment = EXPERIMENTS[name]
    config = load_config(training_words(experiment, 3, 40, places))
    find_rule(config.worker.reward.compute_score)
    assert config.data.seed == 3 and config.trainer.max_steps == 40
    if experiment.program == GRPO:
        plain = load_config(training_words(EXPERIMENTS["grpo"], 3, 40, places))
        words = {word.partition("=")[0] for word in experiment.words} | (
            {"worker.actor.model.model_path"} if experiment.random else set()
        )
        assert different(config, plain) - {"worker.actor.model.tokenizer_path"} == words
    else:
        grpo = recipe()
        assert config.data.rollout_batch_size == grpo.data.rollout_batch_size * grpo.worker.rollout.n
        assert config.data.name.endswith("DrawnToys")  # as in the fine-tuning before: nothing is seen twice
        assert experiment.program == SFT and config.data.prompt_template == grpo.data.prompt_template


def test_a_run_is_trained_then_evaluated_at_the_recipe_s_sizes(places: Places) -> None:
    train, evaluate = make_job("no_sam2", 1, 40, 100, ["worker.rollout.n=4"], places).stages
    assert (
        train.product == places.output / "runs/no_sam2-1/train/global_step_40/trainer.json"
        and "worker.rollout.n=4" in train.command
    )
    config = read_words(EvaluateConfig, [word for word in evaluate.command if "=" in word])
    assert config.model_path == str(train.product.parent / "actor/huggingface") and config.limit == 100
    assert (
        config.keyframe_resize == recipe().data.keyframe_resize
        and config.prompt_template == recipe().data.prompt_template
    )
    (later,) = make_job("no_sam2", 1, 40, 100, [], places, ["evaluate"]).stages
    assert later == evaluate
    (alone,) = make_job("sft", 0, 40, None, [], places).stages
    assert f"model_path={places.policy}" in alone.command


def test_runs_and_places_are_refused_by_name(places: Places, tmp_path: Path) -> None:
    assert choose("no_kl,grpo") == ["sft", "no_kl", "grpo"] and choose("all") == list(EXPERIMENTS)
    with pytest.raises(SystemExit, match="no run is named no_sam3; choose from"):
        choose("grpo,no_sam3")
    (tmp_path / "sam2_tiny.pt").unlink()
    with pytest.raises(SystemExit, match="no tracker in"):
        places.tracker_files()


def test_slots_share_gpus_and_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    slots = make_slots(3, tmp_path)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["2", "5", "2"] and {
        slot["OMP_NUM_THREADS"] for slot in slots
    } == {"5"}
    assert len({slot["TRITON_CACHE_DIR"] for slot in slots}) == 3
