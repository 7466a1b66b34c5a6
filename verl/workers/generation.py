"""One rollout of a worker: requests in, generated groups out, each as soon as it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np

from verl.config.worker_sections import RolloutConfig
from verl.protocol import Example, GroupRequest, TrainingData
from verl.workers.prompts import Prompt, PromptBuilder
from verl.workers.rollout import Completion, GenerationRequest, RolloutEngine, Sampling
from verl.workers.samples import load_named, wait_named
from verl.workers.scoring import Completions

OnComplete = Callable[[int, Example, Prompt, Sequence[int], Completions], None]


def sampling_of(request: GroupRequest, config: RolloutConfig, validation: bool) -> Sampling:
    """How a group's responses are sampled."""
    # seeds far apart: a response of a group adds 1
    seed = int(np.random.SeedSequence([request.seed, config.seed]).generate_state(1)[0])
    if validation:
        return Sampling(config.val_n, config.val_temperature, seed)
    return Sampling(config.n, config.temperature, seed, config.top_p, config.top_k)


class GroupRollout:
    """Generates groups. Their examples are read by threads, from the moment it is made: while the engine still wakes.

    Args:
        requests: every worker of a tensor-parallel engine has the same ones.
        own: uids of those that this worker keeps.
        greedy: also generate a greedy response of each prompt.
        timeout: seconds in which an example has to be loaded.
    """

    def __init__(
        self,
        engine: RolloutEngine,
        prompts: PromptBuilder,
        threads: Executor,
        data: TrainingData,
        requests: Sequence[GroupRequest],
        own: Sequence[int],
        validation: bool,
        greedy: bool,
        timeout: float = 3600.0,
    ) -> None:
        self.engine, self.prompts, self.threads, self.data = engine, prompts, threads, data
        self.requests, self.own, self.validation, self.greedy = requests, set(own), validation, greedy
        self.timeout = timeout
        self._examples: dict[int, Example] = {}
        self._prompts: dict[int, Future[Prompt]] = {}
        self._responses: dict[int, list[Completion]] = {}
        self._greedy: dict[int, Completion] = {}
        self._rendered = [threads.submit(self._render, request) for request in requests]

    def run(self, on_complete: OnComplete) -> None:
        """Calls `on_complete(uid, example, prompt, prompt ids as vLLM expanded them, completions)` for own groups."""

        def finished(request: GenerationRequest, prompt_ids: Sequence[int], completions: list[Completion]) -> None:
            uid = request.uid
            if uid not in self.own:
                return
            if request.greedy:
                (self._greedy[uid],) = completions
            else:
                self._responses[uid] = completions
            if uid in self._responses and (uid in self._greedy or not self.greedy):
                complete = Completions(self._responses.pop(uid), self._greedy.pop(uid, None))
                prompt = self._prompts.pop(uid).result(self.timeout)
                on_complete(uid, self._examples.pop(uid), prompt, prompt_ids, complete)

        self.engine.generate(self._generation_requests(), finished)

    def _render(self, request: GroupRequest) -> tuple[Example, Any]:
        def load() -> tuple[Example, Any]:
            example = self.data.example(request.index, request.seed)
            return example, self.engine.render(self.prompts.raw_prompt_ids(example), example.images)

        return load_named(self.data, request, load)

    def _generation_requests(self) -> Iterator[GenerationRequest]:
        for request, loading in zip(self.requests, self._rendered):
            example, rendered = wait_named(loading, self.data, request, self.timeout)
            if request.uid in self.own:
                self._examples[request.uid] = example
                # for the update, while vLLM generates
                self._prompts[request.uid] = self.threads.submit(self.prompts.build, example)
            sampling = sampling_of(request, self.engine.config, self.validation)
            yield GenerationRequest(request.uid, rendered, sampling)
            if self.greedy:
                yield GenerationRequest(request.uid, rendered, Sampling(1, 0.0, request.seed), greedy=True)
