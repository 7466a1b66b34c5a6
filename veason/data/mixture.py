"""Several data sets as one: `data.mix`, where each has its share of an episode."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from veason.data.sample import MIX_SEPARATOR
from veason.data.selection import read_exclusions
from veason.errors import DataError
from veason.registry import suggest


class MixedTrainingData:
    """Training data of several sets; sample ids begin with the set's label, `mevis:<video>/<exp_id>`.

    Args:
        members: label -> training data (`verl.protocol.TrainingData`).
        weights: label -> weight. An episode then holds the sets in the proportion of their weights, and is as long as
            it takes to show every sample once: samples of the other sets are repeated, each time with frames of their
            own. None: every sample once, whatever the sets' sizes.

    Attributes:
        counts: label -> prompts of the set in an episode.
        depends_on_seed: whether an example of any set depends on its seed.

    Raises:
        DataError: no set, or a weight that is not above 0.
    """

    def __init__(self, members: Mapping[str, Any], weights: Mapping[str, float] | None = None) -> None:
        if not members:
            raise DataError("data.mix names no set")
        self.members = dict(members)
        self.counts = {label: len(data) for label, data in members.items()}
        if weights is not None:
            total = sum(weights.values())
            episode = max(len(data) * total / weights[label] for label, data in members.items())
            self.counts = {
                label: max(len(data), round(episode * weights[label] / total)) for label, data in members.items()
            }
        self.depends_on_seed = any(getattr(data, "depends_on_seed", True) for data in members.values())

    def __len__(self) -> int:
        return sum(self.counts.values())

    @property
    def skipped_samples(self) -> dict[str, str]:
        """Sample id -> reason, of the samples that the sets have left out so far in this process."""
        return {
            f"{label}{MIX_SEPARATOR}{name}": reason
            for label, data in self.members.items()
            for name, reason in getattr(data, "skipped_samples", {}).items()
        }

    def sample_id(self, index: int) -> str:
        label, own = self._locate(index)
        return f"{label}{MIX_SEPARATOR}{self.members[label].sample_id(own)}"

    def messages_and_sizes(self, index: int, seed: int) -> Any:
        label, own = self._locate(index)
        return self.members[label].messages_and_sizes(own, seed)

    def example(self, index: int, seed: int) -> Any:
        label, own = self._locate(index)
        example = copy.copy(self.members[label].example(own, seed))
        # the example's own id, since a bad sample gives way to another; it may be frozen
        object.__setattr__(example, "sample_id", f"{label}{MIX_SEPARATOR}{example.sample_id}")
        return example

    def response(self, index: int) -> str | None:
        """The target response of a sample, where its set knows it without building the example."""
        label, own = self._locate(index)
        known = getattr(self.members[label], "response", None)
        return None if known is None else known(own)

    def _locate(self, index: int) -> tuple[str, int]:
        """The set of a position in the episode, and the sample's index in it."""
        for label, count in self.counts.items():
            if index < count:
                return label, index % len(self.members[label])
            index -= count
        raise IndexError(f"the mixture has {len(self)} prompts an episode")


def read_weights(mix: Mapping[str, Any]) -> dict[str, float] | None:
    """The weights of `data.mix`; None where none is given.

    Raises:
        DataError: only some sets have one, or one is not a number above 0.
    """
    given = {label: member["weight"] for label, member in mix.items() if member.get("weight") is not None}
    for label, weight in given.items():
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight <= 0:
            raise DataError(f"data.mix.{label}.weight is {weight!r}: a number above 0")
    without = [label for label in mix if label not in given]
    if given and without:
        raise DataError(f"data.mix.{without[0]}.weight is not set, {next(iter(given))} has one: weigh all sets or none")
    return given or None


def build_mixture(mix: Mapping[str, Any], build: Callable[..., Any], section: Mapping[str, Any]) -> MixedTrainingData:
    """The data sets of `data.mix`. What a set does not give itself is the section's; its name is its label by default.

    Args:
        mix: label -> keys of the section for this set, and its `weight`.
        build: makes the training data of a section given as keyword arguments.
        section: the data section without `mix` and `name`.

    Raises:
        DataError: names the set; as `build`, or what is given for a set is no keys of the section.
    """
    for label, member in mix.items():
        if not isinstance(member, Mapping):
            raise DataError(f"data.mix.{label} is {member!r}: give its keys, such as data.mix.{label}.train_files=...")
        if unknown := set(member) - {*section, "name", "weight"}:
            odd = sorted(unknown)[0]
            raise DataError(f"data.mix.{label}.{odd} is unknown{suggest(odd, [*section, 'name', 'weight'])}")
    weights, labels = read_weights(mix), list(mix)
    members = {}
    for label, member in mix.items():
        own = {**section, "name": label, **{key: value for key, value in member.items() if key != "weight"}}
        if member.get("train_files") and "meta_file" not in member:
            own["meta_file"] = None  # the section's belongs to its own folder
        own["exclude"] = exclusions_of_set(read_exclusions(own.get("exclude")), label, labels)
        try:
            members[label] = build(**own)
        except DataError as error:
            raise DataError(f"data.mix.{label}: {error}") from error
    return MixedTrainingData(members, weights)


def exclusions_of_set(excluded: Iterable[str], label: str, labels: Iterable[str]) -> set[str]:
    """The ids of an exclusion list that concern one set: without a label, or with its own, which is cut off."""
    found = set()
    for name in excluded:
        head, separator, rest = name.partition(MIX_SEPARATOR)
        if not separator or head not in labels:
            found.add(name)
        elif head == label:
            found.add(rest)
    return found
