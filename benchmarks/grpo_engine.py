"""The engine of `benchmarks.grpo_step`: the real one, whose workers can also follow the seed's schedule and time vLLM
by itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.grpo_job import NoReward, WellFormed, plain_tracker
from grpo_reward.scorer import GroupScorer
from verl.config import Config
from verl.protocol import Example, GroupAdvantages, GroupRequest
from verl.trainer.grpo import GRPO
from verl.trainer.main import Task, open_prompts
from verl.trainer.plan import make_plan
from verl.trainer.run_log import RunLog
from verl.workers.engine import RayEngine
from verl.workers.groups import StoredGroup
from verl.workers.prompts import Prompt
from verl.workers.rollout import Completion, engine_prompt
from verl.workers.worker import Worker

SINGLES = 10_000_000  # uids of responses that stand alone begin here


class BenchWorker(Worker):
    """A worker that can also do what the comparisons need."""

    schedule = "ours"
    fixed = False  # responses are a function of the sample

    def setup(self) -> dict[str, float]:
        sizes = super().setup()
        self.own = self.scoring.scorer, self.actor.config
        return sizes

    def arrange(self, schedule: str, rollouts: int, tokens: int) -> None:
        """What the next steps do.

        Args:
            schedule: "ours"; "no reward", ours with rewards that cost nothing; "seed": every response is a sequence of
                its own, with old log-probabilities, and SAM 2 sees one response at a time, in fp32.
            rollouts, tokens: of each prompt and of each response.
        """
        self.config.worker.rollout.n, self.config.worker.rollout.response_length = rollouts, tokens
        self.scoring.scorer, self.actor.config = self.own
        self.schedule = schedule
        if schedule == "no reward":
            self.scoring.scorer = NoReward()
        elif schedule == "seed":
            real = self.scoring.scorer
            assert isinstance(real, WellFormed)
            tracker = plain_tracker(self.config.worker.reward.sam2_config or "", self.device, torch.float32)
            self.scoring.scorer = WellFormed(GroupScorer(real.scorer.rule, tracker), alone=True)
            self.actor.config = replace(
                self.actor.config, max_tokens_per_micro_batch=None, micro_batch_size_per_device_for_update=1
            )

    def fix_responses(self) -> None:
        """From now on the groups hold made-up responses, the same however many GPUs there are. All else stays,
        generation included.
        """
        self.fixed = True

    def generate_bare(self, requests: Sequence[GroupRequest]) -> float:
        """Seconds of `LLM.generate` on requests that are ready in memory, with the weights and sampling parameters of
        the rollout.
        """
        assert self.rollouts is not None
        self._wake_engine(self.rollouts)
        examples = [self.data.example(request.index, request.seed) for request in requests]
        prompts: Any = [engine_prompt(self.prompts.bare_ids(example), example.images) for example in examples]
        sampling = [self.rollouts.sampling_params(self._sampling(request, False)) for request in requests]
        start = time.perf_counter()
        outputs = self.rollouts.llm.generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - start
        length = self.config.worker.rollout.response_length
        assert all(len(each.token_ids) == length for output in outputs for each in output.outputs)
        self.rollouts.sleep()
        self.stale = True  # the next step hands weights over, as any step does
        return seconds

    def reference(self, uids: Sequence[int], old: bool) -> dict[str, float]:
        if self.schedule != "seed":
            return super().reference(uids, old)
        singles = [single for uid in uids if uid in self.groups for single in self._split(uid)]
        self.groups |= dict(singles)
        return super().reference([uid for uid, _ in singles], old=True)

    def update(self, advantages: Sequence[GroupAdvantages]) -> dict[str, float]:
        if self.schedule == "seed":
            advantages = [
                GroupAdvantages(_single(each.uid, number), [values])
                for each in advantages
                for number, values in enumerate(each.advantages)
            ]
        return super().update(advantages)

    def drop(self, uids: Sequence[int]) -> None:
        super().drop([*uids, *(uid for uid in self.groups if uid >= SINGLES)])

    def _split(self, uid: int) -> list[tuple[int, StoredGroup]]:
        """Every response of a group as a group of its own."""
        stored = self.groups[uid]
        done: Future = Future()
        done.set_result(stored.result.result())
        responses = zip(stored.group.response_ids, stored.rollout_log_probs)
        return [
            (
                _single(uid, number),
                replace(
                    stored, group=replace(stored.group, response_ids=[ids]), rollout_log_probs=[log_probs], result=done
                ),
            )
            for number, (ids, log_probs) in enumerate(responses)
        ]

    def _store(
        self,
        uid: int,
        example: Example,
        prompt: Prompt,
        prompt_ids: Sequence[int],
        completions: dict[bool, list[Completion]],
    ) -> None:
        if self.fixed:
            draw = torch.Generator().manual_seed(uid)
            completions = {
                kind: [
                    replace(each, ids=torch.randint(0, 1000, (len(each.ids),), generator=draw).tolist())
                    for each in responses
                ]
                for kind, responses in completions.items()
            }
        super()._store(uid, example, prompt, prompt_ids, completions)


def _single(uid: int, number: int) -> int:
    return SINGLES + 1000 * uid + number


class BenchEngine(RayEngine):
    """The engine with such workers."""

    worker_class = BenchWorker

    def arrange(self, schedule: str, rollouts: int, tokens: int) -> None:
        self.workers.call("arrange", schedule, rollouts, tokens)

    def fix_responses(self) -> None:
        self.workers.call("fix_responses")

    def generate_bare(self, requests: Sequence[GroupRequest]) -> float:
        return max(self.workers.call("generate_bare", list(requests)))


def open_loop(config: Config, task: Task, engine: BenchEngine, folder: Path) -> GRPO:
    """The trainer's own loop over the engine."""
    prompts = open_prompts(config, task)
    plan = make_plan(config, len(prompts.order))
    return GRPO(config, plan, engine, prompts, RunLog(folder, [], "", "", plan))
