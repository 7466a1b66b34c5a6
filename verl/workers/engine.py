"""The workers as the loops see them (`verl.protocol.Engine`): every call reaches every worker through Ray and returns
when all are done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Self

from verl.config import Config
from verl.protocol import GroupAdvantages, GroupRequest, GroupResult, Scorer, TrainingData
from verl.single_controller import WorkerGroup, WorkerSpec, connect_ray
from verl.workers.memory import memory_plan, training_env
from verl.workers.worker import Worker

EVALUATED = 8  # examples of a worker in one round of `evaluate_loss`; 6 frames of 560 x 560 are 45 MB


class RayEngine:
    """Starts the workers and leads them. A context manager: they end with the block.

    Args:
        config: of the run; its device is settled ("cuda" or "cpu").
        make_data: opens the training data, on each worker.
        make_scorer: makes the scorer on a device; None: nothing is generated and no vLLM is started.
        make_validation: opens the validation data; None: validation prompts come from the training data.

    Attributes:
        places: independent rollout engines, each of `worker.rollout.tensor_parallel_size` workers.
        device_name: of one worker's device.
    """

    worker_class: type[Worker] = Worker

    def __init__(
        self,
        config: Config,
        make_data: Callable[[], TrainingData],
        make_scorer: Callable[[str], Scorer] | None,
        make_validation: Callable[[], TrainingData] | None = None,
    ) -> None:
        trainer = config.trainer
        self.parallel = config.worker.rollout.tensor_parallel_size if make_scorer is not None else 1
        env = {"VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING")}
        if make_scorer is None:
            env |= training_env()
        count = trainer.nnodes * trainer.n_gpus_per_node
        spec = WorkerSpec(
            count, trainer.device, processes=config.sft.num_workers, env=env, timeout=trainer.worker_timeout
        )
        self.places = spec.count // self.parallel
        self._owner: dict[int, int] = {}  # the worker that keeps a group
        start = time.perf_counter()
        connect_ray(spec, trainer.nnodes)
        self.workers = WorkerGroup(self.worker_class, spec, config, make_data, make_scorer, make_validation)
        created = time.perf_counter()
        try:
            sizes = self.workers.call("setup")
            self.device_name: str = self.workers.call("device_name")[0]
        except BaseException:
            self.close()
            raise
        seconds = {"workers": created - start} | _parts(sizes[0], "seconds/")
        print(
            f"started in {time.perf_counter() - start:.0f} s: "
            f"{', '.join(f'{part} {taken:.0f}' for part, taken in seconds.items())}"
        )
        actor, ref = config.worker.actor.offload, config.worker.ref.offload
        offload = {
            "weights": actor.param_offload,
            "optimizer": actor.optimizer_offload,
            "reference": ref.param_offload,
            "engine": config.worker.rollout.sleep,
        }
        gpu = trainer.device == "cuda"  # on the CPU nothing has anywhere to go
        print("\n".join(memory_plan(sizes[0], offload if gpu else {}, "GPU" if gpu else "worker")), flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rollout(self, shares: Sequence[Sequence[GroupRequest]], validation: bool = False) -> dict[str, float]:
        wanted = [
            list(share) for share in shares for _ in range(self.parallel)
        ]  # every worker of an engine submits the same requests
        return _merged(self.workers.scatter("rollout", wanted, validation=validation))

    def score(self, uids: Sequence[int]) -> list[GroupResult]:
        results: dict[int, GroupResult] = {}
        for rank, part in enumerate(self.workers.call("score", list(uids))):
            self._owner |= {result.uid: rank for result in part}
            results |= {result.uid: result for result in part}
        return [results[uid] for uid in uids]

    def reference(self, uids: Sequence[int], old: bool) -> dict[str, float]:
        return _merged(self.workers.call("reference", list(uids), old))

    def certainty(self, uids: Sequence[int]) -> dict[int, list[float]]:
        return {uid: values for part in self.workers.call("certainty", list(uids)) for uid, values in part.items()}

    def update(self, advantages: Sequence[GroupAdvantages]) -> dict[str, float]:
        shares: list[list[GroupAdvantages]] = [[] for _ in range(len(self.workers))]
        for each in advantages:
            shares[self._owner[each.uid]].append(each)
        figures = _merged(self.workers.scatter("update", shares))
        figures["ray/megabytes_per_prompt"] = self.workers.take_traffic() / max(1, len(advantages)) / 1e6
        return figures

    def drop(self, uids: Sequence[int]) -> None:
        for uid in uids:
            self._owner.pop(uid, None)
        self.workers.call("drop", list(uids))

    def read_ahead(self, shares: Sequence[Sequence[GroupRequest]]) -> None:
        self.workers.scatter("read_ahead", self._one_each(shares))

    def fine_tune(self, shares: Sequence[Sequence[GroupRequest]]) -> dict[str, float]:
        return _merged(self.workers.scatter("fine_tune", self._one_each(shares)))

    def evaluate_loss(self, shares: Sequence[Sequence[GroupRequest]]) -> dict[str, float]:
        """In rounds, so that a worker never holds the pixels of more than EVALUATED examples."""
        wanted = self._one_each(shares)
        loss = tokens = 0.0
        figures: dict[str, float] = {}
        for start in range(0, max(len(share) for share in wanted), EVALUATED):
            part = [share[start : start + EVALUATED] for share in wanted]
            figures = _merged(self.workers.scatter("fine_tune", part, step=False))
            loss, tokens = loss + figures["loss"] * figures["tokens"], tokens + figures["tokens"]
        return figures | {"loss": loss / max(tokens, 1.0), "tokens": tokens}

    def skipped(self) -> dict[str, str]:
        return {name: reason for part in self.workers.call("skipped") for name, reason in part.items()}

    def save(self, folder: str) -> None:
        self.workers.call("save", folder)

    def load(self, folder: str) -> None:
        self.workers.call("load", folder)

    def close(self) -> None:
        self.workers.stop()

    def _one_each(self, shares: Sequence[Sequence[GroupRequest]]) -> list[list[GroupRequest]]:
        """The shares of the places, dealt out to the workers of each."""
        return [list(share[part :: self.parallel]) for share in shares for part in range(self.parallel)]


def _parts(figures: dict[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)}


def _merged(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """One figure per name: the largest over workers of a `memory/` or `seconds/` figure; any other is already the whole
    batch's on every worker.
    """
    own = ("memory/", "seconds/")
    return {
        name: max(each[name] for each in figures) if name.startswith(own) else value
        for name, value in figures[0].items()
    }
