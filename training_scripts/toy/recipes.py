"""What is different in each experiment of the toy world, and the commands that run it.

A run is `verl.trainer.main` (or `verl.trainer.sft`) with `configs/toy/grpo.yaml` (or `configs/toy/sft.yaml`) and a few
words, then `eval.evaluate` on videos that nothing was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from verl.config import Config, load_config

GRPO, SFT = "verl.trainer.main", "verl.trainer.sft"
CONFIGS = {GRPO: "configs/toy/grpo.yaml", SFT: "configs/toy/sft.yaml"}
BEFORE = "sft"  # the run that is the policy as it is, evaluated only
EVALUATED_FRAMES = (
    5  # as many as training shows by its rule; with the usual 8 a small policy meets positions that it has never seen
)


@dataclass(frozen=True)
class Experiment:
    """What is different from the recipe.

    Attributes:
        title: the row's name in the tables.
        words: of the command line.
        program: what trains; None evaluates the policy as it is.
        random: starts from random weights instead of the policy's.
    """

    title: str
    words: tuple[str, ...] = ()
    program: str | None = GRPO
    random: bool = False


def _reward(name: str, *further: str) -> tuple[str, ...]:
    return (f"worker.reward.compute_score={name}", *further)


EXPERIMENTS: dict[str, Experiment] = {
    BEFORE: Experiment("SFT, where all start", program=None),
    "grpo": Experiment("GRPO, the published recipe"),
    "control": Experiment("more SFT, the same samples and steps", ("sft.num_workers=4",), program=SFT),
    "no_keyframe": Experiment("without the keyframe part", _reward("no_keyframe")),
    "no_spatial": Experiment("without the spatial part", _reward("ablation_keyframe_sft_only_sam")),
    "no_sam2": Experiment("without SAM 2", _reward("no_sam2")),
    "no_kl": Experiment("without KL", ("worker.actor.use_kl_loss=false",)),
    "no_sft": Experiment("without SFT, from random weights", random=True),
    "strict": Experiment("veason_strict, absent targets shown", _reward("veason_strict", "data.include_absent=true")),
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
class Places:
    """What the runs read and where they write."""

    policy: Path
    tracker: Path
    world: Path
    output: Path

    @property
    def random_policy(self) -> Path:
        return self.output / "random_policy"

    def tracker_files(self) -> tuple[Path, Path]:
        """The micro SAM 2's YAML and weights; safetensors where both kinds are there.

        Raises:
            SystemExit: there are none.
        """
        weights = [self.tracker / f"sam2_tiny.{suffix}" for suffix in ("safetensors", "pt")]
        for path in weights:
            if path.is_file():
                return self.tracker / "sam2_tiny.yaml", path
        raise SystemExit(f"no tracker in {self.tracker}: neither {' nor '.join(path.name for path in weights)}")


def training_words(experiment: Experiment, seed: int, steps: int, places: Places) -> list[str]:
    """The words of a run's training command."""
    assert experiment.program is not None
    start = places.random_policy if experiment.random else places.policy
    words = [
        f"config={CONFIGS[experiment.program]}",
        f"worker.actor.model.model_path={start}",
        f"data.seed={seed}",
        f"trainer.max_steps={steps}",
        "trainer.total_episodes=1000",
        "trainer.load_checkpoint_path=latest",
    ]
    if experiment.program == GRPO:
        sam2_config, sam2_checkpoint = places.tracker_files()
        words += [f"data.train_files={places.world / 'ReVOS'}"]
        words += [f"worker.reward.sam2_config={sam2_config}", f"worker.reward.sam2_checkpoint={sam2_checkpoint}"]
    else:
        grpo = recipe()
        samples = grpo.data.rollout_batch_size * grpo.worker.rollout.n
        words += [f"data.rollout_batch_size={samples}", f"worker.actor.global_batch_size={samples}"]
    return words + list(experiment.words)


def evaluation_words(policy: Path, output: Path, limit: int | None, places: Places) -> list[str]:
    """The words of an evaluation, at the sizes of the recipe, sparing of the GPU that it shares."""
    data, (sam2_config, sam2_checkpoint) = recipe().data, places.tracker_files()
    words = {
        "benchmark": "revos",
        "model_path": policy,
        "data_path": places.world / "ReVOS",
        "output_path": output,
        "sam2_config": sam2_config,
        "sam2_checkpoint": sam2_checkpoint,
        "keyframe_resize": data.keyframe_resize,
        "prompt_template": data.prompt_template,
        "sampled_frames": EVALUATED_FRAMES,
        "max_prompt_length": data.max_prompt_length,
        "max_response_length": data.max_response_length,
        "dtype": "float32",
        "batch_size": 256,
        "workers": 1,
        "gpu_memory_utilization": 0.05,
        "kv_cache_gib": 1,
        "enforce_eager": True,
    }
    return [f"{key}={value}" for key, value in words.items()] + ([] if limit is None else [f"limit={limit}"])


def recipe() -> Config:
    """The recipe of `configs/toy/grpo.yaml`."""
    return load_config([f"config={CONFIGS[GRPO]}"])
