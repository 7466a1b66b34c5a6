"""What is logged of some groups now and then: every response with its scores, its advantage and its pictures."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from verl.protocol import GroupAdvantages, GroupResult

HISTOGRAM_BINS = 20


def choose_groups(groups: Sequence[GroupResult], count: int) -> list[GroupResult]:
    """Some groups, chosen by a hash of their samples' ids: a prompt that was chosen tends to be chosen when it comes
    again, so that its responses can be compared over the run.
    """
    return sorted(groups, key=lambda group: (zlib.crc32(group.sample_id.encode()), group.uid))[:count]


def rollout_rows(
    step: int,
    split: str,
    group: GroupResult,
    question: str,
    advantages: GroupAdvantages | None,
    pictures: Sequence[Mapping[str, str]],
) -> list[dict[str, Any]]:
    """One row per response.

    Args:
        split: "train" or "validation", the row's "phase".
        question: the text of the prompt.
        advantages: of the group; None in validation.
        pictures: per response, name -> path.
    """
    return [
        {
            "step": step,
            "phase": split,
            "uid": group.uid,
            "sample_id": group.sample_id,
            "question": question,
            "number": number,
            "response": group.responses[number],
            "tokens": group.response_tokens[number],
            "truncated": group.truncated[number],
            "total": group.scores[number],
            "parts": group.parts[number],
            "failure": group.parse_failures[number],
            "advantage": None if advantages is None else float(np.mean(advantages.advantages[number])),
            "pictures": dict(pictures[number]),
        }
        for number in range(len(group.responses))
    ]


def question_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the user's messages, without the images."""
    texts = []
    for message in messages:
        content = message["content"]
        if message.get("role") == "user":
            parts = [{"text": content}] if isinstance(content, str) else content
            texts += [part["text"] for part in parts if "text" in part]
    return "".join(texts).strip()


def histogram_values(groups: Sequence[GroupResult], advantages: Sequence[GroupAdvantages]) -> dict[str, np.ndarray]:
    """The values of a step whose histograms are kept, float64 [responses]: finite scores, tokens of the responses,
    advantages (each response's mean over its tokens). What has no value is left out.
    """
    values = {
        "reward": [total for group in groups for total in group.scores],
        "response": [tokens for group in groups for tokens in group.response_tokens],
        "advantage": [float(np.mean(tokens)) for group in advantages for tokens in group.advantages],
    }
    arrays = {name: np.asarray(numbers, dtype=np.float64) for name, numbers in values.items()}
    finite = {name: array[np.isfinite(array)] for name, array in arrays.items()}
    return {name: array for name, array in finite.items() if array.size}


def histogram(values: np.ndarray) -> dict[str, Any]:
    """`HISTOGRAM_BINS` equal bins from the smallest to the largest value: `low`, `high`, `counts`."""
    counts, edges = np.histogram(values, bins=HISTOGRAM_BINS)
    return {"low": float(edges[0]), "high": float(edges[-1]), "counts": counts.tolist()}
