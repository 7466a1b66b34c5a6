"""One rollout of a worker: requests in, generated groups out, each as soon as it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import NamedTuple

import numpy as np

from verl.config.worker_sections import RolloutConfig
from verl.protocol import Example, GroupRequest, TrainingData
from verl.workers.prompt_builder import PromptBuilder, TokenizedPrompt
from verl.workers.rollout_engine import Completion, GenerationRequest, RequestSampling, RolloutEngine
from verl.workers.sample_errors import load_sample, wait_for_sample
from verl.workers.scoring_thread import GroupCompletions

OnComplete = Callable[[int, Example, TokenizedPrompt, GroupCompletions], None]


class LoadedExample(NamedTuple):
    """An example, and its prompt with the images' patches."""

    example: Example
    prompt: TokenizedPrompt


class PromptLoader:
    """Reads examples and builds their prompts by threads, those of a coming rollout while the model trains."""

    def __init__(self, threads: Executor, prompt_builder: PromptBuilder) -> None:
        self.threads, self.prompt_builder = threads, prompt_builder
        self._loading: dict[GroupRequest, Future[LoadedExample]] = {}

    def prefetch(self, data: TrainingData, requests: Sequence[GroupRequest]) -> None:
        """Begins to load the prompts of the next rollout; an earlier call is forgotten."""
        self._loading = {request: self._loading.get(request) or self._submit(data, request) for request in requests}

    def take(self, data: TrainingData, requests: Sequence[GroupRequest]) -> list[Future[LoadedExample]]:
        """The prompts of a rollout."""
        loading = {request: self._loading.get(request) or self._submit(data, request) for request in requests}
        self._loading = {}
        return list(loading.values())

    def _submit(self, data: TrainingData, request: GroupRequest) -> Future[LoadedExample]:
        def load() -> LoadedExample:
            example = data.example(request.index, request.seed)
            return LoadedExample(example, self.prompt_builder.build(example))

        return self.threads.submit(load_sample, data, request, load)


def request_sampling(request: GroupRequest, config: RolloutConfig, validation: bool) -> RequestSampling:
    """How a group's responses are sampled."""
    # seeds far apart: a response of a group adds 1
    seed = int(np.random.SeedSequence([request.seed, config.seed]).generate_state(1)[0])
    if validation:
        return RequestSampling(config.val_n, config.val_temperature, seed)
    return RequestSampling(config.n, config.temperature, seed, config.top_p, config.top_k)


class GroupRollout:
    """Generates groups.

    Args:
        data: that the requests are of.
        requests: every worker of a tensor-parallel engine has the same ones.
        prompts: of the requests, in their order.
        local_uids: uids of those that this worker keeps.
        greedy: also generate a greedy response of each prompt.
        timeout: seconds in which an example has to be loaded.
    """

    def __init__(
        self,
        engine: RolloutEngine,
        data: TrainingData,
        requests: Sequence[GroupRequest],
        prompts: Sequence[Future[LoadedExample]],
        local_uids: Sequence[int],
        validation: bool,
        greedy: bool,
        timeout: float = 3600.0,
    ) -> None:
        self.engine, self.data, self.requests, self.prompts = engine, data, requests, prompts
        self.local_uids, self.validation, self.greedy, self.timeout = set(local_uids), validation, greedy, timeout
        self._built: dict[int, LoadedExample] = {}
        self._responses: dict[int, list[Completion]] = {}
        self._greedy: dict[int, Completion] = {}

    def run(self, on_complete: OnComplete) -> None:
        """Calls `on_complete(uid, example, prompt, completions)` for own groups."""

        def finished(request: GenerationRequest, completions: list[Completion]) -> None:
            uid = request.uid
            if uid not in self.local_uids:
                return
            if request.greedy:
                (self._greedy[uid],) = completions
            else:
                self._responses[uid] = completions
            if uid in self._responses and (uid in self._greedy or not self.greedy):
                complete = GroupCompletions(self._responses.pop(uid), self._greedy.pop(uid, None))
                on_complete(uid, *self._built.pop(uid), complete)

        self.engine.generate(self._generation_requests(), finished)

    def _generation_requests(self) -> Iterator[GenerationRequest]:
        for request, loading in zip(self.requests, self.prompts):
            built = wait_for_sample(loading, self.data, request, self.timeout)
            if request.uid in self.local_uids:
                self._built[request.uid] = built
            sampling = request_sampling(request, self.engine.config, self.validation)
            yield GenerationRequest(request.uid, built.prompt, sampling)
            if self.greedy:
                yield GenerationRequest(request.uid, built.prompt, RequestSampling(1, 0.0, request.seed), greedy=True)
