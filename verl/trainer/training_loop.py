"""What GRPO and fine-tuning share: steps, validation, checkpoints, metrics, and resuming after an interruption."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from verl.config import Config
from verl.errors import TrainingError, abbreviate
from verl.metric_types import Metrics
from verl.protocol import GroupAdvantages, GroupRequest, GroupResult, TrainingBackend
from verl.trainer.checkpoint_folders import CheckpointRetention
from verl.trainer.checkpoint_io import check_shared_folder, load_checkpoint, save_checkpoint
from verl.trainer.data_sampler import balance_by_length
from verl.trainer.prompt_data import PromptData
from verl.trainer.prompt_lengths import PromptLengths
from verl.trainer.rollout_log import choose_groups, question_text, rollout_rows
from verl.trainer.run_log import RunLog
from verl.trainer.run_plan import RunPlan
from verl.trainer.step_metrics import PhaseTimer
from verl.trainer.stop_signals import StoppedBySignal, StopSignals

log = logging.getLogger(__name__)


class TrainingLoop(ABC):
    """Runs `step` until the plan is done. A checkpoint keeps the step, the position in the data and the workers' state.

    Args:
        config: the run's configuration.
        plan: its steps and checkpoint.
        backend: the workers.
        prompts: what is trained on and validated with.
        run_log: where metrics go.
    """

    is_supervised: ClassVar[bool] = False  # whether the data's own responses are trained on

    def __init__(
        self, config: Config, plan: RunPlan, backend: TrainingBackend, prompts: PromptData, run_log: RunLog
    ) -> None:
        self.config, self.plan, self.backend, self.prompts, self.run_log = config, plan, backend, prompts, run_log
        self.timer = PhaseTimer()
        self.nonfinite_updates = 0  # in a row
        self.global_step = 0  # steps of the run so far, those before its checkpoint too

    @abstractmethod
    def step(self) -> Metrics:
        """One training step; returns its metrics."""

    @abstractmethod
    def validate(self, step: int) -> Metrics:
        """A validation; returns its metrics, under `val/`."""

    def state_dict(self) -> dict[str, Any]:
        """What this kind of loop keeps in a checkpoint of its own, JSON."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  # not every loop keeps something
        """Takes what `state_dict` gave."""

    def fit(self, stop: StopSignals | None = None) -> None:
        """Runs every step of the plan, the last one too.

        Args:
            stop: a signal ends the run after the step that it comes in, which is saved.

        Raises:
            StoppedBySignal: after such a step, unless it was the last.
        """
        trainer, start, stop = self.config.trainer, 0, stop or StopSignals()
        if self.plan.checkpoint is not None:
            state = load_checkpoint(self.backend, self.plan.checkpoint)
            self.prompts.sampler.load_state_dict(state["order"])
            self.load_state_dict(state["loop"])
            start = self.global_step = state["step"]
            self.run_log.restore(self.plan.checkpoint, state)
        if trainer.val_only or (trainer.val_before_train and start == 0):
            self.run_log.metrics(start, self.validate(start) | self.count_skipped_samples() | self.timer.read())
        if trainer.val_only:
            return
        if start < self.plan.steps:
            check_shared_folder(self.backend, trainer.save_checkpoint_path or "")
        with stop.finishing_steps():
            for step in range(start + 1, self.plan.steps + 1):
                self._run_step(step, stop)
                if stop.requested is not None and step < self.plan.steps:
                    raise StoppedBySignal(stop.requested, f"step {step} is saved; go on with trainer.resume_mode=auto")

    def _run_step(self, step: int, stop: StopSignals) -> None:
        """A step with its validation, checkpoint and metrics. One in which the run is stopped is saved and not
        validated.
        """
        with self.timer("step"):
            metrics = self.step()
        self.global_step = step
        if self.plan.validates(step) and stop.requested is None:
            metrics |= self.validate(step)
        metrics |= self.count_skipped_samples()
        if self.plan.saves(step) or stop.requested is not None:
            row = metrics | self.timer.seconds_so_far()
            with self.timer("save"):
                self.save(step, row)
        self.run_log.metrics(step, metrics | self.timer.read())

    def check_update(self, metrics: Metrics) -> Metrics:
        """Takes the metrics of one update: names the samples of one that was skipped, and gives up after too many.

        Raises:
            TrainingError: trainer.max_nonfinite_updates in a row were not finite.
        """
        if not metrics.get("actor/skipped_updates"):
            self.nonfinite_updates = 0
            return metrics
        self.nonfinite_updates += 1
        names, limit = self.backend.take_nonfinite_samples(), self.config.trainer.max_nonfinite_updates
        text = (
            f"an update of step {self.global_step + 1} was skipped, its loss or gradient is not finite (gradient norm "
            f"{metrics['actor/grad_norm']}, {self.nonfinite_updates} in a row): {abbreviate(names)}"
        )
        if self.nonfinite_updates >= limit:
            raise TrainingError(
                f"{text}; trainer.max_nonfinite_updates={limit} allows no more; the checkpoints are whole"
            )
        log.warning(text)
        return metrics

    def count_skipped_samples(self) -> Metrics:
        """With data.on_bad_sample=skip how many samples were left out since the run was started; the log names them."""
        if self.config.data.on_bad_sample != "skip":
            return {}
        skipped = self.backend.skipped_samples()
        self.run_log.record_skipped_samples(skipped)
        return {"data/skipped_samples": float(len(skipped))}

    def log_rollouts(
        self, step: int, groups: Sequence[GroupResult], advantages: Sequence[GroupAdvantages] | None = None
    ) -> None:
        """Keeps some groups with pictures (trainer.log_rollouts_freq); without advantages they are a validation's."""
        validation = advantages is None
        chosen = choose_groups(groups, self.config.trainer.log_rollouts_groups)
        if not chosen:
            return
        lengths = self.prompts.val_lengths if validation else self.prompts.lengths
        validated = {request.uid: request for request in self.prompts.validation} if validation else {}
        requests = [validated[each.uid] if validation else self.prompts.sampler.request(each.uid) for each in chosen]
        advantages_by_uid = {each.uid: each for each in advantages or ()}
        with self.timer("log_rollouts"):
            drawn = self.backend.draw_pictures(
                [(request, group.responses) for request, group in zip(requests, chosen)],
                str(self.run_log.rollout_folder(step)),
                validation,
            )
            rows = []
            for request, group, pictures in zip(requests, chosen, drawn):
                messages, _ = lengths.data.messages_and_sizes(request.index, request.seed)
                question, split = question_text(messages), "validation" if validation else "train"
                rows += rollout_rows(step, split, group, question, advantages_by_uid.get(group.uid), pictures)
            self.run_log.rollouts(step, rows)

    def save(self, step: int, metrics: Metrics) -> None:
        """Writes a checkpoint of the workers and of this loop; the step's metrics are in it, so that a crash before
        they are logged loses none.
        """
        trainer = self.config.trainer
        state = {
            "order": self.prompts.sampler.state_dict(),
            "loop": self.state_dict(),
            "config": asdict(self.config),
            "model_fingerprint": self.plan.model_fingerprint,
            "metrics": {name: float(value) for name, value in metrics.items()},
            "weights_only": trainer.save_weights_only,
        }
        retention = CheckpointRetention(trainer.save_limit, trainer.best_metric, trainer.best_mode)
        save_checkpoint(self.backend, trainer.save_checkpoint_path or "", step, state, retention)

    def balance_over_replicas(
        self, requests: Sequence[GroupRequest], lengths: PromptLengths
    ) -> list[list[GroupRequest]]:
        """One batch per replica, of about as many prompt tokens each."""
        return balance_by_length(requests, [lengths(request) for request in requests], self.backend.replicas)
