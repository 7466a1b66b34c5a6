"""vLLM's engine without a model: its own scheduler and output processing, over tokens that a formula gives.

A token depends on its prompt, response and position alone, so two schedulers have to give the same responses, and may
be compared step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.executor.abstract import Executor
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.outputs import LogprobsLists, ModelRunnerOutput

from verl.config.worker_sections import RolloutConfig
from verl.workers.prompt_builder import TokenizedPrompt
from verl.workers.rollout_engine import Completion, RequestSampling, RolloutEngine

ROLLOUT_SCHEDULER = "verl.workers.rollout_scheduler.RolloutScheduler"
BLOCK = 16  # tokens


@dataclass(frozen=True)
class EngineSizes:
    """Of the engine, as in worker.rollout.

    Attributes:
        blocks: of the cache, 16 tokens each. asynchronous: the next step is scheduled before the output of the last.
        v2_runner: schedule for vLLM's second model runner, as on a GPU with vLLM 0.26.
        end_every: a token ends its response once in so many tokens; 0: only the length limit does.
    """

    max_model_len: int = 4096
    max_num_seqs: int = 128
    max_num_batched_tokens: int = 32768
    blocks: int = 16000
    response_length: int = 512
    asynchronous: bool = True
    v2_runner: bool = True
    end_every: int = 0


class FormulaExecutor(Executor):
    """Stands for the workers.

    Attributes:
        token: (request's name without vLLM's random part, position in the response) -> token id.
    """

    token: Callable[[str, int], int]
    blocks = 0

    def _init_executor(self) -> None:
        self.prompts: dict[str, int] = {}
        self.generated: dict[str, int] = {}
        self.result: ModelRunnerOutput | None = None

    def get_kv_cache_specs(self) -> list[Any]:
        return [{"layer": FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=8, dtype=torch.float32)}]

    def determine_available_memory(self) -> list[int]:
        return [type(self).blocks * self.get_kv_cache_specs()[0]["layer"].page_size_bytes]

    def collective_rpc(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        return [["NHD"]] if method == "get_supported_kv_cache_layouts" else [None]

    def initialize_from_config(self, kv_cache_configs: Any) -> None: ...

    def compile_or_warm_up_model(self) -> None: ...

    def check_health(self) -> None: ...

    def shutdown(self) -> None: ...

    def reset_mm_cache(self) -> None: ...

    def reset_encoder_cache(self) -> None: ...

    @property
    def supported_tasks(self) -> Any:  # type: ignore[override]
        return ("generate",)

    def execute_model(self, scheduler_output: Any, non_block: bool = False) -> Any:
        for name in scheduler_output.finished_req_ids:
            self.prompts.pop(name, None)
            self.generated.pop(name, None)
        for new in scheduler_output.scheduled_new_reqs:
            self.prompts[new.req_id] = len(new.prompt_token_ids)
            self.generated.setdefault(new.req_id, 0)
        cached = scheduler_output.scheduled_cached_reqs
        computed = dict(zip(cached.req_ids, cached.num_computed_tokens))
        computed |= {new.req_id: new.num_computed_tokens for new in scheduler_output.scheduled_new_reqs}
        names = sorted(scheduler_output.num_scheduled_tokens)  # an order of its own
        tokens = [self._sample(name, computed[name] + scheduler_output.num_scheduled_tokens[name]) for name in names]
        flat = np.array([each[0] if each else 0 for each in tokens], dtype=np.int64)
        log_probs = LogprobsLists(flat[:, None], -(flat[:, None] % 97).astype(np.float32) / 31, flat % 5, None)
        rows = {name: row for row, name in enumerate(names)}
        self.result = ModelRunnerOutput(names, rows, sampled_token_ids=tokens, logprobs=log_probs)
        return self._answer(self.result if not names else None, non_block)

    def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:
        return self._answer(self.result, non_block)

    def _sample(self, name: str, computed: int) -> list[int]:
        if computed < self.prompts[name] + self.generated[name]:
            return []
        self.generated[name] += 1
        return [type(self).token(name.rsplit("-", 1)[0], self.generated[name] - 1)]

    @staticmethod
    def _answer(value: Any, non_block: bool) -> Any:
        if not non_block:
            return value
        future: Future[Any] = Future()
        future.set_result(value)
        return future


class PlainEngine(RolloutEngine):
    """With vLLM's own scheduler, whose outputs have the log-probabilities."""

    def _arguments(self, *args: Any) -> dict[str, Any]:
        return super()._arguments(*args) | {"scheduler_cls": None}

    def sampling_params(self, sampling: RequestSampling) -> Any:
        params = super().sampling_params(sampling)
        params.flat_logprobs = True  # as lists of numbers instead of an object per token
        return params

    def _completion(self, output: Any, name: str) -> Completion:
        log_probs = [output.logprobs.logprobs[start] for start in output.logprobs.start_indices]
        length = output.finish_reason == "length"
        return Completion(list(output.token_ids), torch.tensor(log_probs, dtype=torch.float32), length)


def open_engine(policy: Path, sizes: EngineSizes, plain: bool) -> RolloutEngine:
    """A rollout engine over vLLM's, without a model.

    Args:
        policy: folder of a checkpoint, of which only the configuration and the tokenizer are read.
        plain: with vLLM's own scheduler.
    """
    end = AutoTokenizer.from_pretrained(policy).eos_token_id

    def token(name: str, position: int) -> int:
        value = hash((*map(ord, name), position))
        if sizes.end_every and value % sizes.end_every == 0:
            return end
        other = 300 + value % 900
        return other + (other == end)

    executor = type("SizedExecutor", (FormulaExecutor,), {"token": staticmethod(token), "blocks": sizes.blocks})
    arguments = EngineArgs(
        model=str(policy),
        dtype="float32",
        max_model_len=sizes.max_model_len,
        max_num_seqs=sizes.max_num_seqs,
        max_num_batched_tokens=sizes.max_num_batched_tokens,
        enable_prefix_caching=True,
        distributed_executor_backend="external_launcher",
        limit_mm_per_prompt={"video": 0},
        skip_mm_profiling=True,
        mm_processor_cache_gb=0,
        disable_log_stats=True,
        scheduler_cls=None if plain else ROLLOUT_SCHEDULER,
    )
    config = arguments.create_engine_config()
    config.scheduler_config.async_scheduling = sizes.asynchronous  # which a CPU has turned off
    engine: Any = object.__new__(PlainEngine if plain else RolloutEngine)
    engine.config = RolloutConfig(response_length=sizes.response_length)
    engine.llm = SimpleNamespace(llm_engine=LLMEngine(config, executor, log_stats=False))
    engine.adapter, engine.forbidden, engine.asleep = None, {}, False
    engine.scheduler.use_v2_model_runner = sizes.v2_runner
    return engine


def image_prompt(number: int, images: int = 6, image_tokens: int = 400, text: int = 240) -> TokenizedPrompt:
    """A prompt of other text than those of other numbers, around images of one patch."""
    part = text // (images + 1)
    ids = torch.arange(part) + 300 + number
    ranges = []
    for _ in range(images):
        ranges.append((len(ids), image_tokens))
        ids = torch.cat([ids, torch.full((image_tokens,), 299), torch.arange(part) + 300])
    if not images:
        return TokenizedPrompt(ids)
    grid = torch.tensor([[1, 2, 2]] * images)
    return TokenizedPrompt(ids, torch.zeros(4 * images, 1176), grid, tuple(ranges))
