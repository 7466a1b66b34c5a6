"""The workers as the loops see them (`verl.protocol.TrainingBackend`): every call reaches every worker through Ray, and
returns when all are done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Self

from verl.atomic_files import FileChecksums
from verl.config import Config
from verl.metric_types import Metrics, Progress, ReplicatedMetric, reduce_over_ranks, reduce_over_step
from verl.protocol import GroupAdvantages, GroupRequest, GroupResult, Task
from verl.single_controller import WorkerError, WorkerGroup, WorkerSpec, connect_ray
from verl.workers.memory import OutOfMemory, allocator_env, memory_plan, offloaded_components
from verl.workers.worker import Worker

EVALUATION_BATCH = 8  # examples of a worker in one round of `evaluate_loss`; 6 frames of 560 x 560 are 45 MB


class RayBackend:
    """Starts the workers and leads them. A context manager: they end with the block.

    Args:
        config: of the run; its device is "cuda" or "cpu".
        task: each worker opens the data and makes the scorer for itself.
        on_progress: called about once a second during a call: phase -> (groups done, groups).
    """

    worker_class: type[Worker] = Worker

    def __init__(self, config: Config, task: Task, on_progress: Callable[[Progress], None] | None = None) -> None:
        trainer, needs_rollout = config.trainer, task.scorer is not None
        self.parallel = config.worker.rollout.tensor_parallel_size if needs_rollout else 1
        spec = WorkerSpec(
            trainer.nnodes * trainer.n_gpus_per_node,
            trainer.nnodes,
            trainer.device,
            processes=config.sft.num_workers,
            env={} if needs_rollout else allocator_env(),
            timeout=trainer.phase_timeout,
            run=trainer.save_checkpoint_path,
        )
        self.replicas = spec.count // self.parallel
        self.draws_pictures = task.draw_pictures is not None
        self._owner: dict[int, int] = {}  # the rank that keeps a group
        start = time.perf_counter()
        connect_ray(trainer.n_gpus_per_node, trainer.nnodes)
        self.workers = WorkerGroup(self.worker_class, spec, config, task)
        created = time.perf_counter()
        try:
            sizes = self.workers.call("setup")[0]
            self.device_name: str = self.workers.call("device_name")[0]
        except BaseException:
            self.close()
            raise
        self.workers.on_progress = on_progress
        unit = "GPU" if trainer.device == "cuda" else "worker"
        self._memory_plan = memory_plan(sizes, offloaded_components(config), unit)
        _print_start(self._memory_plan, sizes, created - start, time.perf_counter() - start)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, WorkerError) and error.cause == OutOfMemory.__name__:
            error.trace = "\n".join([*self._memory_plan, ""])
        self.close()

    def rollout(self, batches: Sequence[Sequence[GroupRequest]], validation: bool = False) -> Metrics:
        per_worker = self._per_replica(batches)
        return reduce_over_ranks(self.workers.scatter("rollout", per_worker, validation=validation))

    def prefetch_rollout_batch(self, batches: Sequence[Sequence[GroupRequest]]) -> None:
        self.workers.scatter("prefetch_rollout_batch", self._per_replica(batches))

    def collect_scores(self, uids: Sequence[int]) -> list[GroupResult]:
        results: dict[int, GroupResult] = {}
        for rank, local in enumerate(self.workers.call("collect_scores", list(uids))):
            self._owner |= {result.uid: rank for result in local}
            results |= {result.uid: result for result in local}
        return [results[uid] for uid in uids]

    def draw_pictures(
        self, groups: Sequence[tuple[GroupRequest, Sequence[str]]], folder: str, validation: bool = False
    ) -> list[list[dict[str, str]]]:
        if not self.draws_pictures:
            return [[{} for _ in responses] for _, responses in groups]
        world = len(self.workers)
        per_worker = [list(groups[rank::world]) for rank in range(world)]
        drawn = self.workers.scatter("draw_pictures", per_worker, folder=folder, validation=validation)
        return [drawn[number % world][number // world] for number in range(len(groups))]

    def compute_ref_log_probs(self, uids: Sequence[int]) -> Metrics:
        return reduce_over_ranks(self.workers.call("compute_ref_log_probs", list(uids)))

    def compute_old_log_probs(self, uids: Sequence[int]) -> Metrics:
        return reduce_over_ranks(self.workers.call("compute_old_log_probs", list(uids)))

    def compute_self_certainty(self, uids: Sequence[int]) -> dict[int, list[float]]:
        ranks = self.workers.call("compute_self_certainty", list(uids))
        return {uid: values for local in ranks for uid, values in local.items()}

    def update(self, advantages: Sequence[GroupAdvantages]) -> Metrics:
        per_worker: list[list[GroupAdvantages]] = [[] for _ in range(len(self.workers))]
        for each in advantages:
            per_worker[self._owner[each.uid]].append(each)
        metrics = reduce_over_ranks(self.workers.scatter("update", per_worker))
        megabytes = self.workers.take_transferred_bytes() / max(1, len(advantages)) / 1e6
        return metrics | {"ray/transfer_mb_per_prompt": ReplicatedMetric(megabytes)}

    def take_nonfinite_samples(self) -> list[str]:
        return [name for local in self.workers.call("take_nonfinite_samples") for name in local]

    def drop(self, uids: Sequence[int]) -> None:
        for uid in uids:
            self._owner.pop(uid, None)
        self.workers.call("drop", list(uids))

    def prefetch_sft_batch(self, batches: Sequence[Sequence[GroupRequest]]) -> None:
        self.workers.scatter("prefetch_sft_batch", self._per_worker(batches))

    def fine_tune(self, batches: Sequence[Sequence[GroupRequest]]) -> Metrics:
        return reduce_over_ranks(self.workers.scatter("fine_tune", self._per_worker(batches)))

    def evaluate_loss(self, batches: Sequence[Sequence[GroupRequest]]) -> Metrics:
        """In rounds, so that a worker never holds the pixels of more than EVALUATION_BATCH examples."""
        per_worker = self._per_worker(batches)
        rounds: list[Metrics] = []
        for start in range(0, max(map(len, per_worker)), EVALUATION_BATCH):
            some = [requests[start : start + EVALUATION_BATCH] for requests in per_worker]
            rounds.append(reduce_over_ranks(self.workers.scatter("evaluate_loss", some)))
        tokens = sum(each["response_tokens"] for each in rounds)
        loss = sum(each["loss"] * each["response_tokens"] for each in rounds) / max(tokens, 1.0)
        return reduce_over_step(rounds) | {"loss": ReplicatedMetric(loss), "response_tokens": ReplicatedMetric(tokens)}

    def skipped_samples(self) -> dict[str, str]:
        return {name: reason for local in self.workers.call("skipped_samples") for name, reason in local.items()}

    def check_folder(self, folder: str, token: str) -> list[tuple[str, str | None]]:
        return self.workers.call("check_folder", folder, token)

    def save(self, folder: str) -> FileChecksums:
        return {name: record for local in self.workers.call("save", folder) for name, record in local.items()}

    def load(self, folder: str) -> None:
        self.workers.call("load", folder)

    def close(self) -> None:
        self.workers.stop()

    def _per_replica(self, batches: Sequence[Sequence[GroupRequest]]) -> list[list[GroupRequest]]:
        """The batches of the replicas, whole for each worker: those of a replica submit the same requests."""
        return [list(batch) for batch in batches for _ in range(self.parallel)]

    def _per_worker(self, batches: Sequence[Sequence[GroupRequest]]) -> list[list[GroupRequest]]:
        """The batches of the replicas, divided among the workers of each."""
        return [list(batch[rank :: self.parallel]) for batch in batches for rank in range(self.parallel)]


def _print_start(plan: Sequence[str], sizes: Metrics, created: float, total: float) -> None:
    """The seconds of each component's start, and the memory plan."""
    seconds = {name.removeprefix("timing_s/"): taken for name, taken in sizes.items() if name.startswith("timing_s/")}
    shown = ", ".join(f"{component} {taken:.0f}" for component, taken in ({"workers": created} | seconds).items())
    print(f"started in {total:.0f} s: {shown}")
    print("\n".join(plan), flush=True)
