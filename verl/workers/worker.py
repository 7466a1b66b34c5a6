"""One GPU's worker: the actor (FSDP2), the frozen reference, the vLLM engine and the scorer in one process, taking
turns with its memory.

A group stays here from its rollout to its drop: pixels are read and turned into patches once, and what leaves the
worker are `verl.protocol` messages. `verl.workers.engine.RayEngine` leads the workers; this class knows no Ray.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from verl.algorithms.advantages import needs
from verl.config import Config
from verl.config.worker_sections import FSDPConfig
from verl.models.lora import merged_weights
from verl.models.packing import Group, row_multiple
from verl.protocol import Example, GroupAdvantages, GroupRequest, GroupResult, Scorer, TrainingData
from verl.workers.actor import Actor
from verl.workers.checkpoint import load_state, load_weights, save_state, save_weights, seed_everything
from verl.workers.groups import StoredGroup
from verl.workers.memory import PeakMeter, resident_bytes
from verl.workers.prompts import Prompt, PromptBuilder
from verl.workers.reading import Reader, ReadingProcesses, ReadStep, read_target
from verl.workers.reference import Reference
from verl.workers.rollout import Completion, Generation, RolloutEngine, Sampling
from verl.workers.scoring import ScoringThread, Unscored
from verl.workers.sharding import DTYPES, gatherer, sharding_mesh

READERS = 8  # threads that read and process images while others wait for the disk


class Worker:
    """See the module. RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are set before it is created.

    Args:
        config: of the whole run.
        make_data: opens the training data.
        make_scorer: makes the scorer on a device; None where nothing is generated (then there is no vLLM engine
            either).
        make_validation: opens the validation data; None where validation prompts come from the training data.
    """

    def __init__(
        self,
        config: Config,
        make_data: Callable[[], TrainingData],
        make_scorer: Callable[[str], Scorer] | None,
        make_validation: Callable[[], TrainingData] | None = None,
    ) -> None:
        self.config = config
        self.rank, self.world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.device = (
            torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            if config.trainer.device == "cuda"
            else torch.device("cpu")
        )
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        else:
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        if not dist.is_initialized():
            dist.init_process_group(
                "cuda:nccl,cpu:gloo" if self.device.type == "cuda" else "gloo", rank=self.rank, world_size=self.world
            )
        self.make_data, self.make_scorer, self.make_validation = make_data, make_scorer, make_validation
        self.groups: dict[int, StoredGroup] = {}
        self.ahead: dict[GroupRequest, Future[Group]] = {}  # examples of coming steps of fine-tuning, being read
        self.rows_ahead: dict[tuple[GroupRequest, ...], Future[ReadStep]] = {}  # the same, where processes read them
        self.left_out: dict[str, str] = {}  # what these processes have left out of the data, with the reasons
        self.peak = PeakMeter(self.device)

    def setup(self) -> dict[str, float]:
        """Builds everything; gives the measured bytes of each part on this rank, for the memory plan, and its seconds."""
        config, actor = self.config, self.config.worker.actor
        model = actor.model
        self.data = self.make_data()
        self.validation = self.make_validation() if self.make_validation else self.data
        bounds = (config.data.min_pixels, config.data.max_pixels)
        make_prompts = partial(PromptBuilder, model.tokenizer_path or model.model_path or "", *bounds)
        self.prompts = make_prompts(pin=self.device.type == "cuda")
        self.readers = ThreadPoolExecutor(READERS, thread_name_prefix="read")
        seed_everything(config.data.seed)  # the same on every rank: they draw the same adapter
        sizes: dict[str, float] = {}
        self.rollouts: RolloutEngine | None = None
        if self.make_scorer is not None:
            with resident_bytes(self.device, sizes, "engine"):
                self.rollouts = RolloutEngine(
                    config.worker.rollout, model, self.device.type, self.prompts.forbidden_tokens, bounds
                )
            self.rollouts.sleep()
            with resident_bytes(self.device, sizes, "scorer"):
                scorer = self.make_scorer(str(self.device))
            self.scoring = ScoringThread(scorer, self.prompts.decode, self.device)
        with resident_bytes(self.device, sizes, "weights"):
            self.actor = Actor(actor, config.worker.rollout, self._mesh(actor.fsdp))
        self.processes: ReadingProcesses | None = None
        if config.sft.num_workers > 0:
            dtype = DTYPES[actor.fsdp.mp_param_dtype] if self.device.type == "cuda" else torch.float32
            limit, model_config = config.data.max_response_length, self.actor.policy.config
            reader = Reader(self.make_data, make_prompts, limit, actor, model_config, row_multiple(), dtype)
            self.processes = ReadingProcesses(reader, config.sft.num_workers)
        self.reference_model: Reference | None = None
        if self.make_scorer is not None and actor.use_kl_loss and actor.kl_loss_coef != 0:
            with resident_bytes(self.device, sizes, "reference"):
                self.reference_model = Reference(self.actor, config.worker.ref, self._mesh(config.worker.ref.fsdp))
        seed_everything(config.data.seed + self.rank)  # vLLM has set the generators too
        self.stale = True  # the rollout engine does not hold the actor's weights yet
        return sizes | self.actor.sizes()

    def _mesh(self, config: FSDPConfig) -> DeviceMesh:
        return sharding_mesh(self.device.type, self.world, config.fsdp_size)

    def device_name(self) -> str:
        """As the device's vendor names it."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"

    def rollout(self, requests: Sequence[GroupRequest], validation: bool = False) -> dict[str, float]:
        """Generates the groups of this place and starts to score each as soon as it is complete.

        Every worker of a tensor-parallel group gets the same requests; the groups are theirs in turn.
        """
        if self.rollouts is None:
            raise RuntimeError("this run has no rollout engine: it was started without a scorer")
        data, engine = self.validation if validation else self.data, self.rollouts
        greedy = "baselines" in needs(self.config.algorithm.adv_estimator) and not validation
        parallel = self.config.worker.rollout.tensor_parallel_size
        own = [request.uid for position, request in enumerate(requests) if position % parallel == self.rank % parallel]
        self.scoring.expect(own)
        examples: dict[int, Example] = {}
        prompts: dict[int, Future[Prompt]] = {}
        complete: dict[int, dict[bool, list[Completion]]] = {uid: {} for uid in own}

        def opened(request: GroupRequest) -> tuple[Example, Any]:
            example = data.example(request.index, request.seed)
            return example, engine.render(self.prompts.bare_ids(example), example.images)

        def generations() -> Iterator[Generation]:
            for request, (example, rendered) in zip(requests, ready):
                if request.uid in own:
                    examples[request.uid] = example
                    prompts[request.uid] = self.readers.submit(
                        self.prompts.build, example
                    )  # for the update, while vLLM generates
                yield Generation((request.uid, False), rendered, self._sampling(request, validation))
                if greedy:
                    yield Generation((request.uid, True), rendered, Sampling(1, 0.0, request.seed))

        def finished(generation: Generation, prompt_ids: Sequence[int], completions: list[Completion]) -> None:
            uid, is_greedy = generation.key
            if uid in own:
                complete[uid][is_greedy] = completions
                if len(complete[uid]) == 1 + greedy:
                    self._store(uid, examples.pop(uid), prompts.pop(uid).result(), prompt_ids, complete.pop(uid))

        start = time.perf_counter()
        ready = self.readers.map(opened, requests)  # while the engine wakes
        with self.peak.watch("rollout") as figures:
            self._wake_engine(engine)
            awake = time.perf_counter()
            engine.generate(generations(), finished)
        seconds = {"hand_over": awake - start, "generate": time.perf_counter() - awake}
        return figures | {f"seconds/rollout/{part}": value for part, value in seconds.items()}

    def score(self, uids: Sequence[int]) -> list[GroupResult]:
        """The results of those of the groups that are this worker's; waits for the scorer."""
        return [self.groups[uid].result.result() for uid in uids if uid in self.groups]

    def reference(self, uids: Sequence[int], old: bool) -> dict[str, float]:
        """See verl.protocol.Engine.reference."""
        self._rest_engine()
        stored = [self.groups[uid] for uid in uids if uid in self.groups]
        with self.peak.watch("reference") as figures:
            if self.reference_model is not None:
                log_probs = self.reference_model.log_probs([each.group for each in stored])
                for each, values in zip(stored, log_probs):
                    each.reference = values
            if old:
                for each, values in zip(stored, self.actor.log_probs([each.group for each in stored])):
                    each.old = values
        return figures

    def certainty(self, uids: Sequence[int]) -> dict[int, list[float]]:
        """See verl.protocol.Engine.certainty; of this worker's groups."""
        self._rest_engine()
        own = [uid for uid in uids if uid in self.groups]
        values = self.actor.log_probs([self.groups[uid].group for uid in own], certainty=True)
        return {uid: [response.mean().item() for response in responses] for uid, responses in zip(own, values)}

    def update(self, advantages: Sequence[GroupAdvantages]) -> dict[str, float]:
        """One optimizer step on this worker's share of the groups; figures are of the whole batch."""
        self._rest_engine()
        with self.peak.watch("update") as figures:
            metrics = self.actor.update(
                [self.groups[each.uid] for each in advantages], [each.advantages for each in advantages]
            )
        self.stale = True
        return metrics | figures

    def drop(self, uids: Sequence[int]) -> None:
        for uid in uids:
            self.groups.pop(uid, None)

    def read_ahead(self, requests: Sequence[GroupRequest]) -> None:
        """See verl.protocol.Engine.read_ahead."""
        if self.processes is not None:
            if tuple(requests) not in self.rows_ahead:
                self.rows_ahead[tuple(requests)] = self.readers.submit(self._take_rows, self.processes.submit(requests))
            return
        for request in requests:
            if request not in self.ahead:
                self.ahead[request] = self._submit_target(self.data, request)

    def _take_rows(self, step: Future[ReadStep]) -> ReadStep:
        """What a reading process makes of a step, where a GPU takes it without waiting."""
        read = step.result()
        return read._replace(rows=[row.pinned() for row in read.rows]) if self.device.type == "cuda" else read

    def fine_tune(self, requests: Sequence[GroupRequest], step: bool = True) -> dict[str, float]:
        """The token mean of the negative log-likelihood of the examples' responses; with `step`, an optimizer step on
        it.
        """
        self._rest_engine()
        if step:
            self.read_ahead(requests)
        with self.peak.watch("update" if step else "evaluation") as figures:
            if step and self.processes is not None:
                read = self.rows_ahead.pop(tuple(requests)).result()
                self.left_out |= read.skipped
                metrics = self.actor.fine_tune_packed(read.rows)
            else:
                metrics = self.actor.fine_tune(self._targets(requests, step), step)
        self.stale = self.stale or step
        return metrics | figures

    def skipped(self) -> dict[str, str]:
        """See verl.protocol.Engine.skipped; of this worker."""
        opened = {
            name: reason
            for data in (self.data, self.validation)
            for name, reason in getattr(data, "skipped", {}).items()
        }
        return opened | self.left_out

    def save(self, folder: str) -> None:
        self._rest_engine()
        target = Path(folder) / "actor"
        target.mkdir(parents=True, exist_ok=True)
        self.actor.bring(optimizer=True)
        save_weights(
            self.actor.policy, self.prompts.processor, target, self.device, self.config.worker.actor.model.lora_merge
        )
        save_state(self.actor.policy, self.actor.optimizer, self.actor.schedule, target)
        self.actor.leave()
        dist.barrier()

    def load(self, folder: str) -> None:
        self._rest_engine()
        source = Path(folder) / "actor"
        self.actor.bring(optimizer=True)
        load_weights(self.actor.policy, source)
        load_state(self.actor.policy, self.actor.optimizer, self.actor.schedule, source)
        self.actor.leave()
        self.stale = True
        dist.barrier()

    def _targets(self, requests: Sequence[GroupRequest], step: bool) -> list[Group]:
        """The examples of a step, which are being read, or of an evaluation."""
        if step:
            return [self.ahead.pop(request).result() for request in requests]
        futures = [self._submit_target(self.validation, request) for request in requests]
        return [future.result() for future in futures]

    def _submit_target(self, data: TrainingData, request: GroupRequest) -> Future[Group]:
        return self.readers.submit(read_target, data, self.prompts, request, self.config.data.max_response_length)

    def _sampling(self, request: GroupRequest, validation: bool) -> Sampling:
        config = self.config.worker.rollout
        seed = int(
            np.random.SeedSequence([request.seed, config.seed]).generate_state(1)[0]
        )  # far apart: a response of a group adds 1
        if validation:
            return Sampling(config.val_n, config.val_temperature, seed)
        return Sampling(config.n, config.temperature, seed, config.top_p, config.top_k)

    def _store(
        self,
        uid: int,
        example: Example,
        prompt: Prompt,
        prompt_ids: Sequence[int],
        completions: dict[bool, list[Completion]],
    ) -> None:
        """Keeps a complete group and hands it to the scorer's thread. An error of the scorer comes back from `score`."""
        if prompt_ids != prompt.ids.tolist():
            raise RuntimeError(
                f"{example.sample_id}: vLLM sees {len(prompt_ids)} prompt tokens, the actor {len(prompt.ids)}: "
                "their image processors disagree"
            )
        responses = completions[False]
        ids = [torch.tensor(response.ids, dtype=torch.int64) for response in responses]
        group = Group(prompt.ids, ids, prompt.pixel_values, prompt.image_grid_thw)
        result = self.scoring.submit(Unscored(uid, example, len(prompt.ids), responses, completions.get(True, [])))
        self.groups[uid] = StoredGroup(example.sample_id, group, [response.log_probs for response in responses], result)

    def _wake_engine(self, engine: RolloutEngine) -> None:
        """Before rollouts: what trains leaves the GPU as configured, the engine wakes with the actor's present weights."""
        if not self.stale and not engine.asleep:
            return
        self.actor.bring()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what the update has left in PyTorch's cache is room that vLLM cannot see
        engine.load_weights(self._engine_weights(engine.dtype))
        self.actor.leave()
        engine.wake_cache()
        self.stale = False

    def _engine_weights(self, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
        return merged_weights(
            self.actor.policy.model, gatherer(self.device, dtype if self.actor.policy.lora is None else None)
        )

    def _rest_engine(self) -> None:
        """Before anything that trains: the scorer has finished, the engine gives its memory back."""
        if self.rollouts is not None:
            for stored in self.groups.values():
                stored.result.result()
            self.rollouts.sleep()
