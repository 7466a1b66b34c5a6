"""A group of Ray actors, one a GPU (or one a CPU rank), with the environment that torch.distributed and vLLM expect.

    group = WorkerGroup(Worker, WorkerSpec(count=2, device="cpu"), config)
    group.call("setup")                       # the same call on every rank, results in the order of the ranks
    group.scatter("rollout", [requests_0, requests_1])   # one list of arguments per rank

The workers fail together: when one raises or dies, the others are ended and `WorkerError` names the rank and its last
error.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from verl.metric_types import Progress
from verl.process_output import last_lines, worker_log_path
from verl.single_controller.cluster import cluster_processes, ended_process, forwarded_environment, kill_cluster
from verl.single_controller.progress import delete_progress, read_progress
from verl.single_controller.remote_worker import PROGRESS_PERIOD, RemoteWorker

START_TIMEOUT = 300.0  # seconds in which the cluster has to provide the workers
GRACE = 5.0  # seconds beyond a timeout
LOG_LINES = 60  # of the file of a worker that died or hangs


class WorkerError(RuntimeError):
    """A worker raised, died or hung; the message holds its rank and its last error.

    Attributes:
        trace: the worker's traceback where its error names no file, sample or key, so that the message alone would not
            help; the last lines that it wrote, where it died or hung; else "".
        cause: the name of its error's class; "" for one that hangs.
        died: a worker or the Ray cluster is gone, or a worker hangs, for which the run may not be to blame.
    """

    def __init__(self, message: str, trace: str = "", cause: str = "", died: bool = False) -> None:
        super().__init__(message)
        self.trace, self.cause, self.died = trace, cause, died


@dataclass(frozen=True)
class WorkerSpec:
    """How many workers, on what, and with which environment.

    Attributes:
        count: workers in all; adjacent ranks share a host.
        nodes: hosts, each with as many of the workers.
        device: "cuda" (one GPU each, set apart by Ray) or "cpu".
        threads: CPU threads of each worker; None is OMP_NUM_THREADS where it is set, else the machine's cores shared
            among its workers.
        processes: further processes that each worker starts; its threads leave them their cores, since threads that
            wait for one another on cores that are taken wait for a long time.
        env: further environment variables of the workers.
        timeout: seconds after which a call counts as hung.
        run: folder on every machine; what rank N and its libraries write goes to `run`/logs/rank_N.log, errors to the
            screen as well, and the stacks of one that hangs. None leaves the output to Ray.
    """

    count: int
    nodes: int = 1
    device: str = "cuda"
    threads: int | None = None
    processes: int = 0
    env: dict[str, str] = field(default_factory=dict)
    timeout: float = 3600.0
    run: str | None = None


class WorkerGroup:
    """`count` workers of one class.

    Args:
        worker_class: created on each rank after RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are set.
        spec: see WorkerSpec.
        *args, **kwargs: arguments of the class, the same on every rank.

    Attributes:
        on_progress: called about once a second while a call is under way, with the sums of what the workers' method
            `progress` returns: phase -> (done, total).
    """

    on_progress: Callable[[Progress], None] | None = None

    def __init__(self, worker_class: type, spec: WorkerSpec, *args: Any, **kwargs: Any) -> None:
        self.spec = spec
        self._transferred = 0
        group = uuid.uuid4().hex
        self._progress_keys = [f"progress/{group}/{rank}" for rank in range(spec.count)]
        self._placement: Any = None
        self._actors: list[Any] = []
        self._cluster = cluster_processes()
        try:
            self._start_actors()
            if spec.run is not None:
                logs = [worker_log_path(spec.run, rank) for rank in range(spec.count)]
                self._collect("redirect", [each.redirect.remote(path) for each, path in zip(self._actors, logs)])
            ((address, port),) = self._collect("address", [self._actors[0].address.remote()])
            shared = {"WORLD_SIZE": str(spec.count), "MASTER_ADDR": address, "MASTER_PORT": str(port)}
            shared["LOCAL_RANK"] = "0"  # everywhere: a worker's own GPU is the first that it sees
            ranks = [shared | {"RANK": str(rank)} for rank in range(spec.count)]
            if spec.device == "cuda":
                self._show_gpus()
            self._collect(
                "create",
                [
                    actor.create.remote(worker_class, env, args, kwargs, key, spec.nodes > 1)
                    for actor, env, key in zip(self._actors, ranks, self._progress_keys)
                ],
            )
        except BaseException:
            self.stop()
            raise

    def __len__(self) -> int:
        return self.spec.count

    def call(self, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Runs `method` with the same arguments on every worker; returns the results in the order of the ranks."""
        return self._run(method, [(args, kwargs)] * len(self))

    def scatter(self, method: str, values: Sequence[Any], **kwargs: Any) -> list[Any]:
        """Runs `method(values[rank], **kwargs)` on every worker; returns the results in the order of the ranks."""
        if len(values) != len(self):
            raise ValueError(f"{method}: {len(values)} arguments for {len(self)} workers")
        return self._run(method, [((value,), kwargs) for value in values])

    def take_transferred_bytes(self) -> int:
        """Bytes of arguments and results, pickled, since this was last asked."""
        transferred, self._transferred = self._transferred, 0
        return transferred

    def stop(self) -> None:
        """Ends the workers and frees what Ray had set apart for them. Safe to call twice."""
        if ended_process(self._cluster) is not None:  # Ray would wait for it
            kill_cluster(self._cluster)
            self._actors, self._placement = [], None
        for actor in self._actors:
            ray.kill(actor)
        if self._placement is not None:
            remove_placement_group(self._placement)
            delete_progress(self._progress_keys)
        self._actors, self._placement = [], None

    def __enter__(self) -> WorkerGroup:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_actors(self) -> None:
        """Starts empty actors, as many on each host, adjacent ranks on the same one."""
        spec = self.spec
        own = spec.count // spec.nodes
        resources = {"CPU": float(own), "GPU": float(own)} if spec.device == "cuda" else {"CPU": float(own)}
        have = {node["NodeManagerAddress"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        large = [host for host, has in have.items() if all(has.get(kind, 0) >= n for kind, n in resources.items())]
        if len(large) < spec.nodes:
            there = {host: {kind: has.get(kind, 0) for kind in ("CPU", "GPU")} for host, has in have.items()}
            raise WorkerError(f"{spec.nodes} hosts with {resources} each are asked for; the cluster has {there}")
        strategy = "STRICT_SPREAD" if spec.nodes > 1 else "STRICT_PACK"
        self._placement = placement_group([resources] * spec.nodes, strategy=strategy)
        if not self._placement.wait(START_TIMEOUT):
            free = ray.available_resources()
            raise WorkerError(f"{spec.nodes} hosts with {resources} each are taken by others; free are {free}")
        cores = max(1, len(os.sched_getaffinity(0)) // own - spec.processes)
        threads = spec.threads or int(os.environ.get("OMP_NUM_THREADS", 0)) or cores
        env = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true", **spec.env}
        if spec.nodes > 1 or "RAY_ADDRESS" in os.environ:  # else the workers inherit the driver's
            env = forwarded_environment(os.environ) | env
        # one call at a time (Ray's default); no restarts: a worker that died would have lost its weights; no events of
        # its calls, of which the GCS remembers 100,000: it grew by 20 MB in 440 steps of two workers
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": int(spec.device == "cuda"), "max_restarts": 0}
        options |= {"enable_task_events": False, "runtime_env": {"env_vars": env}}
        remote = ray.remote(**options)(RemoteWorker)
        hosts = (PlacementGroupSchedulingStrategy(self._placement, rank // own) for rank in range(spec.count))
        self._actors = [remote.options(scheduling_strategy=host).remote() for host in hosts]

    def _show_gpus(self) -> None:
        """Shows each worker its own GPU first and then the others of its host, whose memory vLLM's all-reduce maps."""
        gpus = self._collect("visible_gpus", [actor.visible_gpus.remote() for actor in self._actors])
        own = self.spec.count // self.spec.nodes
        calls = []
        for rank, actor in enumerate(self._actors):
            host = gpus[rank // own * own :][:own]
            calls.append(actor.set_visible_gpus.remote(",".join(sorted(host, key=gpus[rank].__ne__))))
        self._collect("set_visible_gpus", calls)

    def _run(self, method: str, calls: Sequence[tuple[tuple, dict[str, Any]]]) -> list[Any]:
        self._transferred += sum(len(cloudpickle.dumps(call)) for call in calls)
        timeout = self.spec.timeout
        refs = [actor.run.remote(method, *call, timeout) for actor, call in zip(self._actors, calls)]
        results = self._collect(method, refs, timeout)
        self._transferred += sum(len(cloudpickle.dumps(result)) for result in results)
        return results

    def _collect(self, what: str, refs: list[Any], timeout: float = START_TIMEOUT) -> list[Any]:
        """The results in order. The first failure ends the group: others may wait for that rank in a collective."""
        rank_of = {ref: rank for rank, ref in enumerate(refs)}
        results: list[Any] = [None] * len(refs)
        # a worker that notices by itself what hangs names it within the timeout
        pending, deadline = list(refs), time.monotonic() + timeout + GRACE
        while pending:
            left = max(0.0, deadline - time.monotonic())
            ready, pending = ray.wait(pending, timeout=min(left, PROGRESS_PERIOD))
            self._check_cluster(what)
            if not ready and time.monotonic() < deadline:
                if self.on_progress:
                    self.on_progress(read_progress(self._progress_keys))
                continue
            if not ready:
                ranks = sorted(rank_of[ref] for ref in pending)
                self.stop()
                what = f"`{what}` did not return within {timeout:.0f} s on ranks {ranks}"
                raise WorkerError(what, self._log_tails(ranks), died=True)
            for ref in ready:
                try:
                    results[rank_of[ref]] = ray.get(ref)
                except RayError as error:
                    # the method raised (RayTaskError), or the actor, its memory or its machine is gone
                    failure = self._worker_error(what, rank_of[ref], error, pending, rank_of)
                    self.stop()
                    raise failure from error
        return results

    def _check_cluster(self, what: str) -> None:
        """Ray itself notices only after minutes that its head is gone."""
        if (name := ended_process(self._cluster)) is not None:
            self.stop()
            raise WorkerError(f"the Ray cluster of this run is gone: {name} ended during `{what}`", died=True)

    def _worker_error(
        self, what: str, rank: int, error: Exception, pending: list[Any], rank_of: dict[Any, int]
    ) -> WorkerError:
        """Names the cause. A broken connection often means that another rank died: waits a moment for that one."""
        if isinstance(error, RayTaskError) and pending:
            ready, _ = ray.wait(pending, num_returns=len(pending), timeout=2.0)
            for ref in ready:
                try:
                    ray.get(ref)
                except RayTaskError:
                    continue
                except RayError as death:
                    rank, error = rank_of[ref], death
                    break
        if isinstance(error, RayTaskError):
            cause = error.cause if error.cause is not None else error
            told = isinstance(cause, OSError) or type(cause).__module__ != "builtins"
            trace = "" if told else f"{error}\n"  # Ray's own text is the worker's traceback
            name = type(cause).__name__
            return WorkerError(f"rank {rank} failed in `{what}`: {name}: {cause}", trace, name)
        name = type(error).__name__
        lines = str(error).splitlines()
        first = next((line for line in lines if " died because " in line), lines[0] if lines else name)
        trace = self._log_tails([rank]) + ("\n".join([*lines, ""]) if len(lines) > 1 else "")
        return WorkerError(f"rank {rank} died in `{what}`: {name}: {first}", trace, name, died=True)

    def _log_tails(self, ranks: Sequence[int]) -> str:
        """The ends of the files of some ranks."""
        if self.spec.run is None:
            return ""
        files = [worker_log_path(self.spec.run, rank) for rank in ranks]
        return "".join(f"{line}\n" for path in files for line in [f"{path} ends with:", *last_lines(path, LOG_LINES)])
