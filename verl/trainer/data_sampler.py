"""Draws prompts in an order that is a function of (seed, position), so that one number resumes it exactly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from verl.protocol import GroupRequest

T = TypeVar("T")


class DataMismatchError(ValueError):
    """A checkpoint that was trained on other data, or on another order of them; the message says what changed."""


class DataSampler:
    """An endless sequence of GroupRequests over `indices`: episode after episode, each shuffled anew.

    Request number `position` has uid `position`, and a seed that depends on (seed, episode, index) alone, so it does
    not matter how the sequence is cut into batches.

    Args:
        indices: the samples of one episode.
        seed: of the order and of the requests' own seeds.
        shuffle: false walks the samples as they come, every episode alike.
    """

    def __init__(self, indices: Sequence[int], seed: int, shuffle: bool = True) -> None:
        if not len(indices):
            raise ValueError("there is no sample to train on")
        self.indices = np.asarray(indices)
        self.seed = seed
        self.shuffle = shuffle
        self.position = 0
        self._episode, self._order = -1, self.indices

    def __len__(self) -> int:
        """Samples per episode."""
        return len(self.indices)

    def draw(self, count: int) -> list[GroupRequest]:
        """The next `count` requests."""
        requests = self.peek(count)
        self.position += count
        return requests

    def peek(self, count: int) -> list[GroupRequest]:
        """What `draw` would give, without moving on."""
        return [self.request(position) for position in range(self.position, self.position + count)]

    def preview(self, count: int) -> list[GroupRequest]:
        """The first `count` requests of the run, wherever it stands."""
        return [self.request(position) for position in range(count)]

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to resume at the same position."""
        return {"position": self.position, "seed": self.seed, "samples": len(self), "shuffle": self.shuffle}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes at the saved position. Raises DataMismatchError where the checkpoint's data or order is another."""
        now = self.state_dict() | {"position": state["position"]}
        if now != state:
            changed = ", ".join(f"{key} {state[key]} -> {now[key]}" for key in state if state[key] != now[key])
            order = f"another order of the data ({changed})"
            raise DataMismatchError(f"the checkpoint was trained on {order}: resume with the data and seed it had")
        self.position = state["position"]

    def request(self, position: int) -> GroupRequest:
        """Request number `position`, which is its uid."""
        episode, offset = divmod(position, len(self))
        if episode != self._episode:
            self._episode = episode
            generator = np.random.default_rng([self.seed, episode])
            self._order = generator.permutation(self.indices) if self.shuffle else self.indices
        index = int(self._order[offset])
        return GroupRequest(uid=position, index=index, seed=request_seed(self.seed, episode, index))


def request_seed(seed: int, episode: int, index: int) -> int:
    """A seed of its own for each sample in each episode, uint32."""
    return int(np.random.SeedSequence([seed, episode, index]).generate_state(1)[0])


def validation_requests(indices: Sequence[int], seed: int, limit: int | None = None) -> list[GroupRequest]:
    """The same requests at every validation: the first `limit` of a fixed shuffle, with negative uids."""
    chosen = np.random.default_rng(seed).permutation(np.asarray(indices))[:limit].tolist()
    return [GroupRequest(uid=-1 - i, index=index, seed=request_seed(seed, 0, index)) for i, index in enumerate(chosen)]


def train_val_split(names: Sequence[str], val_ratio: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to train on, and the share that is held out, drawn once by `seed`; both in ascending order.

    A name that stands several times (a data set that repeats a sample) is held out as a whole, and once.
    """
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    validation = {names[index]: index for index in order[: round(len(names) * val_ratio)]}
    trained = [index for index in order if names[index] not in validation]
    return sorted(trained), sorted(validation.values())


def balance_by_length(items: Sequence[T], lengths: Sequence[int], replicas: int) -> list[list[T]]:
    """Divides items among replicas: counts differ by one at most, and the sums of the lengths are near each other.

    Largest first, to the replica with the smallest sum that has room. The result depends on nothing but the arguments;
    ties go to the earlier item and replica.
    """
    most = -(-len(items) // replicas)
    spare = len(items) - (most - 1) * replicas if items else 0  # replicas that may hold `most` items
    chosen: list[list[int]] = [[] for _ in range(replicas)]
    sums = [0] * replicas
    for i in sorted(range(len(items)), key=lambda i: (-lengths[i], i)):
        full = sum(len(each) == most for each in chosen)
        room = [r for r in range(replicas) if len(chosen[r]) < (most if full < spare else most - 1)]
        smallest = min(room, key=lambda r: (sums[r], len(chosen[r]), r))
        chosen[smallest].append(i)
        sums[smallest] += lengths[i]
    return [[items[i] for i in sorted(each)] for each in chosen]


def split_evenly(items: Sequence[T], chunks: int) -> list[Sequence[T]]:
    """Consecutive slices whose sizes differ by one at most; fewer than `chunks` where there are fewer items."""
    bounds = [round(len(items) * chunk / chunks) for chunk in range(chunks + 1)]
    return [items[start:end] for start, end in pairwise(bounds) if end > start]


def batched(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Consecutive slices of `size`; the last may be shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]
