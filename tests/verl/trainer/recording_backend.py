"""A small data set in memory, and a backend in this process that follows the protocol without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from verl.atomic_files import FileChecksums, fsync_file
from verl.metric_types import Metrics, PeakMetric
from verl.protocol import GroupAdvantages, GroupRequest, GroupResult
from verl.workers.rollout_pictures import save_pictures


class ListData:
    """`count` prompts; prompt i has 10 + i words and one image."""

    def __init__(self, count: int = 12) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def sample_id(self, index: int) -> str:
        return f"video/{index}"

    def messages_and_sizes(self, index: int, seed: int) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
        return [{"role": "user", "content": "word " * (10 + index)}], [(112, 112)]


def count_words(messages: Sequence[dict[str, Any]], sizes: Sequence[tuple[int, int]]) -> int:
    """16 tokens an image, one a word."""
    return sum(len(message["content"].split()) for message in messages) + 16 * len(sizes)


class RecordingBackend:
    """Scores are a function of (index, response); the weight is the sum of all first advantages it was updated with."""

    replicas, device_name = 2, "cpu"

    def __init__(self, n: int = 4, equal: Sequence[int] = (), nan: Sequence[int] = ()) -> None:
        self.n, self.equal, self.nan = n, equal, nan
        self.calls: list[tuple[str, Any]] = []
        self.stored: dict[int, GroupRequest] = {}
        self.weight = 0.0

    def rollout(self, batches: Sequence[Sequence[GroupRequest]], validation: bool = False) -> Metrics:
        self.calls.append(("rollout", [[request.uid for request in batch] for batch in batches]))
        self.stored |= {request.uid: request for batch in batches for request in batch}
        self.validation = validation
        return {"rollout/seen": 1.0}

    def collect_scores(self, uids: Sequence[int]) -> list[GroupResult]:
        self.calls.append(("collect_scores", list(uids)))
        return [self.result(uid, 1 if self.validation else self.n) for uid in uids]

    def result(self, uid: int, n: int) -> GroupResult:
        index = self.stored[uid].index
        scores = [float((index + response) % 5) for response in range(n)]
        if index in self.equal:
            scores = [1.0] * n
        if index in self.nan:
            scores = [float("nan")] * n
        return GroupResult(
            uid=uid,
            sample_id=f"video/{index}",
            prompt_tokens=26 + index,
            responses=["text"] * n,
            response_tokens=[2 + response for response in range(n)],
            truncated=[False] * n,
            scores=scores,
            parts=[{"format": total} for total in scores],
            parse_failures=["no answer" if total == 0 else None for total in scores],
        )

    def draw_pictures(
        self, groups: Sequence[tuple[GroupRequest, Sequence[str]]], folder: str, validation: bool = False
    ) -> list[list[dict[str, str]]]:
        self.calls.append(("draw_pictures", [request.uid for request, _ in groups]))
        blank = np.zeros((8, 8, 3), np.uint8)
        return [
            save_pictures(Path(folder), f"{request.uid}", [{"masks": blank} for _ in responses])
            for request, responses in groups
        ]

    def compute_ref_log_probs(self, uids: Sequence[int]) -> Metrics:
        self.calls.append(("compute_ref_log_probs", list(uids)))
        return {}

    def compute_old_log_probs(self, uids: Sequence[int]) -> Metrics:
        self.calls.append(("compute_old_log_probs", list(uids)))
        return {}

    def update(self, advantages: Sequence[GroupAdvantages]) -> Metrics:
        assert all(each.uid in self.stored for each in advantages)
        self.calls.append(("update", [each.uid for each in advantages]))
        self.weight += float(
            sum(np.sum(values) * (each.uid + 1) for each in advantages for values in each.advantages[:1])
        )
        return {"actor/loss": self.weight, "memory/peak_update_gib": PeakMetric(1.0)}

    def take_nonfinite_samples(self) -> list[str]:
        return ["video/7"]

    def prefetch_rollout_batch(self, batches: Sequence[Sequence[GroupRequest]]) -> None:
        self.calls.append(("prefetch_rollout_batch", [[request.uid for request in batch] for batch in batches]))

    def prefetch_sft_batch(self, batches: Sequence[Sequence[GroupRequest]]) -> None:
        self.calls.append(("prefetch_sft_batch", [[request.uid for request in batch] for batch in batches]))

    def skipped_samples(self) -> dict[str, str]:
        return {"video/3": "no frame 7"}

    def fine_tune(self, batches: Sequence[Sequence[GroupRequest]]) -> Metrics:
        self.calls.append(("fine_tune", [[request.uid for request in batch] for batch in batches]))
        self.weight += sum(request.seed % 1000 for batch in batches for request in batch)
        return {"loss": self.weight}

    def evaluate_loss(self, batches: Sequence[Sequence[GroupRequest]]) -> Metrics:
        self.calls.append(("evaluate_loss", [[request.uid for request in batch] for batch in batches]))
        return {"loss": self.weight}

    def drop(self, uids: Sequence[int]) -> None:
        for uid in uids:
            del self.stored[uid]

    def check_folder(self, folder: str, token: str) -> list[tuple[str, str | None]]:
        Path(folder, f".shared_{token}_0").touch()
        return [("here", None)]

    def save(self, folder: str) -> FileChecksums:
        path = Path(folder, "actor", "huggingface")
        path.mkdir(parents=True)
        (path / "weight").write_text(repr(self.weight))
        return {"actor/huggingface/weight": fsync_file(path / "weight")}

    def load(self, folder: str) -> None:
        self.weight = float(Path(folder, "actor", "huggingface", "weight").read_text())

    def updates(self) -> list[list[int]]:
        return [value for name, value in self.calls if name == "update"]
