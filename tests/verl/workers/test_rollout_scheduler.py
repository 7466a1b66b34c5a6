"""`RolloutScheduler` against vLLM's own scheduler, step by step, on tokens that a formula gives."""

import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.processes import free_port, lone_rank, run_ranks
from tests.verl.workers.toy_task import ToyData

pytestmark = pytest.mark.timeout(600)

PROMPTS = 5  # of 3 responses each and a greedy one
SCENARIOS = {
    "limit": {},
    "ends": {"end_every": 25},
    "ends_at_once": {"end_every": 2},
    "more_than_seats": {"end_every": 25, "max_num_seqs": 7},
    "short_cache": {"end_every": 200, "blocks": 60},
    "model_length": {"max_model_len": 150},
    "chunked": {"end_every": 25, "max_num_batched_tokens": 64, "max_num_seqs": 32},
}
MODES = {"async_v2": (True, True), "async_v1": (True, False), "sync_v1": (False, False)}


def observe(engine):
    """Records what every step schedules, by names without vLLM's random part, and whether in the short loop."""
    scheduler, inner, steps = engine.scheduler, engine.scheduler.schedule, []

    def name(request):
        return request.rsplit("-", 1)[0]

    def schedule(*args, **kwargs):
        output = inner(*args, **kwargs)
        cached, resumed = output.scheduled_cached_reqs, output.scheduled_cached_reqs.resumed_req_ids
        new = [(name(each.req_id), each.block_ids, each.num_computed_tokens) for each in output.scheduled_new_reqs]
        rows = zip(cached.req_ids, cached.new_block_ids, cached.num_computed_tokens, cached.num_output_tokens)
        what = (
            [(name(key), count) for key, count in output.num_scheduled_tokens.items()],
            new,
            [(name(key), *row) for key, *row in rows],
            {name(key): tokens for key, tokens in cached.all_token_ids.items()},
            sorted(map(name, resumed)),
            sorted(map(name, output.finished_req_ids)),
            sorted(map(name, output.preempted_req_ids or ())),
            sorted(output.free_encoder_mm_hashes),
            output.scheduled_encoder_inputs and len(output.scheduled_encoder_inputs),
            output.total_num_scheduled_tokens,
        )
        steps.append((what, hasattr(output, "decoding_requests")))
        return output

    scheduler.schedule = schedule
    return steps


def run(engine, rounds=2):
    """Per round the completions in the order in which they came, and the free blocks after it."""
    from tests.verl.workers.scheduled_engine import image_prompt
    from verl.workers.rollout_engine import GenerationRequest, RequestSampling

    found = []
    for number in range(rounds):
        engine.llm.llm_engine.reset_prefix_cache()
        requests = []
        for uid in range(PROMPTS):
            prompt = image_prompt(uid, images=uid % 3, image_tokens=20, text=45 + 16 * uid)
            requests.append(GenerationRequest(uid, prompt, RequestSampling(3, 1.0, 10 * uid + number)))
            requests.append(GenerationRequest(uid, prompt, RequestSampling(1, 0.0, uid), greedy=True))
        order = []

        def finished(request, completions, order=order):
            values = [(each.ids, each.log_probs.tolist(), each.truncated) for each in completions]
            order.append((request.uid, request.greedy, values))

        engine.generate(requests, finished)
        assert sorted((uid, greedy) for uid, greedy, _ in order) == [
            (uid, greedy) for uid in range(PROMPTS) for greedy in (False, True)
        ]
        found.append((order, engine.scheduler.kv_cache_manager.block_pool.get_num_free_blocks()))
    return found


def compare(policy, scenario, mode):
    from tests.verl.workers.scheduled_engine import EngineSizes, open_engine

    asynchronous, v2 = MODES[mode]
    sizes = EngineSizes(max_model_len=400, max_num_batched_tokens=2048, response_length=100, blocks=600)
    sizes = replace(sizes, asynchronous=asynchronous, v2_runner=v2, **SCENARIOS[scenario])
    plain, short = open_engine(policy, sizes, plain=True), open_engine(policy, sizes, plain=False)
    plain_steps, short_steps = observe(plain), observe(short)
    assert run(plain) == run(short)
    assert [what for what, _ in plain_steps] == [what for what, _ in short_steps]
    scheduler = short.scheduler
    assert not scheduler.requests and not scheduler.pending_responses and not scheduler.complete_log_probs
    used = sum(each for _, each in short_steps)
    preempted = any(what[6] for what, _ in short_steps)
    assert preempted == (scenario == "short_cache"), f"{scenario}: preemption"
    assert used > 0.5 * len(short_steps) or scenario in ("ends_at_once", "short_cache"), (used, len(short_steps))


def scenarios_main(_, policy, port):
    """In a process of its own, for vLLM changes the one it lives in."""
    os.environ |= lone_rank(port) | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    for mode in MODES:
        for scenario in SCENARIOS:
            compare(policy, scenario, mode)


def test_steps_and_responses_are_those_of_vllms_own_scheduler(policy_folder):
    run_ranks(scenarios_main, (policy_folder, free_port()))


def model_main(_, folder, port, plain, file):
    """The responses of a real engine: two rollouts, new weights between them, a cache that is too short."""
    os.environ |= lone_rank(port)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=0, world_size=1)
    from tests.verl.workers.scheduled_engine import PlainEngine
    from verl.config.worker_sections import ModelConfig, RolloutConfig
    from verl.models.lora import merged_weights
    from verl.models.policy_model import load_policy
    from verl.workers.prompt_builder import PromptBuilder
    from verl.workers.rollout_engine import GenerationRequest, RequestSampling, RolloutEngine

    builder = PromptBuilder(folder)
    config = RolloutConfig(prompt_length=600, response_length=150, max_num_seqs=16)
    base: Any = PlainEngine if plain else RolloutEngine
    blocks = {"num_gpu_blocks_override": 8}  # of 128 tokens
    short = type("ShortEngine", (base,), {"_arguments": lambda *args: base._arguments(*args) | blocks})
    engine = short(config, ModelConfig(model_path=folder), "cpu", builder)
    engine.forbidden |= {builder.tokenizer.eos_token_id: 2.0}  # so that some responses end, and others do not
    policy, rounds, preempted = load_policy(folder, gradient_checkpointing=None).eval(), [], []
    scheduler = engine.scheduler
    inner = scheduler._preempt_request

    def preempt(request, *args, **kwargs):
        preempted.append(request.request_id)
        inner(request, *args, **kwargs)

    scheduler._preempt_request = preempt
    for number in range(2):
        with torch.no_grad():
            policy.model.lm_head.weight.mul_(1 + number)
        engine.load_weights(merged_weights(policy.model))
        engine.wake_kv_cache()
        order = []
        requests = [
            GenerationRequest(uid, builder.build(ToyData().example(uid, 0)), RequestSampling(4, 1.0, 9 * uid + number))
            for uid in range(3)
        ]
        engine.generate(requests, lambda request, completions, order=order: order.append((request.uid, completions)))
        rounds.append(
            [(uid, [(each.ids, each.log_probs.tolist(), each.truncated) for each in group]) for uid, group in order]
        )
    truncated = {each[2] for order in rounds for _, group in order for each in group}
    assert truncated == {True, False} and preempted, (truncated, preempted)
    assert rounds[0] != rounds[1]
    torch.save(rounds, file)
    dist.destroy_process_group()


@pytest.mark.parametrize("checkpoint", ["policy_folder", "qwen3_folder"])
def test_a_models_responses_are_those_of_vllms_own_scheduler(request, checkpoint, tmp_path):
    folder = request.getfixturevalue(checkpoint)
    for plain in (True, False):
        run_ranks(model_main, (folder, free_port(), plain, tmp_path / f"{plain}"))
    assert torch.load(tmp_path / "True") == torch.load(tmp_path / "False")


def misfits_main(_, policy, port):
    os.environ |= lone_rank(port) | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    from tests.verl.workers.scheduled_engine import EngineSizes, image_prompt, open_engine
    from verl.workers import rollout_scheduler
    from verl.workers.rollout_engine import GenerationRequest, RequestSampling

    engine = open_engine(policy, EngineSizes(max_model_len=400, response_length=20), plain=False)
    scheduler = engine.scheduler
    scheduler.log_stats = True
    with pytest.raises(RuntimeError, match="without log_stats"):
        rollout_scheduler.check_names(scheduler)
    scheduler.log_stats = False
    rollout_scheduler.SCHEDULER_NAMES += " another_name"
    with pytest.raises(RuntimeError, match=r"vLLM 0.*lacks another_name"):
        rollout_scheduler.check_names(scheduler)

    # a response whose log-probabilities are lost is an error, not a shorter tensor
    inner = scheduler.take_log_probs
    scheduler.take_log_probs = lambda name: inner(name)[:-1]
    request = GenerationRequest(0, image_prompt(0, images=1, image_tokens=20), RequestSampling(2, 1.0, 1))
    with pytest.raises(RuntimeError, match="19 log-probabilities for 20 tokens"):
        engine.generate([request], lambda *_: None)


def test_another_vllm_is_refused_at_the_start(policy_folder):
    run_ranks(misfits_main, (policy_folder, free_port()))


def test_aborted_requests_leave_nothing_behind():
    from verl.workers.rollout_scheduler import AsyncScheduler, RolloutScheduler

    scheduler = object.__new__(RolloutScheduler)
    scheduler.pending_responses = {"a": None, "b": None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsyncScheduler, "finish_requests", lambda *_: [SimpleNamespace(request_id="a")])
        scheduler.finish_requests("a", None)
    assert list(scheduler.pending_responses) == ["b"]
