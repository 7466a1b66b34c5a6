"""One GPU's worker: the actor (FSDP2), the reference model, the vLLM engine and the scorer in one process, taking turns
with its memory.

A group stays here from its rollout to its drop: pixels are read and turned into patches once, and what leaves the
worker are `verl.protocol` messages. `verl.workers.engine.RayEngine` leads the workers; this class knows no Ray.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from verl.algorithms.advantages import required_inputs
from verl.config import Config, override
from verl.config.worker_sections import FSDPConfig
from verl.files import write_text
from verl.metric_types import Metrics, Seconds
from verl.models.families import load_family
from verl.models.hub import MODEL_PATH, TOKENIZER_PATH, local_folder
from verl.models.lora import merged_weights
from verl.models.packing import Group, padding_multiple
from verl.protocol import Example, GroupAdvantages, GroupRequest, GroupResult, Task
from verl.workers.actor import Actor
from verl.workers.checkpoint import load_state, load_weights, save_state, save_weights, seed_everything
from verl.workers.generation import GroupRollout
from verl.workers.groups import StoredGroup
from verl.workers.memory import PeakMeter, measure_bytes
from verl.workers.prefetch import LoaderSpec, ProcessPrefetcher, ThreadPrefetcher
from verl.workers.prompts import Prompt, PromptBuilder
from verl.workers.reference import Reference
from verl.workers.rollout import RolloutEngine
from verl.workers.scoring import Completions, PendingGroup, ScoringThread
from verl.workers.sharding import DTYPES, make_gather, sharding_mesh

LOADER_THREADS = 8  # they read and process images while others wait for the disk


class Worker:
    """One rank. Methods named as those of `verl.protocol.Engine` do that for this rank's groups.

    RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are set before it is created.
    """

    def __init__(self, config: Config, task: Task) -> None:
        self.config, self.task = config, task
        self.rank, self.world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.cuda = config.trainer.device == "cuda"
        self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if self.cuda else torch.device("cpu")
        if self.cuda:
            torch.cuda.set_device(self.device)
        else:
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        if not dist.is_initialized():
            backend = "cuda:nccl,cpu:gloo" if self.cuda else "gloo"
            dist.init_process_group(backend, rank=self.rank, world_size=self.world)
        self.groups: dict[int, StoredGroup] = {}
        self.peak = PeakMeter(self.device)

    def setup(self) -> Metrics:
        """Builds everything; returns each part's measured bytes on this rank, for the memory plan, and seconds."""
        config = self.config = _localize(self.config)  # on each host: a hub name may be in another cache here
        model = config.worker.actor.model
        self.data = self.task.data()
        self.validation = self.task.validation() if self.task.validation else self.data
        make_prompts = partial(
            PromptBuilder,
            model.tokenizer_path or model.model_path or "",
            config.data.min_pixels,
            config.data.max_pixels,
            family=load_family(model.model_path, **model.override_config),
        )
        self.prompts = make_prompts(pin=self.cuda)
        self.threads = ThreadPoolExecutor(LOADER_THREADS, thread_name_prefix="load")
        self.loader = ThreadPrefetcher(self.threads, self.data, self.prompts, config.data.max_response_length)
        seed_everything(config.data.seed)  # the same on every rank: they initialize the same adapter
        sizes: Metrics = {}
        self.rollout_engine: RolloutEngine | None = None
        if self.task.scorer is not None:
            with measure_bytes(self.device, sizes, "engine"):
                self.rollout_engine = RolloutEngine(config.worker.rollout, model, self.device.type, self.prompts)
            self.rollout_engine.sleep()
            with measure_bytes(self.device, sizes, "scorer"):
                scorer = self.task.scorer(str(self.device))
            self.scoring = ScoringThread(scorer, self.prompts.decode, self.device)
        actor = config.worker.actor
        with measure_bytes(self.device, sizes, "weights"):
            self.actor = Actor(actor, config.worker.rollout, self._mesh(actor.fsdp))
        self.processes: ProcessPrefetcher | None = None
        if config.sft.num_workers > 0:
            dtype = DTYPES[actor.fsdp.mp_param_dtype] if self.cuda else torch.float32
            limit = config.data.max_response_length
            spec = LoaderSpec(self.task.data, make_prompts, limit, actor, padding_multiple(), dtype)
            self.processes = ProcessPrefetcher(spec, config.sft.num_workers, self.threads, pin=self.cuda)
        self.reference: Reference | None = None
        if self.task.scorer is not None and actor.use_kl_loss and actor.kl_loss_coef != 0:
            with measure_bytes(self.device, sizes, "reference"):
                self.reference = Reference(self.actor, config.worker.ref, self._mesh(config.worker.ref.fsdp))
        seed_everything(config.data.seed + self.rank)  # vLLM has set the generators too
        self.weights_stale = True  # the rollout engine does not hold the actor's weights yet
        return sizes | self.actor.training_bytes()

    def device_name(self) -> str:
        """As the device's vendor names it."""
        return torch.cuda.get_device_name(self.device) if self.cuda else "CPU"

    # -- phases: what holds the GPU's memory

    @contextmanager
    def enter_rollout(self) -> Iterator[Metrics]:
        """The rollout engine is awake with the actor's present weights; the actor is offloaded as configured. Yields
        metrics that get the block's peak memory and seconds.
        """
        start = time.perf_counter()
        with self.peak.watch("rollout") as metrics:
            self._sync_weights()
            awake = time.perf_counter()
            yield metrics
            metrics["seconds/rollout/weight_sync"] = Seconds(awake - start)
            metrics["seconds/rollout/generate"] = Seconds(time.perf_counter() - awake)

    @contextmanager
    def enter_training(self, phase: str) -> Iterator[Metrics]:
        """The scorer has finished, the rollout engine sleeps. Yields metrics that get the block's peak memory."""
        if self.rollout_engine is not None:
            self.scoring.wait()
            self.rollout_engine.sleep()
        with self.peak.watch(phase) as metrics:
            yield metrics

    def _sync_weights(self) -> None:
        engine = self.rollout_engine
        assert engine is not None
        if not self.weights_stale and not engine.asleep:
            return
        self.actor.reload()
        if self.cuda:
            torch.cuda.empty_cache()  # vLLM cannot use what the update has left in PyTorch's cache
        policy = self.actor.policy
        gather = make_gather(self.device, engine.dtype if policy.lora is None else None)
        engine.load_weights(merged_weights(policy.model, gather))
        self.actor.offload()
        engine.wake_kv_cache()
        self.weights_stale = False

    # -- GRPO

    def rollout(self, requests: Sequence[GroupRequest], validation: bool = False) -> Metrics:
        """Generates the groups of this replica and begins to score each as soon as it is complete.

        Every worker of a tensor-parallel engine gets the same requests, and keeps every so many of the groups.
        """
        if self.rollout_engine is None:
            raise RuntimeError("this run has no rollout engine: it was started without a scorer")
        greedy = "baselines" in required_inputs(self.config.algorithm.adv_estimator) and not validation
        parallel = self.config.worker.rollout.tensor_parallel_size
        own = [request.uid for request in requests[self.rank % parallel :: parallel]]
        self.scoring.expect(own)
        data = self.validation if validation else self.data
        groups = GroupRollout(self.rollout_engine, self.prompts, self.threads, data, requests, own, validation, greedy)
        with self.enter_rollout() as metrics:
            groups.run(self._store)
        return metrics

    def _store(
        self, uid: int, example: Example, prompt: Prompt, prompt_ids: Sequence[int], completions: Completions
    ) -> None:
        """Keeps a complete group and hands it to the scorer."""
        if prompt_ids != prompt.ids.tolist():
            raise RuntimeError(
                f"{example.sample_id}: vLLM sees {len(prompt_ids)} prompt tokens, the actor {len(prompt.ids)}: "
                "their image processors disagree"
            )
        ids = [torch.tensor(response.ids, dtype=torch.int64) for response in completions.responses]
        group = Group(prompt.ids, ids, prompt.pixel_values, prompt.image_grid_thw)
        self.groups[uid] = StoredGroup(group, [response.log_probs for response in completions.responses])
        self.scoring.submit(PendingGroup(uid, example, len(prompt.ids), completions))

    def collect_scores(self, uids: Sequence[int]) -> list[GroupResult]:
        return self.scoring.results(uids)

    def compute_log_probs(self, uids: Sequence[int], old: bool) -> Metrics:
        stored = self._own(uids)
        groups = [each.group for each in stored]
        with self.enter_training("reference") as metrics:
            if self.reference is not None:
                for each, values in zip(stored, self.reference.log_probs(groups)):
                    each.reference = values
            if old:
                for each, values in zip(stored, self.actor.log_probs(groups)):
                    each.old = values
        return metrics

    def compute_certainty(self, uids: Sequence[int]) -> dict[int, list[float]]:
        groups = [each.group for each in self._own(uids)]
        with self.enter_training("certainty"):
            values = self.actor.log_probs(groups, certainty=True)
        own = [uid for uid in uids if uid in self.groups]
        return {uid: [response.mean().item() for response in responses] for uid, responses in zip(own, values)}

    def update(self, advantages: Sequence[GroupAdvantages]) -> Metrics:
        stored = [self.groups[each.uid] for each in advantages]
        with self.enter_training("update") as memory:
            metrics = self.actor.update(stored, [each.advantages for each in advantages])
        self.weights_stale = True
        return metrics | memory

    def drop(self, uids: Sequence[int]) -> None:
        for uid in uids:
            self.groups.pop(uid, None)
        self.scoring.drop(uids)

    def _own(self, uids: Sequence[int]) -> list[StoredGroup]:
        return [self.groups[uid] for uid in uids if uid in self.groups]

    # -- supervised fine-tuning

    def prefetch(self, requests: Sequence[GroupRequest]) -> None:
        (self.processes or self.loader).prefetch(tuple(requests))

    def fine_tune(self, requests: Sequence[GroupRequest]) -> Metrics:
        with self.enter_training("update") as memory:
            if self.processes is not None:
                metrics = self.actor.fine_tune_packed(self.processes.take(tuple(requests)))
            else:
                metrics = self.actor.fine_tune(self.loader.take(tuple(requests)), step=True)
        self.weights_stale = True
        return metrics | memory

    def evaluate_loss(self, requests: Sequence[GroupRequest]) -> Metrics:
        with self.enter_training("evaluation") as memory:
            loading = [self.loader.submit(self.validation, request) for request in requests]
            metrics = self.actor.fine_tune([group.result() for group in loading], step=False)
        return metrics | memory

    def skipped(self) -> dict[str, str]:
        here = getattr(self.data, "skipped", {}) | getattr(self.validation, "skipped", {})
        return here | (self.processes.skipped if self.processes is not None else {})

    # -- checkpoints

    def save(self, folder: str) -> None:
        target, merge = Path(folder) / "actor", self.config.worker.actor.model.lora_merge
        target.mkdir(parents=True, exist_ok=True)
        self._write_task_files(target / "huggingface")
        with self.enter_training("save"):
            actor = self.actor
            actor.reload(optimizer=True)
            save_weights(actor.policy, self.prompts.processor, target, self.device, merge)
            save_state(actor.policy, actor.optimizer, actor.schedule, target)
            actor.offload()
        dist.barrier()

    def _write_task_files(self, folder: Path) -> None:
        """Writes what the task wants beside the weights; on the first rank alone."""
        if self.rank == 0 and self.task.checkpoint_files:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in self.task.checkpoint_files.items():
                write_text(folder / name, json.dumps(content, indent=1) + "\n")

    def load(self, folder: str) -> None:
        source = Path(folder) / "actor"
        with self.enter_training("load"):
            actor = self.actor
            actor.reload(optimizer=True)
            load_weights(actor.policy, source)
            load_state(actor.policy, actor.optimizer, actor.schedule, source)
            actor.offload()
        self.weights_stale = True
        dist.barrier()

    def _mesh(self, config: FSDPConfig) -> DeviceMesh:
        return sharding_mesh(self.device.type, self.world, config.fsdp_size)


def _localize(config: Config) -> Config:
    """A copy whose model and tokenizer are folders on this host."""
    model = config.worker.actor.model
    given = {MODEL_PATH: model.model_path, TOKENIZER_PATH: model.tokenizer_path}
    return override(config, {key: path and local_folder(path) for key, path in given.items()})
