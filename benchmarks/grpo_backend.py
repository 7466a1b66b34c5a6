"""The workers of `benchmarks.grpo_step`: the real ones, which can also follow the published code's schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.grpo_job import GIB, NoReward, SyntheticAnswerScorer, plain_tracker
from benchmarks.grpo_lengths import force_lengths
from grpo_reward.scorer import RewardScorer
from verl.config import Config, override
from verl.metric_types import Metrics
from verl.protocol import Example, GroupAdvantages, Task
from verl.trainer.grpo import GRPO
from verl.trainer.prompt_data import open_prompts
from verl.trainer.run_log import RunLog
from verl.trainer.run_plan import make_run_plan
from verl.workers.micro_batches import StoredGroup
from verl.workers.prompt_builder import TokenizedPrompt
from verl.workers.ray_backend import RayBackend
from verl.workers.scoring_thread import GroupCompletions
from verl.workers.worker import Worker

SINGLE_UIDS = 10_000_000  # uids of responses that are groups of their own begin here


class BenchWorker(Worker):
    """A worker that can also do what the comparisons need."""

    schedule = "ours"
    fixed = False  # responses are a function of the sample

    def setup(self) -> Metrics:
        sizes = super().setup()
        self.original = self.scoring.scorer, self.actor.config
        return sizes

    def configure(self, schedule: str, rollouts: int, tokens: int) -> None:
        """Chooses what the next steps do.

        Args:
            schedule: "ours"; "no_reward", ours with rewards that cost nothing; "published": every response is a
                sequence of its own, with old log-probabilities, and SAM 2 sees one response at a time, in fp32.
            rollouts, tokens: of each prompt and of each response.
        """
        sizes = {"worker.rollout.n": rollouts, "worker.rollout.response_length": tokens}
        self.config = override(self.config, sizes)
        self.rollout_engine.config = self.actor.rollout = self.config.worker.rollout  # type: ignore[union-attr]
        self.scoring.scorer, self.actor.config = self.original
        self.schedule = schedule
        if schedule == "no_reward":
            self.scoring.scorer = NoReward()
        elif schedule == "published":
            real = self.scoring.scorer
            assert isinstance(real, SyntheticAnswerScorer)
            options = self.config.worker.reward.tracker_options
            tracker = plain_tracker(options["sam2_config"], self.device, torch.float32)
            self.scoring.scorer = SyntheticAnswerScorer(RewardScorer(real.scorer.rule, tracker), alone=True)
            single = {"max_tokens_per_micro_batch": None, "micro_batch_size_per_device_for_update": 1}
            self.actor.config = override(self.actor.config, single)

    def limit_memory(self, gib: float) -> None:
        """Limits PyTorch's allocator to that much of the GPU, as on a smaller card."""
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.set_per_process_memory_fraction(gib * GIB / total, self.device)

    def draw_lengths(self, mean: float, longest: int) -> None:
        """Makes the responses of all further steps end after log-normal numbers of tokens."""
        assert self.rollout_engine is not None
        force_lengths(self.rollout_engine.llm.llm_engine, mean, longest)

    def fix_responses(self) -> None:
        """Makes the groups hold made-up responses, the same for any number of GPUs; vLLM generates all the same."""
        self.fixed = True

    def compute_ref_log_probs(self, uids: Sequence[int]) -> Metrics:
        """In the published schedule the old log-probabilities too, which the driver does not ask for."""
        if self.schedule != "published":
            return super().compute_ref_log_probs(uids)
        singles = dict(single for uid in uids if uid in self.groups for single in self._split(uid))
        self.groups |= singles
        return super().compute_ref_log_probs(list(singles)) | super().compute_old_log_probs(list(singles))

    def update(self, advantages: Sequence[GroupAdvantages]) -> Metrics:
        if self.schedule == "published":
            advantages = [
                GroupAdvantages(_single(each.uid, number), [values])
                for each in advantages
                for number, values in enumerate(each.advantages)
            ]
        return super().update(advantages)

    def drop(self, uids: Sequence[int]) -> None:
        singles = (uid for uid in self.groups if uid >= SINGLE_UIDS)
        super().drop([*uids, *(single for single in singles if (single - SINGLE_UIDS) // 1000 in uids)])

    def _split(self, uid: int) -> list[tuple[int, StoredGroup]]:
        """Every response of a group as a group of its own."""
        stored = self.groups[uid]
        responses = zip(stored.group.response_ids, stored.rollout_log_probs)
        return [
            (_single(uid, number), StoredGroup(replace(stored.group, response_ids=[ids]), [log_probs]))
            for number, (ids, log_probs) in enumerate(responses)
        ]

    def _store(self, uid: int, example: Example, prompt: TokenizedPrompt, completions: GroupCompletions) -> None:
        if self.fixed:
            draw = torch.Generator().manual_seed(uid)
            responses = [
                replace(each, ids=torch.randint(0, 1000, (len(each.ids),), generator=draw).tolist())
                for each in completions.responses
            ]
            completions = replace(completions, responses=responses)
        super()._store(uid, example, prompt, completions)


def _single(uid: int, number: int) -> int:
    return SINGLE_UIDS + 1000 * uid + number


class BenchBackend(RayBackend):
    """The backend with such workers."""

    worker_class = BenchWorker

    def configure(self, schedule: str, rollouts: int, tokens: int) -> None:
        self.workers.call("configure", schedule, rollouts, tokens)

    def limit_memory(self, gib: float) -> None:
        self.workers.call("limit_memory", gib)

    def draw_lengths(self, mean: float, longest: int) -> None:
        self.workers.call("draw_lengths", mean, longest)

    def fix_responses(self) -> None:
        self.workers.call("fix_responses")


def open_loop(config: Config, task: Task, backend: BenchBackend, folder: Path) -> GRPO:
    """The trainer's own loop over these workers; its records go to `folder`."""
    config = override(config, {"trainer.save_checkpoint_path": str(folder)})
    prompts = open_prompts(config, task)
    plan = make_run_plan(config, len(prompts.sampler))
    return GRPO(config, plan, backend, prompts, RunLog(config, plan))
