"""What GRPO and fine-tuning share: steps, validation, checkpoints, metrics, and resuming after an interruption."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import ClassVar

from verl.config import Config
from verl.metric_types import Metrics
from verl.protocol import Engine, GroupAdvantages, GroupRequest, GroupResult
from verl.trainer.checkpoint import load_checkpoint, save_checkpoint
from verl.trainer.data_order import balance_by_length
from verl.trainer.plan import Plan
from verl.trainer.prompt_data import Prompts
from verl.trainer.prompt_lengths import PromptLengths
from verl.trainer.rollout_log import choose_groups, question_text, rollout_rows
from verl.trainer.run_log import RunLog
from verl.trainer.step_metrics import Clock


class Loop(ABC):
    """Runs `step` until the plan is done. A checkpoint keeps the step, the position in the data and the engine's state.

    Args:
        config: the run's configuration.
        plan: its steps and checkpoint.
        engine: the workers.
        prompts: what is trained on and validated with.
        run_log: where metrics go.
    """

    trains_on_targets: ClassVar[bool] = False  # whether the data's own responses are trained on

    def __init__(self, config: Config, plan: Plan, engine: Engine, prompts: Prompts, run_log: RunLog) -> None:
        self.config, self.plan, self.engine, self.prompts, self.run_log = config, plan, engine, prompts, run_log
        self.clock = Clock()
        self.done = 0  # steps of the run so far, those before its checkpoint too

    @abstractmethod
    def step(self) -> Metrics:
        """One training step; returns its metrics."""

    @abstractmethod
    def validate(self, step: int) -> Metrics:
        """A validation; returns its metrics, under `val/`."""

    def fit(self) -> None:
        """Runs every step of the plan, the last one too."""
        trainer, start = self.config.trainer, 0
        if self.plan.checkpoint is not None:
            state = load_checkpoint(self.engine, self.plan.checkpoint)
            self.prompts.order.load_state_dict(state["order"])
            start = self.done = state["step"]
        if trainer.val_only or (trainer.val_before_train and start == 0):
            self.run_log.metrics(start, self.validate(start) | self.count_skipped() | self.clock.read())
        if trainer.val_only:
            return
        for step in range(start + 1, self.plan.steps + 1):
            with self.clock("step"):
                metrics = self.step()
            self.done = step
            if self.plan.validates(step):
                metrics |= self.validate(step)
            if self.plan.saves(step):
                with self.clock("save"):
                    self.save(step)
            self.run_log.metrics(step, metrics | self.count_skipped() | self.clock.read())

    def count_skipped(self) -> Metrics:
        """With data.on_bad_sample=skip how many samples were left out since the run was started; the log names them."""
        if self.config.data.on_bad_sample != "skip":
            return {}
        skipped = self.engine.skipped()
        self.run_log.record_skipped(skipped)
        return {"data/skipped": float(len(skipped))}

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
        requests = [validated[each.uid] if validation else self.prompts.order.request(each.uid) for each in chosen]
        own = {each.uid: each for each in advantages or ()}
        with self.clock("log_rollouts"):
            drawn = self.engine.draw(
                [(request, group.responses) for request, group in zip(requests, chosen)],
                str(self.run_log.rollout_folder(step)),
                validation,
            )
            rows = []
            for request, group, pictures in zip(requests, chosen, drawn):
                messages, _ = lengths.data.messages_and_sizes(request.index, request.seed)
                question, phase = question_text(messages), "validation" if validation else "train"
                rows += rollout_rows(step, phase, group, question, own.get(group.uid), pictures)
            self.run_log.rollouts(step, rows)

    def save(self, step: int) -> None:
        """Writes a checkpoint of the workers and of this loop."""
        trainer = self.config.trainer
        state = {"order": self.prompts.order.state_dict(), "config": asdict(self.config)}
        save_checkpoint(self.engine, trainer.save_checkpoint_path or "", step, state, trainer.save_limit)

    def balance(self, requests: Sequence[GroupRequest], lengths: PromptLengths) -> list[list[GroupRequest]]:
        """One batch per replica, of about as many prompt tokens each."""
        return balance_by_length(requests, [lengths(request) for request in requests], self.engine.replicas)
