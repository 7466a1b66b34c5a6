"""The root of the configuration, the error that every part of it raises, and the nearest valid word for one that is
misspelt.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field

from verl.config.sections import AlgorithmConfig, DataConfig, SFTConfig, TrainerConfig
from verl.config.worker_sections import WorkerConfig

FREE_FORM = (
    "data.options",
    "worker.reward.options",
    "worker.actor.model.override_config",
)  # dictionaries with keys of the user's own


class ConfigError(ValueError):
    """A configuration that cannot run; the message is one line for the person who wrote it."""


@dataclass
class Config:
    """A run."""

    data: DataConfig = field(default_factory=DataConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)


def nearest(word: str, valid: Sequence[str]) -> str:
    """The valid word that was probably meant: " (did you mean X?)", or "" when none is near."""
    leaf = word.rsplit(".", 1)[-1]
    same_leaf = [path for path in valid if path.rsplit(".", 1)[-1] == leaf]
    found = difflib.get_close_matches(word, same_leaf or valid, n=1, cutoff=0.0 if same_leaf else 0.6)
    if not found:  # a misspelt leaf in the wrong section
        by_leaf = {path.rsplit(".", 1)[-1]: path for path in valid}
        found = [by_leaf[name] for name in difflib.get_close_matches(leaf, by_leaf, n=1, cutoff=0.75)]
    return f" (did you mean {found[0]}?)" if found else ""
