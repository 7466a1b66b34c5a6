"""The published schedule in the GRPO benchmark: every response is a group of its own, with its own advantages."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.grpo_backend import BenchWorker
from verl.models.packing import TokenizedGroup
from verl.protocol import GroupAdvantages
from verl.workers.micro_batches import StoredGroup
from verl.workers.rollout_engine import Completion
from verl.workers.scoring_thread import GroupCompletions
from verl.workers.worker import Worker


@pytest.fixture
def worker():
    worker = object.__new__(BenchWorker)
    worker.schedule, worker.groups = "published", {}
    worker.scoring = SimpleNamespace(drop=lambda _: None)
    for uid in (3, 4):
        ids = [torch.tensor([uid, 1, 2]), torch.tensor([uid])]
        worker.groups[uid] = StoredGroup(TokenizedGroup(torch.tensor([7]), ids), [torch.zeros(3), torch.ones(1)])
    return worker


def test_every_response_is_a_group_with_old_log_probabilities(worker, monkeypatch):
    seen = {}
    for name, kind in (("compute_ref_log_probs", "uids"), ("compute_old_log_probs", "old")):
        monkeypatch.setattr(Worker, name, lambda _, uids, kind=kind: {kind: seen.setdefault(kind, list(uids))})
    monkeypatch.setattr(Worker, "update", lambda _, advantages: seen.update(advantages=advantages))
    worker.compute_ref_log_probs([3, 4])
    assert seen["old"] == seen["uids"] and len(set(seen["uids"])) == 4
    singles = [worker.groups[uid] for uid in seen["uids"]]
    assert [each.group.response_ids[0].tolist() for each in singles] == [[3, 1, 2], [3], [4, 1, 2], [4]]
    assert [len(each.rollout_log_probs[0]) for each in singles] == [3, 1, 3, 1]

    worker.update([GroupAdvantages(uid, [np.full(3, uid, np.float32), np.full(1, -uid, np.float32)]) for uid in (3, 4)])
    assert [each.uid for each in seen["advantages"]] == seen["uids"]
    assert [each.advantages[0].tolist() for each in seen["advantages"]] == [[3.0] * 3, [-3.0], [4.0] * 3, [-4.0]]

    worker.drop([3, 4])
    assert not worker.groups


def test_fixed_responses_depend_on_the_sample_alone(worker, monkeypatch):
    stored = []
    monkeypatch.setattr(Worker, "_store", lambda *args: stored.append(args[-1].responses))
    worker.fixed = True
    for drawn in ([1, 2], [3, 4]):
        worker._store(5, None, None, GroupCompletions([Completion(drawn, torch.zeros(2), True)]))
    assert stored[0][0].ids == stored[1][0].ids and len(stored[0][0].ids) == 2
