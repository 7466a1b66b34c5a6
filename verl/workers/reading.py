"""Reads examples of fine-tuning as the groups that the actor trains on: in this process, or in processes of their own.

A small model takes a step faster than one interpreter reads the pictures of its examples; then `sft.num_workers` processes read them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import torch
import torch.multiprocessing as multiprocessing  # tensors that come back lie in shared memory
from torch import Tensor

from verl.models.packing import Group
from verl.protocol import GroupRequest, TrainingData
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
        raise ValueError(f"{example.sample_id}: its response has {len(ids)} tokens, data.max_response_length is {limit}")
    return Group(prompt.ids, [ids], prompt.pixel_values, prompt.image_grid_thw)


@dataclass(frozen=True)
class Reader:
    """What a reading process needs.

    Attributes:
        make_data: opens the training data.
        make_prompts: makes the prompt builder.
        limit: data.max_response_length.
        dtype: of the patches that come back; that of the computation, where the weights' own would only be rounded later.
    """

    make_data: Callable[[], TrainingData]
    make_prompts: Callable[[], PromptBuilder]
    limit: int
    dtype: torch.dtype


class ReadingProcesses:
    """`count` processes that read examples side by side; they end with this one."""

    def __init__(self, reader: Reader, count: int) -> None:
        self.pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _open, (reader,))

    def submit(self, request: GroupRequest) -> Future[Group]:
        """Begins to read an example. An error comes back from the result, with its own type and message."""
        parts = self.pool.submit(_read, request)
        group: Future[Group] = Future()

        def pass_on(done: Future[tuple]) -> None:
            error = done.exception()
            group.set_exception(error) if error is not None else group.set_result(_group(*done.result()))

        parts.add_done_callback(pass_on)
        return group


_open_reader: tuple[Reader, TrainingData, PromptBuilder] | None = None  # of this reading process


def _open(reader: Reader) -> None:
    global _open_reader
    torch.set_num_threads(1)
    _open_reader = reader, reader.make_data(), reader.make_prompts()


def _read(request: GroupRequest) -> tuple[list[int], list[int], Tensor | None, list[list[int]]]:
    """The parts of a group; only the patches are worth a block of shared memory."""
    assert _open_reader is not None
    reader, data, prompts = _open_reader
    group = read_target(data, prompts, request, reader.limit)
    pixels = None if group.pixel_values is None else group.pixel_values.to(reader.dtype)
    grids = [] if group.image_grid_thw is None else group.image_grid_thw.tolist()
    return group.prompt_ids.tolist(), group.response_ids[0].tolist(), pixels, grids


def _group(prompt: list[int], response: list[int], pixels: Tensor | None, grids: list[list[int]]) -> Group:
    return Group(torch.tensor(prompt), [torch.tensor(response)], pixels, torch.tensor(grids) if grids else None)
