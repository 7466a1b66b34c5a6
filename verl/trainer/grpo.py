"""Group Relative Policy Optimization (arXiv:2402.03300): sample, rollout, score, reference, advantage, update, log,
save.

Deviates from the published loop where that loses data: the last step runs, a resumed run equals the uninterrupted one,
and a group whose score could not be computed is left out instead of counting as 0.

    python3 -m verl.trainer.main config=configs/toy/demo.yaml
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig

from verl.algorithms.advantages import needs
from verl.algorithms.dapo import informative
from verl.protocol import GroupRequest, GroupResult
from verl.trainer.advantages import group_advantages
from verl.trainer.data_order import batches
from verl.trainer.loop import Loop
from verl.trainer.prompt_lengths import PromptLengths
from verl.trainer.step_metrics import group_metrics, is_computed, over_parts
from verl.trainer.throughput import ModelFlops, device_peak, throughput_metrics

log = logging.getLogger(__name__)


class GRPO(Loop):
    """One step is `step`; `Loop` repeats, logs and saves it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.flops = ModelFlops.of(AutoConfig.from_pretrained(self.config.worker.actor.model.model_path or ""))
        model = self.config.worker.actor.model
        adapter = model.lora_rank > 0
        self.update_flops = self.flops.with_backward(adapter, tower=not (adapter or model.freeze_vision_tower))
        self.needs_certainty = "certainty" in needs(self.config.algorithm.adv_estimator)
        peak = device_peak(self.engine.device_name)
        self.peak = peak and peak * self.plan.workers

    def step(self) -> dict[str, float]:
        clock, actor = self.clock, self.config.worker.actor

        groups, seen, figures = self.sample()

        if self.plan.passes["reference"] and groups:
            with clock("reference"):
                figures |= self.engine.reference([group.uid for group in groups], old=self.plan.updates_per_step > 1)

        with clock("advantage"):
            certainty = self.engine.certainty([group.uid for group in groups]) if self.needs_certainty else None
            advantages = group_advantages(
                groups, self.config.algorithm, self.config.data.max_response_length, certainty
            )

        with clock("update"):
            minibatches = batches(advantages, actor.global_batch_size)
            updates = [self.engine.update(minibatch) for _ in range(actor.ppo_epochs) for minibatch in minibatches]

        self.engine.drop([group.uid for group in groups])
        return figures | over_parts(updates) | group_metrics(seen) | self.rates(seen, groups)

    def sample(self) -> tuple[list[GroupResult], list[GroupResult], dict[str, float]]:
        """Draws, generates and scores a batch; gives the groups to train on, all groups seen, and figures.

        With dynamic sampling (DAPO, arXiv:2503.14476) groups whose scores are all equal are replaced, over a few
        rounds.
        """
        algorithm, batch = self.config.algorithm, self.config.data.rollout_batch_size
        kept: list[GroupResult] = []
        seen: list[GroupResult] = []
        rounds: list[dict[str, float]] = []
        for _ in range(algorithm.max_sampling_rounds if algorithm.dynamic_sampling else 1):
            requests = self.prompts.order.draw(batch - len(kept))
            groups, figures = self.generate(requests, self.prompts.lengths)
            rounds.append(figures)
            useful = [
                group
                for group in groups
                if is_computed(group) and (not algorithm.dynamic_sampling or informative(group.totals))
            ]
            self.engine.drop(sorted({group.uid for group in groups} - {group.uid for group in useful}))
            kept, seen = kept + useful, seen + groups
            if len(kept) == batch:
                break
        if len(kept) < batch:
            log.warning(
                "this step trains on %d groups instead of %d: the others have no score, or the same one throughout",
                len(kept),
                batch,
            )
        return kept, seen, over_parts(rounds)

    def generate(
        self, requests: Sequence[GroupRequest], lengths: PromptLengths, validation: bool = False
    ) -> tuple[list[GroupResult], dict[str, float]]:
        """Rollout and score. Each minibatch is balanced by itself, so its members do not depend on the number of
        places.
        """
        shares: list[list[GroupRequest]] = [[] for _ in range(self.engine.places)]
        for minibatch in batches(requests, self.config.worker.actor.global_batch_size):
            for share, part in zip(shares, self.share(minibatch, lengths)):
                share.extend(part)
        kind = "validation " if validation else ""
        with self.clock(f"{kind}rollout"):
            figures = self.engine.rollout(shares, validation=validation)
        with self.clock(f"{kind}score"):
            return self.engine.score([request.uid for request in requests]), figures

    def validate(self, step: int) -> dict[str, float]:
        """Scores answers to the validation prompts."""
        groups: list[GroupResult] = []
        for requests in batches(self.prompts.validation, self.config.data.val_batch_size):
            results, _ = self.generate(requests, self.prompts.val_lengths, validation=True)
            self.engine.drop([group.uid for group in results])
            groups += results
        self.run_log.generations(step, groups[: self.config.trainer.val_generations_to_log_to_wandb])
        return group_metrics(groups, "val/")

    def rates(self, seen: Sequence[GroupResult], trained: Sequence[GroupResult]) -> dict[str, float]:
        """Tokens per second and MFU of the step's stages so far."""
        order, lengths = self.prompts.order, self.prompts.lengths
        patches = {group.uid: lengths.patches(order.request(group.uid)) for group in seen}
        return throughput_metrics(
            seen, trained, patches, self.clock.seconds, self.plan.passes, self.flops, self.update_flops, self.peak
        )
