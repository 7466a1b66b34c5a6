"""One GPU's worker: what `verl.protocol.TrainingBackend` asks of a rank's groups.

A group stays here from its rollout to its drop: pixels are read and turned into patches once, and what leaves the
worker are `verl.protocol` messages. `verl.workers.ray_backend.RayBackend` leads the workers; this class knows no Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from itertools import repeat
from pathlib import Path

import torch

from verl.algorithms.advantages import required_inputs
from verl.metric_types import Metrics
from verl.models.packing import TokenizedGroup
from verl.protocol import Example, GroupAdvantages, GroupRequest, GroupResult
from verl.workers.group_rollout import GroupRollout, LoadedExample
from verl.workers.micro_batches import StoredGroup
from verl.workers.prompt_builder import TokenizedPrompt
from verl.workers.rollout_pictures import save_pictures
from verl.workers.sample_errors import wait_for_sample
from verl.workers.scoring_thread import GroupCompletions, PendingGroup
from verl.workers.worker_base import WorkerBase


class Worker(WorkerBase):
    """One rank. Methods named as those of `verl.protocol.TrainingBackend` do that for this rank's groups."""

    # -- GRPO

    def rollout(self, requests: Sequence[GroupRequest], validation: bool = False) -> Metrics:
        """Generates the groups of this replica and begins to score each as soon as it is complete.

        Every worker of a tensor-parallel engine gets the same requests, and keeps an equal share of the groups.
        """
        if self.rollout_engine is None:
            raise RuntimeError("this run has no rollout engine: it was started without a scorer")
        greedy = "baselines" in required_inputs(self.config.algorithm.adv_estimator) and not validation
        parallel = self.config.worker.rollout.tensor_parallel_size
        local_uids = [request.uid for request in requests[self.rank % parallel :: parallel]]
        self.scoring.register(local_uids)
        data, timeout = self.validation if validation else self.data, self.config.trainer.phase_timeout
        # read by threads while the engine wakes, unless they were prefetched
        prompts = self.prompt_loader.take(data, requests)
        with self.enter_rollout() as metrics:
            for request, loading in zip(requests, prompts):
                if request.uid in local_uids:
                    loading.add_done_callback(partial(self._prepare_scoring, request.uid))
            group_rollout = GroupRollout(
                self.rollout_engine, data, requests, prompts, local_uids, validation, greedy, timeout
            )
            group_rollout.run(self._store)
        return metrics

    def _prepare_scoring(self, uid: int, loading: Future[LoadedExample]) -> None:
        if loading.exception() is None:  # else the rollout raises it
            self.scoring.prepare(uid, loading.result().example)

    def prefetch_rollout_batch(self, requests: Sequence[GroupRequest]) -> None:
        self.prompt_loader.prefetch(self.data, requests)

    def _store(self, uid: int, example: Example, prompt: TokenizedPrompt, completions: GroupCompletions) -> None:
        """Keeps a complete group and hands it to the scorer."""
        ids = [torch.tensor(response.ids, dtype=torch.int64) for response in completions.responses]
        group = TokenizedGroup(prompt.ids, ids, prompt.pixel_values, prompt.image_grid_thw)
        log_probs = [response.log_probs for response in completions.responses]
        self.groups[uid] = StoredGroup(group, log_probs, sample_id=example.sample_id)
        self.scoring.submit(PendingGroup(uid, example, len(prompt.ids), completions))

    def collect_scores(self, uids: Sequence[int]) -> list[GroupResult]:
        return self.scoring.results(uids)

    def draw_pictures(
        self, groups: Sequence[tuple[GroupRequest, Sequence[str]]], folder: str, validation: bool = False
    ) -> list[list[dict[str, str]]]:
        """Draws the responses of some groups, whichever worker generated them; reads the examples anew."""
        assert self.task.draw_pictures is not None
        data, drawn = self.validation if validation else self.data, []
        for request, responses in groups:
            example = data.example(request.index, request.seed)
            try:
                pictures = self.scoring.run(self.task.draw_pictures, self.scoring.scorer, example, responses)
            except Exception as error:
                what = f"{example.sample_id}: its rollouts could not be drawn (trainer.log_rollouts_freq)"
                raise RuntimeError(f"{what}: {type(error).__name__}: {error}") from error
            drawn.append(save_pictures(Path(folder), f"{request.uid}", pictures))
        return drawn

    def compute_ref_log_probs(self, uids: Sequence[int]) -> Metrics:
        assert self.ref_policy is not None
        stored = self._stored(uids)
        with self.enter_phase("ref", wait_for_scores=False) as metrics:
            for each, values in zip(stored, self.ref_policy.log_probs([each.group for each in stored])):
                each.ref_log_probs = values
        return metrics

    def compute_old_log_probs(self, uids: Sequence[int]) -> Metrics:
        stored = self._stored(uids)
        with self.enter_phase("old_log_prob", wait_for_scores=False) as metrics:
            for each, values in zip(stored, self.actor.log_probs([each.group for each in stored])):
                each.old_log_probs = values
        return metrics

    def compute_self_certainty(self, uids: Sequence[int]) -> dict[int, list[float]]:
        groups = [each.group for each in self._stored(uids)]
        with self.enter_phase("self_certainty"):
            values = self.actor.log_probs(groups, self_certainty=True)
        local_uids = [uid for uid in uids if uid in self.groups]
        return {uid: [response.mean().item() for response in responses] for uid, responses in zip(local_uids, values)}

    def update(self, advantages: Sequence[GroupAdvantages]) -> Metrics:
        stored = [self.groups[each.uid] for each in advantages]
        with self.enter_phase("update") as memory:
            metrics = self.actor.update(stored, [each.advantages for each in advantages])
        self._record_nonfinite_samples(metrics, [each.sample_id for each in stored])
        self.weights_stale = True
        return metrics | memory

    def _record_nonfinite_samples(self, metrics: Metrics, samples: Sequence[str]) -> None:
        """Keeps the names of an update's samples that made it not finite; where no loss tells, of all of them."""
        if metrics["actor/skipped_updates"]:
            self.nonfinite_samples = [samples[i] for i in self.actor.nonfinite_groups] or list(samples)

    def take_nonfinite_samples(self) -> list[str]:
        taken, self.nonfinite_samples = self.nonfinite_samples, []
        return taken

    def drop(self, uids: Sequence[int]) -> None:
        for uid in uids:
            self.groups.pop(uid, None)
        self.scoring.drop(uids)

    def _stored(self, uids: Sequence[int]) -> list[StoredGroup]:
        return [self.groups[uid] for uid in uids if uid in self.groups]

    # -- supervised fine-tuning

    def prefetch_sft_batch(self, requests: Sequence[GroupRequest]) -> None:
        (self.process_prefetcher or self.thread_prefetcher).prefetch(tuple(requests))

    def fine_tune(self, requests: Sequence[GroupRequest]) -> Metrics:
        with self.enter_phase("update") as memory:
            if self.process_prefetcher is not None:
                metrics = self.actor.fine_tune_packed(self.process_prefetcher.take(tuple(requests)))
            else:
                metrics = self.actor.fine_tune(self.thread_prefetcher.take(tuple(requests)))
        self._record_nonfinite_samples(metrics, [self.data.sample_id(request.index) for request in requests])
        self.weights_stale = True
        return metrics | memory

    def evaluate_loss(self, requests: Sequence[GroupRequest]) -> Metrics:
        with self.enter_phase("evaluation") as memory:
            loading = [self.thread_prefetcher.submit(self.validation, request) for request in requests]
            timeout = self.config.trainer.phase_timeout
            groups = [wait_for_sample(*each, timeout) for each in zip(loading, repeat(self.validation), requests)]
            metrics = self.actor.evaluate_loss(groups)
        return metrics | memory

    def skipped_samples(self) -> dict[str, str]:
        here = getattr(self.data, "skipped_samples", {}) | getattr(self.validation, "skipped_samples", {})
        return here | (self.process_prefetcher.skipped_samples if self.process_prefetcher is not None else {})
