"""Reads examples of fine-tuning as the groups that the actor trains on: in this process, or in processes of their own.

A small model takes a step faster than one interpreter reads and packs its examples; then `sft.num_workers` processes
do, a step each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.multiprocessing as multiprocessing  # tensors that come back lie in shared memory

from verl.config.worker_sections import ActorConfig
from verl.models.packing import Group, PackedBatch, pack_groups
from verl.protocol import GroupRequest, TrainingData
from verl.workers.groups import split_rows
from verl.workers.prompts import PromptBuilder


def read_target(data: TrainingData, prompts: PromptBuilder, request: GroupRequest, limit: int) -> Group:
    """The prompt of an example with its response.

    Args:
        limit: data.max_response_length, tokens.

    Raises:
        ValueError: the example has no response, or one beyond the limit; names it.
    """
    example = data.example(request.index, request.seed)
    prompt = prompts.build(example)
    if not example.response:
        raise ValueError(f"{example.sample_id} has no response to learn")
    ids = prompts.response_ids(example.response)
    if len(ids) > limit:
        raise ValueError(
            f"{example.sample_id}: its response has {len(ids)} tokens, data.max_response_length is {limit}"
        )
    return Group(prompt.ids, [ids], prompt.pixel_values, prompt.image_grid_thw)


@dataclass(frozen=True)
class Reader:
    """What a reading process needs.

    Attributes:
        make_data: opens the training data.
        make_prompts: makes the prompt builder.
        limit: data.max_response_length.
        actor: worker.actor, for how groups share rows.
        model_config: the model's `Qwen2_5_VLConfig`.
        multiple: the rows are padded to multiples of it (`pack_groups`), which the reading process cannot tell: it sees
            no GPU.
        dtype: of the patches; on a GPU that of the computation, to which they would only be rounded later.
    """

    make_data: Callable[[], TrainingData]
    make_prompts: Callable[[], PromptBuilder]
    limit: int
    actor: ActorConfig
    model_config: Any
    multiple: int
    dtype: torch.dtype


class ReadStep(NamedTuple):
    """The rows of a step, and what its reading process has left out of the data so far: sample id -> reason."""

    rows: list[PackedBatch]
    skipped: dict[str, str]


class ReadingProcesses:
    """`count` processes that read and pack, each one step's examples at a time; they end with this process."""

    def __init__(self, reader: Reader, count: int) -> None:
        self.pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _open, (reader,))

    def submit(self, requests: Sequence[GroupRequest]) -> Future[ReadStep]:
        """Begins to read examples; their rows come on the CPU. An error comes back from the result, with its own type
        and message.
        """
        return self.pool.submit(_read, list(requests))


_own: tuple[Reader, TrainingData, PromptBuilder] | None = None  # of this reading process


def _open(reader: Reader) -> None:
    global _own
    torch.set_num_threads(1)
    _own = reader, reader.make_data(), reader.make_prompts()


def _read(requests: list[GroupRequest]) -> ReadStep:
    assert _own is not None
    reader, data, prompts = _own
    groups = [read_target(data, prompts, request, reader.limit) for request in requests]
    shared = split_rows(groups, reader.actor, update=True)
    rows = [pack_groups([groups[i] for i in members], reader.model_config, reader.multiple) for members in shared]
    rows = [replace(row, pixel_values=row.pixel_values.to(reader.dtype)) for row in rows]
    return ReadStep(rows, dict(getattr(data, "skipped", {})))
