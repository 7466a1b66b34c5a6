"""Groups are scored while others are generated, those that were asked for together at once."""

from __future__ import annotations

import math
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from verl.workers.rollout_engine import Completion
from verl.workers.scoring_thread import GroupCompletions, PendingGroup, ScoringThread


def group(uid, texts=("a", "bb"), greedy=()):
    responses, greedy = (
        [Completion([ord(letter) for letter in text], torch.zeros(len(text)), False) for text in some]
        for some in (texts, greedy)
    )
    return PendingGroup(uid, SimpleNamespace(sample_id=f"video/{uid}"), 5, GroupCompletions(responses, *greedy))


def lengths(responses):
    return [
        SimpleNamespace(total=float(len(text)), parts={"length": float(len(text))}, failure=None) for text in responses
    ]


class Scorer:
    def __init__(self):
        self.calls = []

    def score(self, example, responses):
        self.calls.append([example.sample_id])
        return lengths(responses)

    def score_groups(self, groups):
        self.calls.append([example.sample_id for example, _ in groups])
        return [
            ValueError("no frames") if example.sample_id == "video/2" else lengths(responses)
            for example, responses in groups
        ]


def decode(ids):
    return "".join(map(chr, ids))


@pytest.mark.parametrize("order", [(3, 0, 4, 2, 1), (0, 1, 2, 3, 4)])
def test_groups_are_scored_as_they_were_asked_for_whenever_they_come(order):
    scorer = Scorer()
    thread = ScoringThread(scorer, decode, torch.device("cpu"))
    thread.register(range(5))
    assert thread.progress() == {"generation": (0, 5), "scoring": (0, 5)}
    for uid in order:
        thread.submit(group(uid, greedy=("ccc",) if uid == 3 else ()))
    last, first, third = thread.results([4, 0, 3, 17])  # 17 is on another worker
    assert last.scores == [1.0, 2.0] and last.responses == ["a", "bb"]
    assert first.scores == [1.0, 2.0] and first.baseline is None
    assert thread.run(lambda text: text + "!", "in the thread") == "in the thread!"
    assert thread.progress() == {"generation": (5, 5), "scoring": (5, 5)}
    assert (third.baseline, third.scores, third.response_tokens) == (3.0, [1.0, 2.0], [1, 2])
    for wait in (thread.wait, lambda: thread.results([2])):
        with pytest.raises(RuntimeError, match="video/2: its responses could not be scored: ValueError: no frames"):
            wait()
    thread.drop([2, 3])
    thread.wait()
    assert thread.results([2, 3]) == []
    assert sorted(scorer.calls) == [["video/0", "video/1", "video/2", "video/3"], ["video/4"]]
    assert not thread._waiting and not thread._batches


def test_nobody_waits_for_a_group_that_the_scorer_forgot():
    class Forgetful(Scorer):
        def score_groups(self, groups):
            return super().score_groups(groups)[:1]

    thread = ScoringThread(Forgetful(), decode, torch.device("cpu"))
    thread.register([0, 1])
    for uid in (0, 1):
        thread.submit(group(uid))
    assert thread.results([0])[0].scores == [1.0, 2.0]
    with pytest.raises(RuntimeError, match=r"video/1: its responses could not be scored: ValueError: .*shorter"):
        thread.results([1])


def test_a_scorer_of_single_groups_and_one_that_miscounts():
    class Single:
        def score(self, example, responses):
            return lengths(responses)[: 1 if example.sample_id == "video/1" else None]

    thread = ScoringThread(Single(), decode, torch.device("cpu"))
    thread.register([0, 1])
    for uid in (0, 1):
        thread.submit(group(uid))
    assert thread.results([0])[0].scores == [1.0, 2.0]
    with pytest.raises(RuntimeError, match="video/1: the scorer gave 1 scores for 2 responses"):
        thread.results([1])


def scored(scorer, count=1, **options):
    thread = ScoringThread(scorer, decode, torch.device("cpu"), **options)
    thread.register(range(count))
    for uid in range(count):
        thread.submit(group(uid))
    return thread


class Raises:
    """Raises for video/0, and for a batch that holds it."""

    def __init__(self, error):
        self.error = error

    def score(self, example, responses):
        if example.sample_id == "video/0":
            raise self.error
        return lengths(responses)

    def score_groups(self, groups):
        return [self.score(*each) for each in groups]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), OSError("gone")], ids=lambda error: repr(error))
def test_whatever_a_scorer_raises_is_named_or_left_out(error):
    with pytest.raises(RuntimeError, match=f"video/0: its responses could not be scored: {type(error).__name__}"):
        scored(Raises(error)).results([0])
    first, second = scored(Raises(error), count=2, on_error="skip").results([0, 1])
    assert all(math.isnan(total) for total in first.scores) and first.parts == [{}, {}]
    assert second.scores == [1.0, 2.0]


@pytest.mark.parametrize("value", [1e38, -1e19, float("inf")])
def test_a_score_beyond_float32_is_named_or_left_out(value):
    class Huge:
        def score(self, example, responses):
            return [SimpleNamespace(total=value, parts={}, failure=None) for _ in responses]

    with pytest.raises(RuntimeError, match=r"video/0: a score of .* overflows float32"):
        scored(Huge()).results([0])
    (left_out,) = scored(Huge(), on_error="skip").results([0])
    assert all(math.isnan(total) for total in left_out.scores)


def test_a_scorer_that_hangs_is_named_within_its_time():
    release = threading.Event()

    class Hangs:
        def score(self, example, responses):
            release.wait(300)
            return lengths(responses)

    thread = scored(Hangs(), timeout=0.5)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"video/0: its responses were not scored within trainer.phase_timeout"):
        thread.wait()
    assert time.monotonic() - start < 60
    thread.timeout = 60
    release.set()
    thread.wait()


class PreparingScorer(Scorer):
    def prepare(self, example):
        if example.sample_id == "video/1":
            raise ValueError("no frames")
        return SimpleNamespace(sample_id=f"prepared {example.sample_id}")


def test_examples_are_prepared_and_an_error_comes_back_with_the_group():
    scorer = PreparingScorer()
    thread = ScoringThread(scorer, decode, torch.device("cpu"))
    thread.register(range(2))
    for uid in range(2):
        thread.prepare(uid, group(uid).example)
        thread.submit(group(uid))
    (whole,) = thread.results([0])
    assert whole.sample_id == "video/0" and scorer.calls == [["prepared video/0"]]
    with pytest.raises(RuntimeError, match="video/1: its responses could not be scored: ValueError: no frames"):
        thread.results([1])
    unprepared = ScoringThread(Scorer(), decode, torch.device("cpu"))
    unprepared.prepare(3, group(3).example)  # nothing to do
    unprepared.register([3])
    unprepared.submit(group(3))
    unprepared.wait()
