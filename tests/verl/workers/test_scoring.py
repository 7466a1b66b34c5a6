"""Groups are scored while others are generated, several at once where several wait."""

from __future__ import annotations

from threading import Event
from types import SimpleNamespace

import pytest
import torch

from verl.workers.rollout import Completion
from verl.workers.scoring import ScoringThread, Unscored


def group(uid, texts=("a", "bb"), greedy=()):
    completions = [
        [Completion([ord(letter) for letter in text], torch.zeros(len(text)), False) for text in some] for some in (texts, greedy)
    ]
    return Unscored(uid, SimpleNamespace(sample_id=f"video/{uid}"), 5, *completions)


def lengths(responses):
    return [SimpleNamespace(total=float(len(text)), parts={"length": float(len(text))}, failure=None) for text in responses]


class Slow:
    """Waits in its first call until it is told to go on."""

    def __init__(self):
        self.begun, self.go, self.calls = Event(), Event(), []

    def score(self, example, responses):
        self.calls.append([example.sample_id])
        self.begun.set()
        assert self.go.wait(10)
        return lengths(responses)

    def score_groups(self, groups):
        self.calls.append([example.sample_id for example, _ in groups])
        return [ValueError("no frames") if example.sample_id == "video/2" else lengths(responses) for example, responses in groups]


def decode(ids):
    return "".join(map(chr, ids))


def test_those_that_wait_are_scored_together_and_one_error_is_its_own():
    scorer = Slow()
    thread = ScoringThread(scorer, decode, torch.device("cpu"))
    first = thread.submit(group(0))
    assert scorer.begun.wait(10)
    others = [thread.submit(group(uid, greedy=("ccc",) if uid == 3 else ())) for uid in (1, 2, 3)]
    scorer.go.set()
    assert first.result(10).totals == [1.0, 2.0] and first.result().responses == ["a", "bb"] and first.result().baseline is None
    assert others[0].result(10).totals == [1.0, 2.0]
    with pytest.raises(RuntimeError, match="video/2: its responses could not be scored: ValueError: no frames"):
        others[1].result(10)
    assert others[2].result(10).baseline == 3.0 and others[2].result().totals == [1.0, 2.0] and others[2].result().response_tokens == [1, 2]
    assert scorer.calls == [["video/0"], ["video/1", "video/2", "video/3"]]


def test_a_scorer_of_single_groups_and_one_that_miscounts():
    class Single:
        def score(self, example, responses):
            return lengths(responses)[: 1 if example.sample_id == "video/1" else None]

    thread = ScoringThread(Single(), decode, torch.device("cpu"))
    results = [thread.submit(group(uid)) for uid in (0, 1)]
    assert results[0].result(10).totals == [1.0, 2.0]
    with pytest.raises(RuntimeError, match="video/1: the scorer gave 1 scores for 2 responses"):
        results[1].result(10)
