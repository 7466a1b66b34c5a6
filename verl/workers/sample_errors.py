"""Data that raises or hangs, by the sample's name."""

from __future__ import annotations

import faulthandler
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from verl.protocol import GroupRequest, TrainingData

T = TypeVar("T")


def load_sample(data: TrainingData, request: GroupRequest, load: Callable[[], T]) -> T:
    """What `load` gives. Whatever it raises, SystemExit too, comes as an error that names the sample."""
    try:
        return load()
    except BaseException as error:
        name = data.sample_id(request.index)
        if name in str(error) and isinstance(error, Exception):
            raise
        raise RuntimeError(f"{name}: the sample could not be loaded: {type(error).__name__}: {error}") from error


def wait_for_sample(loading: Future[T], data: TrainingData, request: GroupRequest, timeout: float) -> T:
    """The result of loading a sample.

    Args:
        timeout: trainer.phase_timeout, seconds.

    Raises:
        TimeoutError: it did not come in time; the stacks of all threads are then on stderr, the worker's log.
    """
    try:
        return loading.result(timeout)
    except TimeoutError:
        if loading.done():  # the data's own TimeoutError
            raise
        faulthandler.dump_traceback(2)
        name, limit = data.sample_id(request.index), f"trainer.phase_timeout={timeout:.0f} s"
        stacks = "the worker's log has the stacks of its threads"
        raise TimeoutError(f"{name}: the sample was not loaded within {limit}; {stacks}") from None
