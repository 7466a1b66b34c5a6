"""What a run will do, settled before any model is loaded: its steps, its updates, the checkpoint that it resumes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl.config import Config, ConfigError
from verl.trainer.checkpoint_folders import find_checkpoint
from verl.trainer.checkpoint_io import read_state
from verl.trainer.model_fingerprint import check_model_fingerprint, fingerprint_model


@dataclass(frozen=True)
class RunPlan:
    """The steps of a run.

    Attributes:
        steps: training steps of the whole run, resumed ones included.
        updates_per_step: optimizer steps per training step.
        passes_per_group: passes over a group in each phase: "ref" (the reference model), "old_log_prob" (the actor,
            where a step has several updates) and "update" (forward and backward).
        checkpoint: what the run resumes; None starts afresh.
        start_step: steps that the checkpoint already has.
        model_fingerprint: the weights that the run starts from (`fingerprint_model`).
        test_freq, save_freq, log_rollouts_freq: every so many steps; -1 is never.
    """

    steps: int
    updates_per_step: int
    passes_per_group: dict[str, int]
    checkpoint: Path | None
    start_step: int
    test_freq: int
    save_freq: int
    log_rollouts_freq: int = -1
    model_fingerprint: dict[str, Any] = field(default_factory=dict)

    @property
    def updates(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps * self.updates_per_step

    def validates(self, step: int) -> bool:
        """Whether a validation follows this step: every test_freq steps, and after the last."""
        return self.test_freq > 0 and (step % self.test_freq == 0 or step == self.steps)

    def logs_rollouts(self, step: int) -> bool:
        """Whether groups of this training step are logged with pictures."""
        return self.log_rollouts_freq > 0 and step % self.log_rollouts_freq == 0

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows this step: every save_freq steps, and after the last."""
        return step == self.steps or (self.save_freq > 0 and step % self.save_freq == 0)


def make_run_plan(config: Config, samples: int) -> RunPlan:
    """Counts steps and finds the checkpoint to resume.

    Args:
        samples: training samples per episode.

    Raises:
        ConfigError: the data gives no whole batch.
        CheckpointError: see `find_checkpoint` and `check_model_fingerprint`.
    """
    data, trainer, actor = config.data, config.trainer, config.worker.actor
    prompts = trainer.total_episodes * samples
    steps = prompts // data.rollout_batch_size
    if steps == 0:
        raise ConfigError(
            f"data.rollout_batch_size={data.rollout_batch_size} is more than the {prompts} prompts of "
            f"trainer.total_episodes={trainer.total_episodes}"
        )
    if trainer.max_steps is not None:
        steps = min(steps, trainer.max_steps)
    updates = actor.ppo_epochs * (data.rollout_batch_size // actor.global_batch_size)
    checkpoint = find_checkpoint(trainer.load_checkpoint_path, trainer.save_checkpoint_path or "", trainer.resume_mode)
    state: dict[str, Any] = {"step": 0} if checkpoint is None else read_state(checkpoint)
    model_fingerprint = fingerprint_model(actor.model.model_path)
    saved = state.get("model_fingerprint", state.get("initial_model"))  # its earlier name
    check_model_fingerprint(config, saved, model_fingerprint)
    return RunPlan(
        steps=steps,
        updates_per_step=updates,
        passes_per_group={
            "ref": int(actor.with_ref),
            "old_log_prob": int(updates > 1),
            "update": actor.ppo_epochs,
        },
        checkpoint=checkpoint,
        start_step=state["step"],
        test_freq=trainer.test_freq,
        save_freq=trainer.save_freq,
        log_rollouts_freq=trainer.log_rollouts_freq,
        model_fingerprint=model_fingerprint,
    )
