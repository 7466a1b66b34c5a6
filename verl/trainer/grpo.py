"""Group Relative Policy Optimization (arXiv 2402.03300): sample, rollout, ref, score, advantage, update, log,
save.

Deviates from the published loop where that loses data: the last step runs, a resumed run equals the uninterrupted one,
and a group whose score could not be computed is left out instead of counting as 0.

    python3 -m verl.trainer.main config=configs/toy/demo.yaml
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from verl.algorithms.advantages import required_inputs
from verl.algorithms.dapo import has_score_variance
from verl.errors import TrainingError, abbreviate
from verl.metric_types import Metrics, reduce_over_step
from verl.models.families import load_family
from verl.protocol import GroupRequest, GroupResult
from verl.trainer.collapse_detector import CollapseDetector
from verl.trainer.data_sampler import batched, split_evenly
from verl.trainer.group_advantages import compute_group_advantages
from verl.trainer.prompt_lengths import PromptLengths
from verl.trainer.rollout_log import histogram_values
from verl.trainer.step_metrics import group_metrics, has_scores
from verl.trainer.throughput import device_peak, throughput_metrics
from verl.trainer.training_loop import TrainingLoop

log = logging.getLogger(__name__)


class GRPO(TrainingLoop):
    """One step is `step`; `TrainingLoop` repeats, logs and saves it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        model, trainer = self.config.worker.actor.model, self.config.trainer
        adapter = model.lora_rank > 0
        self.flops = load_family(model.model_path, **model.override_config).flops()
        self.update_flops = self.flops.with_backward(adapter, vision=not (adapter or model.freeze_vision_tower))
        self.collapse = CollapseDetector(self.config.algorithm.collapse_patience)
        self.uses_self_certainty = "self_certainty" in required_inputs(self.config.algorithm.adv_estimator)
        peak = device_peak(self.backend.device_name)
        self.peak = peak and peak * trainer.nnodes * trainer.n_gpus_per_node

    def step(self) -> Metrics:
        """One step. Its log-probabilities are computed inside `collect_batch`, before the scores are collected, so that
        the last groups are scored meanwhile; with dynamic sampling after it, for the groups that it keeps.
        """
        timer, actor = self.timer, self.config.worker.actor

        groups, seen, metrics = self.collect_batch()
        uids = [group.uid for group in groups]

        if self.config.algorithm.dynamic_sampling:  # else `rollout_and_score` has done it
            metrics |= self.compute_log_probs(uids)

        with timer("advantage"):
            self_certainty = self.backend.compute_self_certainty(uids) if self.uses_self_certainty else None
            limit = self.config.data.max_response_length
            advantages = compute_group_advantages(groups, self.config.algorithm, limit, self_certainty)

        self.run_log.histograms(self.global_step + 1, histogram_values(seen, advantages))
        if self.plan.logs_rollouts(self.global_step + 1):
            self.log_rollouts(self.global_step + 1, groups, advantages)

        with timer("update"):
            self.prefetch_rollout_batch()
            # with fewer groups than the batch has the updates stay as many and of one size: each is a mean over its
            # groups at the full learning rate, so that a small last one would move the weights as far as a full one
            planned = self.config.data.rollout_batch_size // actor.global_batch_size
            minibatches = split_evenly(advantages, planned)
            updates = [
                self.check_update(self.backend.update(minibatch))
                for _ in range(actor.ppo_epochs)
                for minibatch in minibatches
            ]

        self.backend.drop(uids)
        seen_metrics = group_metrics(seen)
        metrics |= reduce_over_step(updates) | seen_metrics | self.collapse.update(seen_metrics)
        return metrics | self.perf_metrics(seen, groups)

    def state_dict(self) -> dict[str, Any]:
        return {"collapse": self.collapse.streaks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.collapse.streaks = {kind: state["collapse"].get(kind, 0) for kind in self.collapse.streaks}

    def collect_batch(self) -> tuple[list[GroupResult], list[GroupResult], Metrics]:
        """Draws, generates and scores a batch; returns the groups to train on, all groups seen, and metrics.

        With dynamic sampling (DAPO, arXiv 2503.14476) groups whose scores are all equal are replaced, over a few
        rounds.
        """
        algorithm, batch = self.config.algorithm, self.config.data.rollout_batch_size
        selected: list[GroupResult] = []
        seen: list[GroupResult] = []
        rounds: list[Metrics] = []
        for _ in range(algorithm.max_sampling_rounds if algorithm.dynamic_sampling else 1):
            requests = self.prompts.sampler.draw(batch - len(selected))
            groups, metrics = self.rollout_and_score(requests, self.prompts.lengths)
            rounds.append(metrics)
            useful = [
                group
                for group in groups
                if has_scores(group) and (not algorithm.dynamic_sampling or has_score_variance(group.scores))
            ]
            self.backend.drop(sorted({group.uid for group in groups} - {group.uid for group in useful}))
            selected, seen = selected + useful, seen + groups
            if len(selected) == batch:
                break
        self.check_scored(seen)
        if len(selected) < batch:
            message = "this step trains on %d groups instead of %d: the others have no score, or equal scores"
            log.warning(message, len(selected), batch)
        return selected, seen, reduce_over_step(rounds)

    def check_scored(self, groups: Sequence[GroupResult]) -> None:
        """Names the groups whose score could not be computed. Raises TrainingError where they are more than
        `algorithm.max_frac_nan`.
        """
        names = [group.sample_id for group in groups if not has_scores(group)]
        if not names:
            return
        limit = self.config.algorithm.max_frac_nan
        text = f"{len(names)} of {len(groups)} groups have no score (NaN) and are left out: {abbreviate(names)}"
        if len(names) > limit * len(groups):
            raise TrainingError(f"{text}; algorithm.max_frac_nan={limit} allows no more")
        log.warning(text)

    def rollout_and_score(
        self, requests: Sequence[GroupRequest], lengths: PromptLengths, validation: bool = False
    ) -> tuple[list[GroupResult], Metrics]:
        """Rollout and score. Training computes log-probabilities while the last groups are scored, unless dynamic
        sampling may drop some of them.
        """
        kind, uids = "validation " if validation else "", [request.uid for request in requests]
        with self.timer(f"{kind}rollout"):
            metrics = self.backend.rollout(self.assign_to_replicas(requests, lengths), validation=validation)
        if not (validation or self.config.algorithm.dynamic_sampling):
            metrics |= self.compute_log_probs(uids)
        with self.timer(f"{kind}score_wait"):
            return self.backend.collect_scores(uids), metrics

    def assign_to_replicas(self, requests: Sequence[GroupRequest], lengths: PromptLengths) -> list[list[GroupRequest]]:
        """The requests of each replica. A minibatch is balanced alone, so that replicas do not change its members."""
        batches: list[list[GroupRequest]] = [[] for _ in range(self.backend.replicas)]
        for minibatch in batched(requests, self.config.worker.actor.global_batch_size):
            for batch, chunk in zip(batches, self.balance_over_replicas(minibatch, lengths)):
                batch.extend(chunk)
        return batches

    def compute_log_probs(self, uids: Sequence[int]) -> Metrics:
        """The passes that the update needs: the reference model's for a KL term, the actor's for several updates."""
        passes, metrics = self.plan.passes_per_group, Metrics()
        if uids and passes["ref"]:
            with self.timer("ref"):
                metrics |= self.backend.compute_ref_log_probs(uids)
        if uids and passes["old_log_prob"]:
            with self.timer("old_log_prob"):
                metrics |= self.backend.compute_old_log_probs(uids)
        return metrics

    def prefetch_rollout_batch(self) -> None:
        """Has the next step's prompts loaded while this one's update runs."""
        if self.global_step + 1 < self.plan.steps:
            requests = self.prompts.sampler.peek(self.config.data.rollout_batch_size)
            self.backend.prefetch_rollout_batch(self.assign_to_replicas(requests, self.prompts.lengths))

    def validate(self, step: int) -> Metrics:
        """Scores answers to the validation prompts."""
        groups: list[GroupResult] = []
        for requests in batched(self.prompts.validation, self.config.data.val_batch_size):
            results, _ = self.rollout_and_score(requests, self.prompts.val_lengths, validation=True)
            self.backend.drop([group.uid for group in results])
            groups += results
        self.run_log.val_generations(step, groups[: self.config.trainer.val_generations_to_log_to_wandb])
        if self.plan.log_rollouts_freq > 0:
            self.log_rollouts(step, groups)
        return group_metrics(groups, "val/")

    def perf_metrics(self, seen: Sequence[GroupResult], trained: Sequence[GroupResult]) -> Metrics:
        """Tokens per second and MFU of the step's phases so far."""
        sampler, lengths = self.prompts.sampler, self.prompts.lengths
        images = {group.uid: lengths.image_sizes(sampler.request(group.uid)) for group in seen}
        return throughput_metrics(
            seen,
            trained,
            images,
            self.timer.seconds,
            self.plan.passes_per_group,
            self.flops,
            self.update_flops,
            self.peak,
        )
