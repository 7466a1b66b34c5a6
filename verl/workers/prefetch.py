"""Loads coming steps' examples of fine-tuning while the model computes: by threads, or by processes that pack them too.

A small model takes a step faster than one interpreter loads and packs its examples; then `sft.num_workers` processes
do, a step each.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
import torch.multiprocessing as multiprocessing  # tensors that come back lie in shared memory

from verl.config.worker_sections import ActorConfig
from verl.models.packing import PackedBatch, TokenizedGroup, pack_groups
from verl.protocol import GroupRequest, TrainingData
from verl.workers.micro_batches import split_micro_batches
from verl.workers.prompt_builder import PromptBuilder
from verl.workers.sample_errors import load_sample, wait_for_sample

Requests = tuple[GroupRequest, ...]


def load_sft_group(
    data: TrainingData, prompt_builder: PromptBuilder, request: GroupRequest, limit: int
) -> TokenizedGroup:
    """The prompt of an example with its response.

    Args:
        limit: data.max_response_length, tokens.

    Raises:
        ValueError: the example has no response, or one beyond the limit; names it.
    """
    example = data.example(request.index, request.seed)
    prompt = prompt_builder.build(example)
    if not example.response:
        raise ValueError(f"{example.sample_id} has no response to learn")
    ids = prompt_builder.response_ids(example.response)
    if len(ids) > limit:
        name = example.sample_id
        raise ValueError(f"{name}: its response has {len(ids)} tokens, data.max_response_length is {limit}")
    return TokenizedGroup(prompt.ids, [ids], prompt.pixel_values, prompt.image_grid_thw)


class ThreadPrefetcher:
    """Loads examples by threads of this process.

    Args:
        data, prompt_builder: of this worker. limit: data.max_response_length.
        timeout: seconds in which an example has to be loaded.
    """

    def __init__(
        self, threads: Executor, data: TrainingData, prompt_builder: PromptBuilder, limit: int, timeout: float = 3600.0
    ) -> None:
        self.threads, self.data, self.prompt_builder = threads, data, prompt_builder
        self.limit, self.timeout = limit, timeout
        self._loading: dict[GroupRequest, Future[TokenizedGroup]] = {}

    def prefetch(self, requests: Requests) -> None:
        """Begins to load what is not being loaded yet."""
        for request in requests:
            if request not in self._loading:
                self._loading[request] = self.submit(self.data, request)

    def take(self, requests: Requests) -> list[TokenizedGroup]:
        """The examples of a step, in order."""
        self.prefetch(requests)
        return [wait_for_sample(self._loading.pop(each), self.data, each, self.timeout) for each in requests]

    def submit(self, data: TrainingData, request: GroupRequest) -> Future[TokenizedGroup]:
        load = partial(load_sft_group, data, self.prompt_builder, request, self.limit)
        return self.threads.submit(load_sample, data, request, load)


@dataclass(frozen=True)
class LoaderSpec:
    """What a loading process is made from.

    Attributes:
        make_data: opens the training data.
        make_prompt_builder: makes the prompt builder.
        limit: data.max_response_length.
        actor: worker.actor, for how groups are divided into micro-batches.
        multiple: of `pack_groups`, which a process that sees no GPU cannot tell.
        dtype: of the patches; on a GPU that of the computation, to which they would only be rounded later.
    """

    make_data: Callable[[], TrainingData]
    make_prompt_builder: Callable[[], PromptBuilder]
    limit: int
    actor: ActorConfig
    multiple: int
    dtype: torch.dtype


class PackedStep(NamedTuple):
    """The packed micro-batches of a step; sample id -> reason of what its process has left out so far."""

    batches: list[PackedBatch]
    skipped_samples: dict[str, str]


class ProcessPrefetcher:
    """Loads and packs examples by `count` processes, each one step at a time; they end with this process.

    Attributes:
        skipped_samples: sample id -> reason, of what the processes have left out.
    """

    def __init__(self, spec: LoaderSpec, count: int, threads: Executor, pin: bool, timeout: float = 3600.0) -> None:
        self.timeout = timeout
        self.pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _open, (spec,))
        self.threads, self.pin = threads, pin
        self.skipped_samples: dict[str, str] = {}
        self._loading: dict[Requests, Future[PackedStep]] = {}

    def prefetch(self, requests: Requests) -> None:
        """Begins to load and pack a step that is not being loaded yet."""
        if requests not in self._loading:
            self._loading[requests] = self.threads.submit(self._receive, self.pool.submit(_load_step, requests))

    def take(self, requests: Requests) -> list[PackedBatch]:
        """The micro-batches of a step, on the CPU. An error comes back with its own type and message."""
        self.prefetch(requests)
        step = self._loading.pop(requests).result(self.timeout)
        self.skipped_samples |= step.skipped_samples
        return step.batches

    def _receive(self, loading: Future[PackedStep]) -> PackedStep:
        step = loading.result()
        return step._replace(batches=[batch.pinned() for batch in step.batches]) if self.pin else step


_loader: tuple[LoaderSpec, TrainingData, PromptBuilder] | None = None  # of this loading process


def _open(spec: LoaderSpec) -> None:
    global _loader
    torch.set_num_threads(1)
    _loader = spec, spec.make_data(), spec.make_prompt_builder()


def _load_step(requests: Requests) -> PackedStep:
    assert _loader is not None
    spec, data, prompt_builder = _loader
    loads = [partial(load_sft_group, data, prompt_builder, request, spec.limit) for request in requests]
    groups = [load_sample(data, request, load) for request, load in zip(requests, loads)]
    micro_batches = split_micro_batches(groups, spec.actor, update=True)
    family = prompt_builder.family
    batches = [pack_groups([groups[i] for i in members], family, spec.multiple) for members in micro_batches]
    batches = [replace(batch, pixel_values=batch.pixel_values.to(spec.dtype)) for batch in batches]
    return PackedStep(batches, dict(getattr(data, "skipped_samples", {})))
