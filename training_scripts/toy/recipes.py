"""The experiments of the toy world, and the command-line overrides that run them.

A run is `verl.trainer.main` with `configs/toy/grpo.yaml` (or `verl.trainer.sft` with `configs/toy/sft.yaml`) and a few
overrides, then `eval.evaluate` on held-out videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from veason.model_info import read_model_info
from verl.config import Config, load_config

GRPO, SFT = "verl.trainer.main", "verl.trainer.sft"
CONFIGS = {GRPO: "configs/toy/grpo.yaml", SFT: "configs/toy/sft.yaml"}
BASELINE = "sft"  # evaluates the initial policy, without training
FRAME_TOKENS = 4  # along a frame's side
RELATIVE_TOKENS = 512  # of the longest answers with coordinates from 0 to 1000, a digit more than the recipe's
EVALUATED_FRAMES = 5  # the most that training shows; the default of 8 has positions that a tiny policy has never seen


@dataclass(frozen=True)
class Experiment:
    """How a run differs from the recipe.

    Attributes:
        title: its row's name in the tables.
        overrides: of the configuration.
        program: the training module; None evaluates the initial policy.
        random_init: starts from random weights instead of the policy's.
    """

    title: str
    overrides: tuple[str, ...] = ()
    program: str | None = GRPO
    random_init: bool = False


def _reward(name: str, *further: str) -> tuple[str, ...]:
    return (f"worker.reward.compute_score={name}", *further)


EXPERIMENTS: dict[str, Experiment] = {
    BASELINE: Experiment("SFT, the initial policy", program=None),
    "grpo": Experiment("GRPO, the published recipe"),
    "control": Experiment("more SFT, equal samples and steps", ("sft.num_workers=4",), program=SFT),
    "no_keyframe": Experiment("without the keyframe part", _reward("no_keyframe")),
    "no_spatial": Experiment("without the spatial part", _reward("ablation_keyframe_sft_only_sam")),
    "no_sam2": Experiment("without SAM 2", _reward("no_sam2")),
    "no_kl": Experiment("without KL", ("worker.actor.use_kl_loss=false",)),
    "no_sft": Experiment("without SFT, from random weights", random_init=True),
    "strict": Experiment("veason_strict, with absent targets", _reward("veason_strict", "data.include_no_target=true")),
    "lora": Experiment(
        "LoRA of rank 64, ten times the learning rate",
        ("worker.actor.model.lora_rank=64", "worker.actor.model.lora_alpha=128", "worker.actor.optim.lr=4.0e-4"),
    ),
    "dr_grpo": Experiment(
        "Dr. GRPO", ("algorithm.adv_estimator=dr_grpo", "worker.actor.loss_agg_mode=seq-mean-token-sum-norm")
    ),
    "dapo": Experiment(
        "DAPO: clip-higher, dynamic sampling, overlong shaping, token mean",
        (
            "worker.actor.clip_ratio_high=0.28",
            "worker.actor.loss_agg_mode=token-mean",
            "algorithm.dynamic_sampling=true",
            "algorithm.overlong_buffer=32",
        ),
    ),
}


@dataclass(frozen=True)
class ToyPaths:
    """The folders that the runs read, and the one that they write."""

    policy: Path
    tracker: Path
    world: Path
    output: Path

    @property
    def side(self) -> int:
        """Side in pixels of a frame of 16 tokens, which is a multiple of 28 or 32 for the policy's family."""
        return FRAME_TOKENS * read_model_info(self.policy).pixel_multiple

    @property
    def response_tokens(self) -> int:
        """The length limit of answers, by the policy's coordinates."""
        relative = read_model_info(self.policy).coordinate_range is not None
        return RELATIVE_TOKENS if relative else recipe().data.max_response_length

    @property
    def random_policy(self) -> Path:
        return self.output / "random_policy"

    def tracker_files(self) -> tuple[Path, Path]:
        """The tiny SAM 2's YAML and weights, safetensors before `.pt`.

        Raises:
            SystemExit: the folder has no weights.
        """
        weights = [self.tracker / f"sam2_tiny.{suffix}" for suffix in ("safetensors", "pt")]
        for path in weights:
            if path.is_file():
                return self.tracker / "sam2_tiny.yaml", path
        raise SystemExit(f"no tracker in {self.tracker}: neither {' nor '.join(path.name for path in weights)}")


def training_overrides(experiment: Experiment, seed: int, steps: int, paths: ToyPaths) -> list[str]:
    """The overrides of a run's training."""
    assert experiment.program is not None
    policy = paths.random_policy if experiment.random_init else paths.policy
    overrides = [
        f"config={CONFIGS[experiment.program]}",
        f"worker.actor.model.model_path={policy}",
        f"data.seed={seed}",
        f"trainer.max_steps={steps}",
        "trainer.total_episodes=1000",
        "trainer.load_checkpoint_path=latest",
        "trainer.test_freq=-1",
        "trainer.save_freq=12",
    ]
    if experiment.program == GRPO:
        sam2_config, sam2_checkpoint = paths.tracker_files()
        overrides += [f"data.train_files={paths.world / 'ReVOS'}"]
        overrides += [f"worker.reward.sam2_config={sam2_config}", f"worker.reward.sam2_checkpoint={sam2_checkpoint}"]
    else:
        grpo = recipe()
        samples = grpo.data.rollout_batch_size * grpo.worker.rollout.n
        overrides += [f"data.rollout_batch_size={samples}", f"worker.actor.global_batch_size={samples}"]
    if paths.side != recipe().data.keyframe_resize:  # a policy of another family
        overrides += [f"data.keyframe_resize={paths.side}", f"data.max_response_length={paths.response_tokens}"]
    return overrides + list(experiment.overrides)


def evaluation_overrides(policy: Path, output: Path, limit: int | None, paths: ToyPaths) -> list[str]:
    """The options of an evaluation at the recipe's sizes; several of them fit on one GPU."""
    data, (sam2_config, sam2_checkpoint) = recipe().data, paths.tracker_files()
    options = {
        "benchmark": "revos",
        "model_path": policy,
        "data_path": paths.world / "ReVOS",
        "output_path": output,
        "sam2_config": sam2_config,
        "sam2_checkpoint": sam2_checkpoint,
        "keyframe_resize": paths.side,
        "prompt_template": data.prompt_template,
        "sampled_frames": EVALUATED_FRAMES,
        "max_prompt_length": data.max_prompt_length,
        "max_response_length": paths.response_tokens,
        "dtype": "float32",
        "batch_size": 256,
        "workers": 1,
        "gpu_memory_utilization": 0.05,
        "kv_cache_gib": 1,
        "enforce_eager": True,
    }
    return [f"{key}={value}" for key, value in options.items()] + ([] if limit is None else [f"limit={limit}"])


def recipe() -> Config:
    """The configuration of `configs/toy/grpo.yaml`."""
    return load_config([f"config={CONFIGS[GRPO]}"])
