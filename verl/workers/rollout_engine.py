"""vLLM inside the worker's own process: generation with the actor's weights, synchronized in memory.

The engine is started as an external launcher would: it joins the process group that the worker has already opened, one
engine per tensor-parallel group, every rank of a group submitting the same requests. Works with vLLM 0.26 to 0.32, on
CUDA and on the CPU.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from verl.config.worker_sections import ModelConfig, RolloutConfig
from verl.models.fused_kernels import configure_dynamo
from verl.models.lora import LoraOptions
from verl.workers.prompt_builder import PromptBuilder, TokenizedPrompt
from verl.workers.sharding import DTYPES
from verl.workers.shared_memory import unique_shared_memory_names, unlink_shared_memory
from verl.workers.vllm_lora import adapter_arguments, load_lora_adapter, remove_stale_adapters, unmerged_adapter
from verl.workers.weight_loader import CachedWeightLoader

GIB = 1 << 30
IN_FLIGHT = 4  # engine steps whose images vLLM may hold at a time: two are under way at once, and it frees late


@dataclass(frozen=True)
class RequestSampling:
    """How responses are sampled. `seed` fixes them, whatever else the engine is doing at the time."""

    n: int
    temperature: float
    seed: int
    top_p: float = 1.0
    top_k: int = -1


@dataclass(frozen=True)
class Completion:
    """One response: ids, end-of-sequence included; fp32 log-probabilities; whether the length limit cut it."""

    ids: list[int]
    log_probs: Tensor
    truncated: bool


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt for the engine.

    Attributes:
        uid, greedy: come back with the completions: the group, and whether this is its greedy response.
    """

    uid: int
    prompt: TokenizedPrompt
    sampling: RequestSampling
    greedy: bool = False


OnFinished = Callable[[GenerationRequest, list[Completion]], None]


class RolloutEngine:
    """A vLLM engine. It starts with the checkpoint's weights (random ones would also overwrite its buffers) and gets
    the actor's from then on.

    Args:
        config: worker.rollout. model: worker.actor.model.
        device: "cuda" or "cpu". On the CPU the engine computes in fp32 and has no sleep mode.
        prompts: for the tokens that are never sampled, at any temperature, and the image processor's options.
        lora: the policy's adapter: the engine keeps the checkpoint's weights, and gets the adapter beside them, but for
            fp32 on CUDA, where it gets merged weights.

    Attributes:
        log_probs_exact: the reported log-probabilities are those of the whole softmax at the sampling temperature, as
            the actor's are. With a temperature other than 1 or a truncated nucleus vLLM can only report the
            distribution that it sampled from, without the forbidden tokens.
    """

    def __init__(
        self,
        config: RolloutConfig,
        model: ModelConfig,
        device: str,
        prompts: PromptBuilder,
        lora: LoraOptions | None = None,
    ) -> None:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine's core in this process, where the weights are
        from vllm import LLM

        self.config, self.family, self.on_gpu = config, prompts.family, device == "cuda"
        self.can_sleep = self.on_gpu and config.enable_sleep_mode
        self.dtype = DTYPES[config.dtype] if self.on_gpu else torch.float32
        self.lora = unmerged_adapter(lora, device, self.dtype)
        self.forbidden = {token: float("-inf") for token in prompts.forbidden_tokens}
        self.log_probs_exact = config.temperature == 1.0 and config.top_p == 1.0 and config.top_k <= 0
        with nullcontext() if self.on_gpu else unique_shared_memory_names():
            self.llm = LLM(**self._arguments(model, prompts.pixel_bounds))
        unlink_shared_memory()
        remove_stale_adapters()
        self.asleep = False
        self.adapters = 0  # handed over so far
        self.adapter: Any = None  # what requests name
        self.weight_loader: CachedWeightLoader | None = None  # recorded at the first load; on a GPU

    def _arguments(self, model: ModelConfig, pixel_bounds: dict[str, int]) -> dict[str, Any]:
        from vllm.engine.arg_utils import EngineArgs

        config = self.config
        length = config.max_model_len or config.prompt_length + config.response_length
        batched = config.max_num_batched_tokens or (None if config.enable_chunked_prefill else max(length, 8192))
        arguments: dict[str, Any] = {
            "model": model.model_path,
            "tokenizer": model.tokenizer_path or model.model_path,
            "hf_overrides": dict(model.override_config),
            "trust_remote_code": model.trust_remote_code,
            "dtype": self.dtype,
            "seed": config.seed,
            "distributed_executor_backend": "external_launcher",
            "tensor_parallel_size": config.tensor_parallel_size,
            "max_model_len": length,
            "max_num_seqs": config.max_num_seqs,
            "max_num_batched_tokens": batched,
            "enable_chunked_prefill": config.enable_chunked_prefill,
            "enable_prefix_caching": True,  # the n responses of a prompt share its cache
            "logprobs_mode": "raw_logprobs" if self.log_probs_exact else "processed_logprobs",
            "mm_processor_cache_gb": 0,  # an image comes once
            "skip_mm_profiling": True,  # the largest image that the processor allows would reserve gigabytes
            "limit_mm_per_prompt": {"video": 0},
            "enforce_eager": config.enforce_eager or not self.on_gpu,
            "disable_log_stats": True,
            "scheduler_cls": "verl.workers.rollout_scheduler.RolloutScheduler",
        }
        if self.lora is not None:
            # names of layers select those of the vision tower too, unless it is frozen
            tower = model.lora_target_modules.strip() != "all-linear" and not model.freeze_vision_tower
            arguments |= adapter_arguments(self.lora, tower)
        if pixel_bounds:
            arguments["mm_processor_kwargs"] = pixel_bounds
        if "mm_device_do_normalize" in {field.name for field in fields(EngineArgs)}:
            arguments["mm_device_do_normalize"] = False  # patches come normalized; vLLM 0.26 always takes them so
        if not self.on_gpu:
            cache = int(config.cpu_kv_cache_gib * GIB)
            return arguments | {"kv_cache_memory_bytes": cache, "gpu_memory_utilization": 0.01}
        # without a size of the cache vLLM measures the free memory of the whole GPU, at its start and when it sleeps,
        # and ends when another process changes it
        cache_options = {} if config.kv_cache_gib is None else {"kv_cache_memory_bytes": int(config.kv_cache_gib * GIB)}
        memory = {"enable_sleep_mode": self.can_sleep, "gpu_memory_utilization": config.gpu_memory_utilization}
        return arguments | memory | cache_options

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Takes new weights, one full tensor at a time, under the checkpoint's names. `wake_kv_cache` has to follow."""
        if self.asleep:
            self.llm.wake_up(tags=["weights"])
            self.llm.apply_model(self.family.after_wake_up)
        if not self.on_gpu:
            # layers multiply with packed copies of their weights, which vLLM's own reload makes anew
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
            self.llm.apply_model(_pack_tied_head)
        elif self.weight_loader is None:
            (self.weight_loader,) = self.llm.apply_model(
                lambda model: CachedWeightLoader.record(model.load_weights, weights, model.parameters())
            )
        else:
            self.weight_loader.load(weights)

    def load_lora_adapter(self, weights: Mapping[str, Tensor]) -> None:
        """Takes a new adapter, under the names of a peft checkpoint. `wake_kv_cache` has to follow."""
        assert self.lora is not None
        if self.asleep:
            self.llm.wake_up(tags=["weights"])
        self.adapters += 1
        self.adapter = load_lora_adapter(self.llm.llm_engine, self.adapters, weights, self.lora)

    def wake_kv_cache(self) -> None:
        """Allocates the cache, and clears everything computed with old weights."""
        if self.asleep:
            self.llm.wake_up(tags=["kv_cache"])
            self.asleep = False
        core = self.llm.llm_engine
        core.reset_mm_cache()
        core.reset_encoder_cache()
        if not core.reset_prefix_cache():
            raise RuntimeError("vLLM kept its prefix cache, computed with old weights: a request is still running")

    def sleep(self) -> None:
        """Frees weights and cache, where it can; `load_weights` or `load_lora_adapter`, and `wake_kv_cache` wake the
        engine.
        """
        if self.can_sleep and not self.asleep:
            # level 2 keeps no copy: the actor has the weights. The base model's, which never change, are kept on the
            # host (level 1) instead of being gathered each step.
            self.llm.sleep(level=2 if self.lora is None else 1)
            self.asleep = True

    def generate(self, requests: Iterable[GenerationRequest], on_finished: OnFinished) -> None:
        """Runs all requests. Calls `on_finished(request, completions)` for each as soon as its last response is
        complete, while the others go on.

        Every rank of a tensor-parallel group calls this with the same requests.
        """
        from verl.workers.vllm_inputs import engine_input

        configure_dynamo()  # the scorer's thread may compile meanwhile, and parts of vLLM's models are compiled
        engine = self.llm.llm_engine
        running: dict[str, GenerationRequest] = {}
        inner_names: dict[str, str] = {}  # vLLM's own, of its requests

        def step() -> None:
            for output in engine.step() if engine.has_unfinished_requests() else ():
                if output.finished:
                    request, name = running.pop(output.request_id), inner_names.pop(output.request_id)
                    outputs = sorted(output.outputs, key=lambda each: each.index)
                    # how vLLM names the n responses of a request (vllm/v1/engine/parallel_sampling.py)
                    names = [f"{each.index}_{name}" if request.sampling.n > 1 else name for each in outputs]
                    on_finished(request, [self._completion(*each) for each in zip(outputs, names)])

        # vLLM looks for a shared prefix once, when it first schedules a request. Submitted all together, prompts whose
        # images find its encoder cache full would be computed up to their first image, and each response would then
        # compute its prompt by itself.
        room = engine.vllm_config.scheduler_config.encoder_cache_size // IN_FLIGHT
        submitted = 0
        with paused_garbage_collection():
            for number, request in enumerate(requests):
                tokens = len(request.prompt.ids)
                if submitted and submitted + tokens > room:
                    for _ in range(-(-submitted // room)):
                        step()
                    submitted = 0
                running[str(number)] = request
                sampling = self.sampling_params(request.sampling)
                prompt = engine_input(request.uid, request.prompt)
                name = engine.add_request(str(number), prompt, sampling, lora_request=self.adapter)
                inner_names[str(number)] = name
                submitted += tokens
            while engine.has_unfinished_requests():
                step()

    def sampling_params(self, sampling: RequestSampling) -> Any:
        """vLLM's SamplingParams."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        greedy = sampling.temperature == 0.0
        return SamplingParams(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=1.0 if greedy else sampling.top_p,
            top_k=0 if greedy or sampling.top_k < 0 else sampling.top_k,
            seed=sampling.seed,
            max_tokens=self.config.response_length,
            ignore_eos=self.config.ignore_eos,
            logprobs=0,  # of the sampled token alone
            logit_bias=self.forbidden,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    @property
    def scheduler(self) -> Any:
        """vLLM's scheduler, a `RolloutScheduler`: the engine's core is in this process."""
        return self.llm.llm_engine.engine_core.engine_core.scheduler

    def _completion(self, output: Any, name: str) -> Completion:
        ids, log_probs = list(output.token_ids), self.scheduler.take_log_probs(name)
        if len(log_probs) != len(ids):
            raise RuntimeError(f"vLLM gave {len(log_probs)} log-probabilities for {len(ids)} tokens (request {name})")
        return Completion(ids, torch.tensor(log_probs, dtype=torch.float32), output.finish_reason == "length")


@contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """vLLM makes objects for every token of every request; looking for cycles among them delays the GPU."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _pack_tied_head(model: Any) -> None:
    """On the CPU vLLM multiplies with packed copies of the weights; a reload packs every layer anew but an output layer
    that shares its weight with the embedding, which is no weight of its own in the checkpoint.
    """
    head, embedding = model.language_model.lm_head, model.language_model.model.embed_tokens
    if head.weight is embedding.weight:
        head.quant_method.process_weights_after_loading(head)
