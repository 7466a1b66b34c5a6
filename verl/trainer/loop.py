"""What GRPO and fine-tuning share: steps, validation, checkpoints, figures, and going on after an interruption."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from verl.config import Config
from verl.protocol import Engine, GroupRequest
from verl.trainer.checkpoint import load_checkpoint, save_checkpoint
from verl.trainer.data_order import DataOrder, share_out
from verl.trainer.plan import Plan
from verl.trainer.prompt_lengths import PromptLengths
from verl.trainer.run_log import RunLog
from verl.trainer.step_metrics import Clock


@dataclass
class Prompts:
    """The prompts of a run.

    Attributes:
        order: of the training prompts.
        lengths: their tokens, for balancing.
        validation: the prompts of a validation; empty: there is none.
        val_lengths: their tokens.
    """

    order: DataOrder
    lengths: PromptLengths
    validation: list[GroupRequest]
    val_lengths: PromptLengths


class Loop(ABC):
    """Runs `step` until the plan is done. The state that a checkpoint keeps is the step, the place in the data and the
    engine's own.

    Args:
        config: the run's configuration.
        plan: steps and checkpoint, settled before the workers started.
        engine: the workers.
        prompts: what is trained on and validated with.
        run_log: where figures go.
    """

    learns_responses: ClassVar[bool] = False  # whether the data's own responses are trained on

    def __init__(self, config: Config, plan: Plan, engine: Engine, prompts: Prompts, run_log: RunLog) -> None:
        self.config, self.plan, self.engine, self.prompts, self.run_log = config, plan, engine, prompts, run_log
        self.clock = Clock()
        self.done = 0  # steps of the run so far, those before its checkpoint too

    @abstractmethod
    def step(self) -> dict[str, float]:
        """One training step; gives its figures."""

    @abstractmethod
    def validate(self, step: int) -> dict[str, float]:
        """A validation; gives its figures, under `val/`."""

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
                figures = self.step()
            self.done = step
            if self.plan.validates(step):
                figures |= self.validate(step)
            if self.plan.saves(step):
                with self.clock("save"):
                    self.save(step)
            self.run_log.metrics(step, figures | self.count_skipped() | self.clock.read())

    def count_skipped(self) -> dict[str, float]:
        """With data.on_bad_sample=skip how many samples were left out since the run was started; the log names them."""
        if self.config.data.on_bad_sample != "skip":
            return {}
        skipped = self.engine.skipped()
        self.run_log.skipped(skipped)
        return {"data/skipped": float(len(skipped))}

    def save(self, step: int) -> None:
        """Writes a checkpoint of the workers and of this loop."""
        trainer = self.config.trainer
        state = {"order": self.prompts.order.state_dict(), "config": self.plan.config}
        save_checkpoint(self.engine, trainer.save_checkpoint_path or "", step, state, trainer.save_limit)

    def share(self, requests: Sequence[GroupRequest], lengths: PromptLengths) -> list[list[GroupRequest]]:
        """Balances prompts over the engine's places."""
        return share_out(requests, [lengths(request) for request in requests], self.engine.places)
