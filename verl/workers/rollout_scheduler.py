"""vLLM's scheduler with less Python per decoding step: on one GPU the interpreter, not the GPU, is what sets the pace.

Two things change, and no token, log-probability, block or order of completions does:

- The outputs of a response are kept here and handed on once, when it is complete. vLLM's output processing and its
  aggregation of the n responses of a prompt then cost nothing in the steps between. Log-probabilities are not handed
  on, for vLLM takes them over one by one: `RolloutScheduler.take_log_probs` has them.
- A step in which every running response decodes one token, and nothing can join, is scheduled and updated by two short
  loops. Any other step is vLLM's own, as is whatever such a step cannot be: the first of a series is always vLLM's,
  and its output is the template of those that follow.

What it needs beyond vLLM's documented interface is checked at the start.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput
from vllm.v1.core.sched.utils import check_stop, remove_all
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.request import Request, RequestStatus
from vllm.version import __version__

# names of vLLM's that are used below
SCHEDULER_NAMES = """_free_request _get_new_block_ids_to_zero add_request block_size current_step encoder_cache_manager
    finish_requests finished_req_ids get_request_counts kv_cache_config kv_cache_manager max_model_len
    max_num_running_reqs max_num_scheduled_tokens num_sampled_tokens_per_step pause_state prev_step_scheduled_req_ids
    requests reset_preempted_req_ids reset_prefix_cache running use_v2_model_runner
"""
REQUEST_NAMES = """
    append_output_token_ids get_finished_reason is_finished max_tokens num_computed_tokens num_in_flight_tokens
    num_output_placeholders num_output_tokens num_prompt_tokens num_tokens resumable status stop_reason
    structured_output_request
"""
STEP_NAMES = """
    finished_req_ids free_encoder_mm_hashes new_block_ids_to_zero num_scheduled_tokens preempted_req_ids
    scheduled_cached_reqs total_num_scheduled_tokens
"""
UNUSED_FEATURES = """connector ec_connector enable_kv_cache_events finished_req_ids_dict is_encoder_decoder
    log_stats num_spec_tokens use_pp
"""  # what the short loops leave out


class PendingResponse:
    """What a response that is not complete has given so far.

    Attributes:
        output: its first output, which becomes the only one; None before.
        stops: tokens that may end it. length: tokens of prompt and response that certainly do.
        scheduled_length: tokens of prompt and response at which `max_tokens` is reached.
        simple: whether nothing but `stops` and `length` ends it.
    """

    def __init__(self, request: Request, max_model_len: int) -> None:
        params = request.sampling_params
        self.output: EngineCoreOutput | None = None
        self.token_ids: list[int] = []
        self.log_probs: list[float] = []
        self.scheduled_length = request.num_prompt_tokens + request.max_tokens
        self.length = min(self.scheduled_length, max_model_len)
        self.stops = {params.eos_token_id, *(params.stop_token_ids or ())}
        self.simple = (
            params.repetition_detection is None and request.structured_output_request is None and not request.resumable
        )

    def append(self, output: EngineCoreOutput) -> None:
        """Appends what vLLM's own loop has put out."""
        self.output = self.output or output
        self.token_ids += output.new_token_ids
        if output.new_logprobs is not None:
            self.log_probs += output.new_logprobs.logprobs[:, 0].tolist()

    def finish(self, finish_reason: Any, stop_reason: int | str | None) -> EngineCoreOutput:
        """The whole response as one output, without its log-probabilities."""
        output = self.output
        assert output is not None
        output.new_token_ids, output.new_logprobs = self.token_ids, None
        output.finish_reason, output.stop_reason = finish_reason, stop_reason
        return output


class RolloutScheduler(AsyncScheduler):
    """For requests of which only the complete response is wanted (`RequestOutputKind.FINAL_ONLY`), with the
    log-probability of each sampled token or none. Others are served as vLLM does.

    It also fits an engine without asynchronous scheduling: there the output of a step is there before the next one.

    Raises:
        RuntimeError: this version of vLLM lacks a name that the class uses, or the engine was started with a feature
            that it does not know (KV transfer, speculative or pipelined decoding, statistics).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_names(self)
        self.pending_responses: dict[str, PendingResponse] = {}
        self.complete_log_probs: dict[str, list[float]] = {}
        groups = self.kv_cache_config.kv_cache_groups
        # a cache of another kind frees blocks in every step, or has them in another size
        self.plain_cache = (
            len(groups) == 1
            and type(groups[0].kv_cache_spec) is FullAttentionSpec
            and groups[0].kv_cache_spec.block_size == self.block_size
            and self.num_sampled_tokens_per_step == 1
        )
        self.template: SchedulerOutput | None = None

    def add_request(self, request: Request) -> None:
        super().add_request(request)
        if _wanted_at_once(request.sampling_params):
            self.pending_responses[request.request_id] = PendingResponse(request, self.max_model_len)

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        requests = None if self.template is None else self._decoding_requests()
        if requests:
            return self._schedule_decoding(requests)
        output = super().schedule(*args, **kwargs)
        self.template = output if self.plain_cache and _only_decodes(output) else None
        return output

    def _decoding_requests(self) -> list[Request] | None:
        """The requests of a step that decodes one token of each and does nothing else; None where there is more to do,
        or too little memory.
        """
        running, waiting = self.get_request_counts()
        full = running >= self.max_num_running_reqs
        if self.pause_state or (waiting and not full) or running > self.max_num_scheduled_tokens:
            return None
        requests, blocks = [], 0
        for request in self.running:
            pending = self.pending_responses.get(request.request_id)
            if pending is None or pending.output is None or not pending.simple:
                return None
            computed, unknown = request.num_computed_tokens, request.num_output_placeholders
            if unknown and computed + 2 - unknown >= pending.scheduled_length:
                continue  # the last of its tokens is being computed
            if request.num_tokens + unknown - computed != 1 or computed + 1 >= self.max_model_len:
                return None
            requests.append(request)
            blocks += computed % self.block_size == 0
        if blocks > self.kv_cache_manager.block_pool.get_num_free_blocks():
            return None
        if (
            not self.use_v2_model_runner
            and not {each.request_id for each in requests} <= self.prev_step_scheduled_req_ids
        ):
            return None  # the first runner wants all tokens of a request that has skipped a step
        return requests

    def _schedule_decoding(self, requests: list[Request]) -> SchedulerOutput:
        ids = [request.request_id for request in requests]
        self.current_step += 1
        self.kv_cache_manager.new_step_starts()
        cached = CachedRequestData(
            req_ids=ids,
            resumed_req_ids=set(),
            new_token_ids=[],
            all_token_ids={},
            new_block_ids=[self._new_block_ids(request) for request in requests],
            num_computed_tokens=[request.num_computed_tokens for request in requests],
            num_output_tokens=[request.num_output_tokens + request.num_output_placeholders for request in requests],
        )
        assert self.template is not None
        output = replace(
            self.template,
            scheduled_cached_reqs=cached,
            num_scheduled_tokens=dict.fromkeys(ids, 1),
            total_num_scheduled_tokens=len(ids),
            preempted_req_ids=self.reset_preempted_req_ids,
            finished_req_ids=self.finished_req_ids,
            free_encoder_mm_hashes=self.encoder_cache_manager.get_freed_mm_hashes(),
            new_block_ids_to_zero=self._get_new_block_ids_to_zero(),
        )
        output.decoding_requests = requests  # for `update_from_output`
        for request in requests:
            request.num_computed_tokens += 1
            request.num_in_flight_tokens += 1
            request.num_output_placeholders += 1
        if not self.use_v2_model_runner:
            self.prev_step_scheduled_req_ids: set[str] = set(ids)
        self.finished_req_ids: set[str] = set()
        self.reset_preempted_req_ids: set[str] = set()
        return output

    def _new_block_ids(self, request: Request) -> Any:
        """Of the block that a request's next token begins; None where it begins none."""
        if request.num_computed_tokens % self.block_size:
            return None
        return self.kv_cache_manager.allocate_slots(request, 1).get_block_ids(allow_none=True)

    def update_from_output(self, scheduler_output: SchedulerOutput, model_runner_output: Any) -> dict[int, Any]:
        requests = getattr(scheduler_output, "decoding_requests", None)
        # a response that has lost its cache since then is for vLLM to handle
        if requests and all(each.status is RequestStatus.RUNNING or each.is_finished() for each in requests):
            return self._update_decoded(requests, model_runner_output)
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        for each in outputs.values():
            each.outputs = [output for output in map(self._keep, each.outputs) if output is not None]
        return outputs

    def _keep(self, output: EngineCoreOutput) -> EngineCoreOutput | None:
        """Takes vLLM's output of one request in one step; returns the whole response when it is complete."""
        pending = self.pending_responses.get(output.request_id)
        if pending is None:
            return output
        pending.append(output)
        return self._complete(output.request_id, output.finish_reason, output.stop_reason) if output.finished else None

    def _complete(self, name: str, finish_reason: Any, stop_reason: int | str | None) -> EngineCoreOutput:
        pending = self.pending_responses.pop(name)
        self.complete_log_probs[name] = pending.log_probs
        return pending.finish(finish_reason, stop_reason)

    def _update_decoded(self, requests: list[Request], model_runner_output: Any) -> dict[int, Any]:
        """Appends one token to each response; returns those that are complete."""
        rows, sampled = model_runner_output.req_id_to_index, model_runner_output.sampled_token_ids
        log_probs: list[float] | None = None
        if model_runner_output.logprobs is not None:
            log_probs = model_runner_output.logprobs.logprobs[:, 0].tolist()
            assert len(log_probs) == len(sampled)  # a row for each request
        complete: list[EngineCoreOutput] = []
        stopped: set[Request] = set()
        for request in requests:
            request.num_in_flight_tokens -= 1
            if request.is_finished():
                continue  # by the token before, when this step was under way
            row = rows[request.request_id]
            (token,) = sampled[row]
            pending = self.pending_responses[request.request_id]
            pending.token_ids.append(token)
            if log_probs is not None:
                pending.log_probs.append(log_probs[row])
            request.append_output_token_ids(token)
            request.num_output_placeholders -= 1
            ended = token in pending.stops or request.num_tokens >= pending.length
            ended = ended and check_stop(request, self.max_model_len)
            computed = request.num_computed_tokens - request.num_output_placeholders
            if computed % self.block_size == 0:
                self.kv_cache_manager.cache_blocks(request, computed)
            if ended:
                complete.append(self._complete(request.request_id, request.get_finished_reason(), request.stop_reason))
                self._free_request(request)
                stopped.add(request)
        self.running: list[Request] = remove_all(self.running, stopped)
        return {0: EngineCoreOutputs(outputs=complete)} if complete else {}

    def take_log_probs(self, name: str) -> list[float]:
        """The log-probabilities of a complete response, once. A KeyError if vLLM knows no response of that name."""
        return self.complete_log_probs.pop(name)

    def reset_prefix_cache(self, *args: Any, **kwargs: Any) -> bool:
        self.complete_log_probs.clear()  # those that nobody took: of requests through `LLM.generate`
        return super().reset_prefix_cache(*args, **kwargs)

    def finish_requests(self, request_ids: Any, finished_status: RequestStatus) -> list[Request]:
        requests = super().finish_requests(request_ids, finished_status)
        for request in requests:
            self.pending_responses.pop(request.request_id, None)
        return requests


def check_names(scheduler: AsyncScheduler) -> None:
    """That this version of vLLM has what the class uses, and that the engine does not use what the class leaves out.

    Raises:
        RuntimeError: it names vLLM's version and what is missing or in use.
    """
    request = Request("", [0], SamplingParams(max_tokens=1), None)
    of_step = {each.name for each in fields(SchedulerOutput)}
    missing = [name for name in f"{SCHEDULER_NAMES} {UNUSED_FEATURES}".split() if not hasattr(scheduler, name)]
    missing += [f"Request.{name}" for name in REQUEST_NAMES.split() if not hasattr(request, name)]
    missing += [f"SchedulerOutput.{name}" for name in STEP_NAMES.split() if name not in of_step]
    if missing:
        raise RuntimeError(f"RolloutScheduler does not fit vLLM {__version__}, which lacks {', '.join(missing)}")
    in_use = [name for name in UNUSED_FEATURES.split() if getattr(scheduler, name)]
    if in_use:
        raise RuntimeError(f"RolloutScheduler was written for engines without {', '.join(in_use)} (vLLM {__version__})")


def _wanted_at_once(params: SamplingParams | None) -> bool:
    return params is not None and params.output_kind is RequestOutputKind.FINAL_ONLY and params.logprobs in (None, 0)


def _only_decodes(output: SchedulerOutput) -> bool:
    """Whether a step computes one token of each of its requests, none of which is new to the worker."""
    return (
        output.total_num_scheduled_tokens == len(output.num_scheduled_tokens) > 0
        and not output.scheduled_new_reqs
        and not output.scheduled_cached_reqs.resumed_req_ids
        and not output.scheduled_encoder_inputs
        and not output.scheduled_spec_decode_tokens
        and not output.has_structured_output_requests
        and not output.kv_cache_block_copies
    )
