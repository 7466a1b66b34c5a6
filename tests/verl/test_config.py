"""Every shipped configuration loads, the published keys are taken, and what cannot run is refused by name."""

from __future__ import annotations

import logging
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.verl.shipped_configs import CONFIGS, ROOT, VARIABLES
from veason.data.training import TRAINING_DATA
from veason.registry import load_by_name
from verl.config import Config, ConfigError, load_config, override
from verl.config.published_keys import NO_EFFECT
from verl.trainer.main import check_reward

PUBLISHED = "training_scripts/video_seg_zero_3b_keyframe_sam_sft_mod.yaml"


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config([f"config={PUBLISHED}", *overrides])
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_loads(path: Path) -> None:
    config = load_config([f"config={path}"])
    assert isinstance(config, Config)
    base = OmegaConf.load(path).get("base")
    assert base is None or ROOT / "configs" in (path.parent / base).resolve().parents


def test_the_published_path_is_the_config() -> None:
    assert load_config([f"config={PUBLISHED}"]) == load_config(["config=configs/" + Path(PUBLISHED).name])


def test_the_published_command_line() -> None:
    config = load_config(
        [
            f"config={PUBLISHED}",
            "data.val_files=None",
            "worker.actor.model.model_path=/weights/other",
            "worker.actor.kl_loss_coef=5.0e-3",
            "worker.actor.optim.lr=1.0e-6",
            "worker.actor.micro_batch_size_per_device_for_update=1",
            "worker.actor.micro_batch_size_per_device_for_experience=1",
            "worker.rollout.enable_chunked_prefill=false",
            "worker.rollout.tensor_parallel_size=4",
            "worker.rollout.n=8",
            "trainer.experiment_name=run",
            "trainer.n_gpus_per_node=4",
            "trainer.total_episodes=1",
            "trainer.save_checkpoint_path=/path/to/save",
        ]
    )
    assert config.data.val_files is None
    assert config.worker.actor.model.model_path == config.worker.actor.model.tokenizer_path == "/weights/other"
    assert config.worker.actor.kl_loss_coef == 5e-3 and config.worker.actor.optim.lr == 1e-6
    assert config.worker.rollout.enable_chunked_prefill is False
    assert config.trainer.save_checkpoint_path == "/path/to/save"
    assert (config.worker.rollout.prompt_length, config.worker.rollout.response_length) == (7100, 1024)


ORIGINAL_YAML = """
data:
  name: {name}
  train_files: /data/ReVOS
  val_files: None
  prompt_key: problem
  max_prompt_length: 7100
  max_response_length: 1024
  rollout_batch_size: 16
  shuffle: true
  seed: 42
  max_pixels: 12845056
  min_pixels: 3136
  keyframe_resize: 560
  reference_image_resize: 560
  sam2_mode: "video"
  sampled_frames: 6
algorithm: {{adv_estimator: grpo, kl_coef: 0.0}}
worker:
  actor:
    global_batch_size: 16
    micro_batch_size_per_device_for_update: 1
    micro_batch_size_per_device_for_experience: 1
    max_grad_norm: 1.0
    use_kl_loss: true
    kl_loss_coef: 5.0e-3
    kl_loss_type: low_var_kl
    model: {{model_path: /weights/sft, enable_gradient_checkpointing: true}}
    optim: {{lr: 1.0e-6, weight_decay: 1.0e-2}}
    fsdp: {{param_offload: false, optimizer_offload: false, torch_dtype: null}}
    offload: {{param_offload: true, optimizer_offload: true}}
  rollout:
    temperature: 1.0
    tensor_parallel_size: 2
    gpu_memory_utilization: 0.25
    n: 8
    enable_chunked_prefill: true
  ref: {{offload: {{param_offload: true}}}}
  reward: {{reward_type: function, compute_score: {score}}}
trainer:
  total_episodes: 1
  logger: ["console", "wandb"]
  project_name: easy_r1_video_keyframe_sft_mod_sam2_1
  n_gpus_per_node: 2
  nnodes: 1
  save_freq: 100
  test_freq: 100000
  val_before_train: false
  val_only: false
"""


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("video_seg_keyframe_sft_base_mod", "video_match_keyframe_sft_sam_mod"),
        ("video_seg_keyframe_sft_base_mod_subset", "video_match_keyframe_sft_sam_mod"),
        ("video_seg_keyframe_sft_base_mod", "ablation_keyframe_sft_sam_mod_compute_score"),
    ],
)
def test_the_original_s_own_yaml_loads_unchanged(name: str, score: str, tmp_path: Path) -> None:
    """The keys and values of training_scripts/*.yaml of github.com/SitongGong/Veason-R1 at dde0d9b that its scripts
    and its video ablations use; it names no file of SAM 2.
    """
    (tmp_path / "original.yaml").write_text(ORIGINAL_YAML.format(name=name, score=score))
    config = load_config([f"config={tmp_path / 'original.yaml'}"])
    assert (config.data.name, config.data.val_files, config.worker.reward.compute_score) == (name, None, score)
    assert config.worker.reward.tracker_options == {}
    if score.startswith("video"):
        with pytest.raises(
            ConfigError,
            match=r"worker\.reward\.tracker_options\.sam2_checkpoint is not set: .* sam2_config=configs/sam2",
        ):
            check_reward(config)
    weights = override(config, {"worker.reward.tracker_options": {"sam2_checkpoint": "random"}})
    assert set(check_reward(weights)) == ({"sam2"} if score.startswith("video") else set())
    assert load_by_name(name, TRAINING_DATA, "data.name").name == "revos"


@pytest.mark.parametrize(
    "text",
    [
        "text with: colon and 'quotes'",
        "{expression}: where?",
        "- {expression}",
        'Find "{expression}".',
        "two\nlines {expression}",
        "# {expression}",
        "7",
    ],
)
def test_a_text_on_the_command_line_is_taken_as_it_is(text: str) -> None:
    assert load_config([f"data.prompt_template={text}"]).data.prompt_template == text
    assert load_config(["--data.prompt_template", text]).data.prompt_template == text


def test_null_and_variables_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORDING", "Find {expression}.")
    assert load_config(["data.prompt_template=${oc.env:WORDING}"]).data.prompt_template == "Find {expression}."
    for none in ("null", "None", ""):
        assert load_config([f"data.prompt_template={none}"]).data.prompt_template is None


def test_the_published_values() -> None:
    config = load_config([f"config={PUBLISHED}"])
    actor, optim = config.worker.actor, config.worker.actor.optim
    assert (actor.clip_ratio, actor.entropy_coeff, actor.kl_loss_coef, actor.kl_loss_type) == (
        None,  # vanilla's own, 0.2
        1e-3,
        5e-3,
        "low_var_kl",
    )
    assert (optim.lr, optim.betas, optim.weight_decay, optim.lr_scheduler_type) == (
        1e-6,
        [0.9, 0.999],
        1e-2,
        "constant",
    )
    assert (config.data.rollout_batch_size, config.worker.rollout.n, config.worker.rollout.tensor_parallel_size) == (
        16,
        8,
        2,
    )
    assert actor.offload.param_offload and actor.offload.optimizer_offload and config.worker.ref.offload.param_offload
    assert config.trainer.device == "cuda"


@pytest.mark.parametrize(
    "text",
    [
        "data.prompt_key=problem",
        "data.sam2_mode=video",
        "data.reference_image_resize=560",
        "worker.critic.optim.lr=1e-5",
        "algorithm.lam=1.0",
    ],
)
def test_a_key_without_effect_is_taken_with_one_line(text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_config([f"config={PUBLISHED}", text])
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"{text.split('=')[0].split('.optim')[0]} has no effect here"
    ]


def test_options_of_a_rule_may_be_named_as_they_like() -> None:
    config = load_config(
        [f"config={PUBLISHED}", "worker.reward.options.strategy=greedy", "worker.reward.options.padding_free=1"]
    )
    assert config.worker.reward.options == {"strategy": "greedy", "padding_free": 1}


def test_no_key_without_effect_has_a_field() -> None:
    schema = OmegaConf.structured(Config)
    assert not [key for key in NO_EFFECT if "*" not in key and OmegaConf.select(schema, key) is not None]


@pytest.mark.parametrize(
    ("text", "named", "nearest"),
    [
        ("worker.rolout.n=8", "worker.rolout", "worker.rollout?"),
        (
            "worker.rollout.tensor_paralel_size=2",
            "worker.rollout.tensor_paralel_size",
            "worker.rollout.tensor_parallel_size?",
        ),
        ("worker.actor.lr=1e-6", "worker.actor.lr", "worker.actor.optim.lr?"),
        ("trainer.save_checkpoint_pth=/a", "trainer.save_checkpoint_pth", "trainer.save_checkpoint_path?"),
        ("total_episodes=3", "total_episodes", "trainer.total_episodes?"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(text: str, named: str, nearest: str) -> None:
    message = refusal(text)
    assert f"unknown key {named} " in message and nearest in message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("worker.rollout.n=eight", "worker.rollout.n"),
        ("worker.rollout.n=2.5", "worker.rollout.n"),
        ("worker.actor.use_kl_loss=maybe", "worker.actor.use_kl_loss"),
        ("worker.actor.optim.betas=[0.9,x]", "worker.actor.optim.betas[1]"),
        ("trainer.n_gpus_per_node=null", "trainer.n_gpus_per_node"),
        ("worker.rollout=3", "worker.rollout"),
    ],
)
def test_a_wrong_type_is_named(text: str, named: str) -> None:
    assert refusal(text).startswith(named)


def test_one_value_for_a_list_is_told_how_to_write_it() -> None:
    assert refusal("trainer.logger=wandb") == "trainer.logger is a list: write trainer.logger=[wandb]"


@pytest.mark.parametrize("batch", [1, 5, 15, 16, 64])
@pytest.mark.parametrize("gpus", [1, 3, 6, 8])
def test_the_batch_sizes_that_fit_are_accepted(batch: int, gpus: int) -> None:
    given = [f"trainer.n_gpus_per_node={gpus}", f"data.rollout_batch_size={batch}"]
    given.append("worker.rollout.tensor_parallel_size=1")
    try:
        load_config([f"config={PUBLISHED}", *given])
    except ConfigError as error:
        fits = str(error).partition("what fits: ")[2].split()
        assert fits
        load_config([f"config={PUBLISHED}", *given, *fits])


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (
            ["data.rollout_batch_size=15"],
            ["data.rollout_batch_size=15", "global_batch_size=16 data.rollout_batch_size=16"],
        ),
        (
            ["trainer.nnodes=2", "trainer.n_gpus_per_node=3", "worker.rollout.tensor_parallel_size=2"],
            ["worker.rollout.tensor_parallel_size=2", "parts of two hosts", "n_gpus_per_node=3", "nearest: 1"],
        ),
        (["trainer.n_gpus_per_node=3"], ["worker.rollout.tensor_parallel_size=2", "3 workers", "nearest: 1"]),
        (["worker.actor.fsdp.fsdp_size=3"], ["worker.actor.fsdp.fsdp_size=3", "2 workers", "nearest: 2"]),
        (["trainer.n_gpus_per_node=6"], ["6 workers", "global_batch_size=18 data.rollout_batch_size=18"]),
        (["trainer.nnodes=0"], ["trainer.nnodes=0", "[1, inf)"]),
        (["algorithm.adv_estimator=grop"], ["algorithm.adv_estimator", "did you mean grpo?"]),
        (["worker.actor.kl_loss_type=low_var"], ["worker.actor.kl_loss_type", "did you mean low_var_kl?"]),
        (["trainer.logger=[console,wnadb]"], ["trainer.logger", "did you mean wandb?"]),
        (["data.max_pixels=100000"], ["data.keyframe_resize=560", "data.max_pixels=100000"]),
        (["worker.rollout.max_model_len=8000"], ["worker.rollout.max_model_len=8000", "8124"]),
        (
            ["worker.actor.use_kl_loss=false", "algorithm.kl_coef=0.1"],
            ["algorithm.kl_coef", "worker.actor.use_kl_loss"],
        ),
        (["worker.rollout.temperature=0"], ["worker.rollout.temperature"]),
        (["trainer.max_steps=0"], ["trainer.max_steps"]),
        (
            ["algorithm.dynamic_sampling=true", "worker.rollout.n=1"],
            ["algorithm.dynamic_sampling", "worker.rollout.n=1"],
        ),
        (
            ["algorithm.adv_estimator=dr_grpo", "worker.rollout.n=1"],
            ["algorithm.adv_estimator=dr_grpo", "worker.rollout.n=1", "remax"],
        ),
        (
            ["worker.rollout.val_n=2", "worker.rollout.val_temperature=0"],
            ["worker.rollout.val_n=2", "worker.rollout.val_temperature"],
        ),
        (["worker.actor.tis_cap=0"], ["worker.actor.tis_cap=0", "(0, inf)"]),
        (["worker.ref.fsdp.torch_dtype=fp8"], ["worker.ref.fsdp.torch_dtype"]),
    ],
)
def test_an_impossible_combination_is_named(overrides: list[str], parts: list[str]) -> None:
    message = refusal(*overrides)
    assert all(part in message for part in parts), message


def test_a_missing_variable_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REVOS_ROOT")
    assert refusal() == "data.train_files is not set: export REVOS_ROOT=... or add data.train_files=... to the command"
    assert load_config([f"config={PUBLISHED}", "data.train_files=/elsewhere"]).data.train_files == "/elsewhere"


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    for overrides, part in (
        (["config=configs/toy/demoo.yaml"], "did you mean configs/toy/demo.yaml?"),
        (["config=configs/toy/demo.yaml", "config=configs/toy/demo.yaml"], "name one file"),
        (["trainer.max_steps"], "write key=value"),
    ):
        with pytest.raises(ConfigError, match=part.replace("?", r"\?").replace(".", r"\.")):
            load_config(overrides)
    broken = tmp_path / "broken.yaml"
    broken.write_text("data: [1\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml is not YAML") as error:
        load_config([f"config={broken}"])
    assert "\n" not in str(error.value)


def test_free_form_sections_take_any_key() -> None:
    config = load_config([f"config={PUBLISHED}", "data.options.split=train", "worker.reward.options.parts.format=2"])
    assert config.data.options == {"split": "train"} and config.worker.reward.options == {"parts": {"format": 2}}


def test_a_blank_word_is_ignored() -> None:
    """The published commands have comments after a line's backslash, for which bash passes a blank."""
    assert load_config([f"config={PUBLISHED}", " ", "trainer.max_steps=3", ""]).trainer.max_steps == 3


def test_a_short_exponent_is_a_number() -> None:
    assert load_config([f"config={PUBLISHED}", "worker.actor.optim.lr=1e-6"]).worker.actor.optim.lr == 1e-6


@pytest.mark.parametrize(
    ("published", "present"),
    [
        ("worker.actor.fsdp.param_offload", "worker.actor.offload.param_offload"),
        ("worker.actor.fsdp.optimizer_offload", "worker.actor.offload.optimizer_offload"),
        ("worker.ref.fsdp.param_offload", "worker.ref.offload.param_offload"),
    ],
)
def test_of_two_published_offload_switches_one_is_refused_with_the_name_of_the_other(
    published: str, present: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=rf"^{published}=True: set {present} instead$".replace(".", r"\.")):
        load_config([f"config={PUBLISHED}", f"{published}=true"])
    with caplog.at_level(logging.WARNING):
        assert load_config([f"config={PUBLISHED}", f"{published}=false"]) == load_config([f"config={PUBLISHED}"])
    assert not caplog.records


def test_a_configuration_is_frozen_and_changes_are_copies() -> None:
    config = load_config([f"config={PUBLISHED}"])
    with pytest.raises(FrozenInstanceError):
        config.worker.rollout.n = 4  # type: ignore[misc]
    changed = override(config, {"worker.rollout.n": 4, "trainer.device": "cpu"})
    assert (changed.worker.rollout.n, changed.trainer.device) == (4, "cpu")
    assert (config.worker.rollout.n, config.trainer.device) == (8, "cuda") and changed.data is config.data


def test_flags_are_overrides() -> None:
    overrides = ["--config", PUBLISHED, "--trainer.max_steps", "3", "--worker.rollout.n=4"]
    config = load_config(overrides)
    assert (config.trainer.max_steps, config.worker.rollout.n) == (3, 4)
    with pytest.raises(ConfigError, match=r"cannot read '--trainer\.max_steps': write key=value"):
        load_config(["--trainer.max_steps"])


def test_a_missing_variable_of_the_tracker_s_options_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAM2_CHECKPOINT")
    key = "worker.reward.tracker_options.sam2_checkpoint"
    assert refusal() == f"{key} is not set: export SAM2_CHECKPOINT=... or add {key}=... to the command"


def test_earlier_names_of_keys_are_taken() -> None:
    earlier = [
        "trainer.resume=auto",
        "trainer.worker_timeout=60",
        "trainer.max_bad_updates=7",
        "data.box_side=1000",
        "algorithm.max_uncomputed_share=0.5",
        "algorithm.collapse_steps=3",
        "data.anchor=first",
        "data.frame_index=relative",
        "data.include_absent=true",
        "data.mix.revos.include_absent=true",
    ]
    config = load_config([f"config={PUBLISHED}", *earlier])
    assert (config.trainer.resume_mode, config.trainer.phase_timeout) == ("auto", 60.0)
    assert (config.data.coordinate_range, config.algorithm.max_frac_nan) == (1000, 0.5)
    assert config.trainer.max_nonfinite_updates == 7
    assert (config.algorithm.collapse_patience, config.data.anchor_frame) == (3, "first")
    assert config.data.timestamp_mode == "relative" and config.data.include_no_target
    assert config.data.mix == {"revos": {"include_no_target": True}}
