"""The rollouts of a training run over time: how the answers to one prompt changed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from veason.visualization.drawing import data_url

SHOWN = 2  # responses of a group with pictures: the best and the worst


@dataclass
class PromptStep:
    """The responses to a prompt at one step."""

    step: int
    mean: float
    shown: list[dict[str, Any]]  # responses with pictures, `title` each; others: the rest, in a table
    others: list[dict[str, Any]]


@dataclass
class PromptHistory:
    """A prompt with its responses over the steps, in one phase."""

    sample_id: str
    phase: str
    question: str
    history: list[PromptStep] = field(default_factory=list)

    @property
    def change(self) -> float:
        return self.history[-1].mean - self.history[0].mean


def read_prompt_histories(run: Path, pictures: int) -> list[PromptHistory]:
    """The prompts of rollouts/step_N.jsonl: those with most steps first, as many as `pictures` pictures allow.

    Args:
        pictures: embedded at most; a response that has none left is still shown with its text.
    """
    grouped: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for path in (run / "rollouts").glob("step_*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            grouped[row["phase"], row["sample_id"]][row["step"]].append(row)
    order = sorted(grouped, key=lambda key: (-len(grouped[key]), key[0] != "validation", key[1]))
    left, prompts = pictures, []
    for phase, sample_id in order:
        steps = grouped[phase, sample_id]
        prompt = PromptHistory(sample_id, phase, next(iter(steps.values()))[0]["question"])
        for step in sorted(steps):
            entry = _prompt_step(run, step, steps[step], left)
            left -= sum(len(response["pictures"]) for response in entry.shown)
            prompt.history.append(entry)
        prompts.append(prompt)
        if left <= 0:
            break
    return prompts


def _prompt_step(run: Path, step: int, rows: Sequence[dict[str, Any]], pictures: int) -> PromptStep:
    ranked = sorted(rows, key=lambda row: -row["total"])
    chosen = ranked if len(ranked) <= SHOWN else [ranked[0], ranked[-1]]
    titles = ["best", "worst"] if len(ranked) > SHOWN else [""] * len(chosen)
    shown: list[dict[str, Any]] = []
    for title, row in zip(titles, chosen):
        files = {name: run / "rollouts" / file for name, file in row["pictures"].items()}
        there = [(name, path) for name, path in files.items() if path.is_file()][: max(0, pictures)]
        pictures -= len(there)
        urls = {name: data_url(path.read_bytes(), "image/jpeg") for name, path in there}
        shown.append({**row, "title": title, "pictures": urls})
    mean = sum(row["total"] for row in rows) / len(rows)
    return PromptStep(step, mean, shown, ranked if len(ranked) > SHOWN else [])
