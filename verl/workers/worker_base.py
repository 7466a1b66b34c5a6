"""What one rank holds: the actor (FSDP2), the reference model, the vLLM engine and the scorer in one process, taking
turns with its memory; its checkpoints.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from verl.atomic_files import FileChecksums, compute_checksum, write_text_atomically
from verl.config import Config, override
from verl.config.worker_sections import FSDPConfig
from verl.metric_types import Metrics, TimeMetric
from verl.models.families import load_family
from verl.models.hub_download import MODEL_PATH_KEY, TOKENIZER_PATH_KEY, local_model_folder
from verl.models.lora import adapter_weights, merged_weights
from verl.models.packing import padding_multiple
from verl.protocol import Task
from verl.single_controller.rendezvous import open_store
from verl.workers.actor import Actor, lora_options
from verl.workers.group_rollout import PromptLoader
from verl.workers.memory import HeapTrimmer, PeakMemoryMeter, explain_out_of_memory, measure_bytes
from verl.workers.micro_batches import StoredGroup
from verl.workers.prefetch import LoaderSpec, ProcessPrefetcher, ThreadPrefetcher
from verl.workers.prompt_builder import PromptBuilder
from verl.workers.random_state import seed_everything
from verl.workers.ref_policy import RefPolicy
from verl.workers.rollout_engine import RolloutEngine
from verl.workers.scoring_thread import ScoringThread
from verl.workers.sharding import DTYPES, make_gather, sharding_mesh
from verl.workers.worker_checkpoint import SaveOptions, load_state, load_weights, save_state, save_weights

LOADER_THREADS = 8  # they read and process images while others wait for the disk


class WorkerBase:
    """One rank's components, phases of memory, and checkpoints.

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
            store = open_store(self.rank, self.world)
            dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.world)
        self.groups: dict[int, StoredGroup] = {}
        self.nonfinite_samples: list[str] = []
        self.peak, self.heap_trimmer = PeakMemoryMeter(self.device), HeapTrimmer()

    def setup(self) -> Metrics:
        """Builds everything; returns each component's measured bytes on this rank, for the memory plan, and seconds."""
        config = self.config = localize(self.config)  # on each host: a hub name may be in another cache here
        model = config.worker.actor.model
        self.data = self.task.data()
        self.validation = self.task.validation() if self.task.validation else self.data
        make_prompt_builder = partial(
            PromptBuilder,
            model.tokenizer_path or model.model_path or "",
            config.data.min_pixels,
            config.data.max_pixels,
            family=load_family(model.model_path, **model.override_config),
        )
        self.prompt_builder = make_prompt_builder(pin=self.cuda, dtype=self._pixel_dtype())
        self.threads = ThreadPoolExecutor(LOADER_THREADS, thread_name_prefix="load")
        limit, timeout = config.data.max_response_length, config.trainer.phase_timeout
        self.prompt_loader = PromptLoader(self.threads, self.prompt_builder)
        self.thread_prefetcher = ThreadPrefetcher(self.threads, self.data, self.prompt_builder, limit, timeout)
        seed_everything(config.data.seed)  # the same on every rank: they initialize the same adapter
        sizes: Metrics = {}
        self.rollout_engine: RolloutEngine | None = None
        if self.task.scorer is not None:
            with measure_bytes(self.device, sizes, "engine"):
                self.rollout_engine = RolloutEngine(
                    config.worker.rollout, model, self.device.type, self.prompt_builder, lora_options(model)
                )
            self.rollout_engine.sleep()
            with measure_bytes(self.device, sizes, "scorer"):
                scorer = self.task.scorer(str(self.device))
            on_error = config.worker.reward.on_scorer_error
            self.scoring = ScoringThread(scorer, self.prompt_builder.decode, self.device, on_error, timeout)
        actor = config.worker.actor
        with measure_bytes(self.device, sizes, "weights"):
            self.actor = Actor(actor, config.worker.rollout, self._mesh(actor.fsdp))
        self.process_prefetcher: ProcessPrefetcher | None = None
        if config.sft.num_workers > 0:
            dtype = DTYPES[actor.fsdp.mp_param_dtype] if self.cuda else torch.float32
            spec = LoaderSpec(self.task.data, make_prompt_builder, limit, actor, padding_multiple(), dtype)
            self.process_prefetcher = ProcessPrefetcher(spec, config.sft.num_workers, self.threads, self.cuda, timeout)
        self.ref_policy: RefPolicy | None = None
        if self.task.scorer is not None and actor.with_ref:
            with measure_bytes(self.device, sizes, "ref"):
                self.ref_policy = RefPolicy(self.actor, config.worker.ref, self._mesh(config.worker.ref.fsdp))
        seed_everything(config.data.seed + self.rank)  # vLLM has set the generators too
        self.weights_stale = True  # the rollout engine does not hold the actor's weights yet
        return sizes | self.actor.training_bytes()

    def device_name(self) -> str:
        """As the device's vendor names it."""
        return torch.cuda.get_device_name(self.device) if self.cuda else "CPU"

    def progress(self) -> dict[str, tuple[int, int]]:
        """Groups of this rank that are done, and how many there are, per phase; asked from another thread."""
        return self.scoring.progress() if hasattr(self, "scoring") else {}  # made by `setup`, where there is a scorer

    # -- phases: what holds the GPU's memory

    @contextmanager
    def enter_rollout(self) -> Iterator[Metrics]:
        """The rollout engine is awake with the actor's present weights; the actor is offloaded as configured. Yields
        metrics that get the block's peak memory and seconds.
        """
        start = time.perf_counter()
        with explain_out_of_memory("rollout"), self.peak.watch("rollout") as metrics:
            self._sync_weights()
            awake = time.perf_counter()
            yield metrics
            metrics["timing_s/rollout/weight_sync"] = TimeMetric(awake - start)
            metrics["timing_s/rollout/generate"] = TimeMetric(time.perf_counter() - awake)

    @contextmanager
    def enter_phase(self, phase: str, wait_for_scores: bool = True) -> Iterator[Metrics]:
        """The scorer has finished, where asked for, and the rollout engine sleeps. Yields metrics that get the block's
        peak memory. After an update the host's freed memory returns to the system.
        """
        if self.rollout_engine is not None:
            if wait_for_scores:
                self.scoring.wait()
            self.rollout_engine.sleep()
        with explain_out_of_memory(phase), self.peak.watch(phase) as metrics:
            yield metrics
        if phase == "update":
            self.heap_trimmer.trim()

    def _sync_weights(self) -> None:
        engine = self.rollout_engine
        assert engine is not None
        if not self.weights_stale and not engine.asleep:
            return
        self.actor.load_to_device()
        if self.cuda:
            torch.cuda.empty_cache()  # vLLM cannot use what the update has left in PyTorch's cache
        policy = self.actor.policy
        if engine.lora is None:
            engine.load_weights(merged_weights(policy.model, make_gather(self.device, engine.dtype)))
        else:
            engine.load_lora_adapter(adapter_weights(policy.model, make_gather(self.device)))
        self.actor.offload()
        engine.wake_kv_cache()
        self.weights_stale = False

    # -- checkpoints

    def check_folder(self, folder: str, token: str) -> tuple[str, str | None]:
        path, error = Path(folder, f".shared_{token}"), None
        try:
            if path.read_text() != token:
                error = f"{path} holds something else"
            path.with_name(f"{path.name}_{self.rank}").touch()
        except OSError as reason:
            error = str(reason)
        return socket.gethostname(), error

    def save(self, folder: str) -> FileChecksums:
        trainer, merge = self.config.trainer, self.config.worker.actor.model.lora_merge
        dtype = DTYPES[trainer.save_dtype] if trainer.save_dtype else None
        options = SaveOptions(merge, dtype, state=not trainer.save_weights_only)
        target, actor = Path(folder) / "actor", self.actor
        target.mkdir(parents=True, exist_ok=True)
        with self.enter_phase("save"):
            actor.load_to_device()
            files = save_weights(actor.policy, self.prompt_builder.processor, target, self.device, options)
            if options.state:
                state = actor.policy, actor.optimizer, actor.schedule
                files |= save_state(*state, target, options, actor.optimizer_offloader)
            actor.offload()
        if self.rank == 0:
            files |= self._write_task_files(target)
        dist.barrier()
        return {f"actor/{name}": record for name, record in files.items()}

    def _write_task_files(self, folder: Path) -> FileChecksums:
        """Writes what the task wants beside the weights."""
        files: FileChecksums = {}
        for name, content in self.task.checkpoint_files.items():
            path = folder / "huggingface" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text_atomically(path, json.dumps(content, indent=1) + "\n")
            files[f"huggingface/{name}"] = compute_checksum(path)
        return files

    def load(self, folder: str) -> None:
        source = Path(folder) / "actor"
        with self.enter_phase("load"):
            actor = self.actor
            actor.load_to_device()
            load_weights(actor.policy, source)
            state = actor.policy, actor.optimizer, actor.schedule
            load_state(*state, source, self.config.data.seed, actor.optimizer_offloader)
            actor.offload()
        self.weights_stale = True
        dist.barrier()

    def _pixel_dtype(self) -> torch.dtype:
        """What every model of this worker computes images in; fp32 where they differ."""
        worker = self.config.worker
        dtypes = {worker.actor.fsdp.mp_param_dtype, worker.ref.fsdp.mp_param_dtype, worker.rollout.dtype}
        return DTYPES[dtypes.pop()] if self.cuda and len(dtypes) == 1 else torch.float32

    def _mesh(self, config: FSDPConfig) -> DeviceMesh:
        return sharding_mesh(self.device.type, self.world, config.fsdp_size)


def localize(config: Config) -> Config:
    """A copy whose model and tokenizer are folders on this host."""
    model = config.worker.actor.model
    given = {MODEL_PATH_KEY: model.model_path, TOKENIZER_PATH_KEY: model.tokenizer_path}
    return override(config, {key: path and local_model_folder(path) for key, path in given.items()})
