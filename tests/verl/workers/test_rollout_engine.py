"""The engine alone: what it may not write, what fixes a sample, and that it forgets the old weights."""

import importlib
import os
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from tests.processes import free_port, lone_rank, run_ranks
from tests.verl.workers.toy_task import ToyData

pytestmark = pytest.mark.timeout(600)


def generated(engine, prompt, *samplings):
    """Per sampling its completions, all requests in the engine at once."""
    from verl.workers.rollout_engine import GenerationRequest

    done = {}
    requests = [GenerationRequest(number, prompt, sampling) for number, sampling in enumerate(samplings)]
    engine.generate(requests, lambda request, completions: done.update({request.uid: completions}))
    return [done[number] for number in range(len(samplings))]


def gap(policy, prompt, completions):
    from verl.models.packing import TokenizedGroup, pack_groups

    group = TokenizedGroup(
        prompt.ids, [torch.tensor(each.ids) for each in completions], prompt.pixel_values, prompt.image_grid_thw
    )
    with torch.no_grad():
        log_probs = policy(pack_groups([group], policy.family)).log_probs
    return (log_probs - torch.cat([each.log_probs for each in completions])).abs().max().item()


def engine_main(_, folder, port, plain):
    """In a process of its own, for vLLM changes the one it lives in. `plain`: its layers keep their weights as they
    come, as on a GPU.
    """
    os.environ |= lone_rank(port)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=0, world_size=1)
    from verl.config.worker_sections import ModelConfig, RolloutConfig
    from verl.models.lora import merged_weights
    from verl.models.policy_model import load_policy
    from verl.workers.prompt_builder import PromptBuilder
    from verl.workers.rollout_engine import RequestSampling, RolloutEngine

    builder = PromptBuilder(folder)
    forbidden = builder.forbidden_tokens
    config = RolloutConfig(prompt_length=600, response_length=24, max_num_seqs=16, enable_chunked_prefill=False)
    if plain:
        layers = importlib.import_module("vllm.model_executor.layers.utils")
        layers.dispatch_cpu_unquantized_gemm = lambda layer, **_: setattr(
            layer, "cpu_linear", torch.nn.functional.linear
        )
    engine = RolloutEngine(config, ModelConfig(model_path=folder), "cpu", builder)
    engine.on_gpu = plain
    policy = load_policy(folder, gradient_checkpointing=None).eval()
    example = ToyData().example(2, 0)
    prompt = builder.build(example)

    engine.load_weights(merged_weights(policy.model))
    engine.wake_kv_cache()
    first, second, other, greedy = generated(
        engine,
        prompt,
        RequestSampling(4, 1.0, 7),
        RequestSampling(4, 1.0, 7),
        RequestSampling(4, 1.0, 8),
        RequestSampling(1, 0.0, 1),
    )
    assert [each.ids for each in first] == [each.ids for each in second] != [each.ids for each in other]
    assert len({tuple(each.ids) for each in first}) == 4
    assert engine.log_probs_exact and max(gap(policy, prompt, each) for each in (first, other, greedy)) < 1e-5

    with torch.no_grad():  # a policy that would write little else than image tokens
        head = policy.model.lm_head.weight
        for sign, token in zip((1, -1, 1, -1, 1), forbidden):
            head[token] = sign * 30 * head[forbidden[0]]
        for weight in policy.model.model.visual.merger.parameters():  # so that stale image features would show
            weight.mul_(2)
    engine.load_weights(merged_weights(policy.model))
    engine.wake_kv_cache()
    drawn, best = generated(engine, prompt, RequestSampling(8, 1.0, 7), RequestSampling(1, 0.0, 7))
    assert not set(forbidden) & {token for each in (*drawn, *best) for token in each.ids}
    assert gap(policy, prompt, drawn) < 1e-3
    assert (engine.weight_loader is not None) is plain
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("checkpoint", "plain"),
    [("policy_folder", False), ("policy_folder", True), ("qwen3_folder", True)],
    ids=["reload", "recorded", "qwen3_vl"],
)
def test_forbidden_tokens_seeds_and_new_weights(request, checkpoint, plain):
    run_ranks(engine_main, (request.getfixturevalue(checkpoint), free_port(), plain))


def test_an_engine_on_a_shared_gpu_measures_and_frees_nothing():
    from verl.config.worker_sections import ModelConfig, RolloutConfig
    from verl.workers.rollout_engine import RolloutEngine

    engine = object.__new__(RolloutEngine)
    engine.on_gpu, engine.dtype, engine.asleep, engine.log_probs_exact = True, torch.bfloat16, False, True
    engine.lora = None
    for engine.config in (RolloutConfig(), RolloutConfig(kv_cache_gib=0.5, enable_sleep_mode=False)):
        engine.can_sleep = engine.config.enable_sleep_mode
        arguments = engine._arguments(ModelConfig(model_path="policy"), {})
        assert arguments["enable_sleep_mode"] is engine.config.enable_sleep_mode
        assert arguments.get("kv_cache_memory_bytes") == (None if engine.config.enable_sleep_mode else 1 << 29)
    engine.sleep()
    assert not engine.asleep


class StubEngine:
    """Ends all requests in the second step without a new one; a step with nothing to do is an error."""

    def __init__(self):
        self.calls, self.open = [], []
        self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(encoder_cache_size=100))

    def add_request(self, name, _prompt, _sampling, lora_request):
        self.calls.append(f"add {name}")
        self.open.append(name)

    def has_unfinished_requests(self):
        return bool(self.open)

    def step(self):
        assert self.open
        self.calls.append("step")
        if self.calls[-2] != "step":
            return []
        ended, self.open = self.open, []
        return [SimpleNamespace(finished=True, request_id=name, outputs=[]) for name in ended]


def test_prompts_are_handed_over_as_their_images_are_taken_up():
    """Otherwise vLLM admits responses before the prompt that they share is in its cache."""
    from verl.workers.prompt_builder import TokenizedPrompt
    from verl.workers.rollout_engine import GenerationRequest, RequestSampling, RolloutEngine

    stub, done = StubEngine(), {}
    engine = object.__new__(RolloutEngine)
    engine.llm, engine.sampling_params = SimpleNamespace(llm_engine=stub), lambda sampling: sampling
    engine.adapter = None
    lengths = [10, 10, 10, 90, 5, 20, 1]
    requests = [
        GenerationRequest(key, TokenizedPrompt(torch.zeros(length, dtype=torch.int64)), RequestSampling(2, 1.0, 0))
        for key, length in enumerate(lengths)
    ]
    engine.generate(iter(requests), lambda request, completions: done.update({request.uid: completions}))
    assert " ".join(stub.calls) == "add 0 add 1 step add 2 step add 3 step step add 4 add 5 step add 6 step step"
    assert done == {key: [] for key in range(7)}
