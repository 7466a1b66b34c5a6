"""A LoRA policy's rollout: vLLM computes with the adapter itself, so that a change survives that would vanish in the
last place of bf16 weights.
"""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from tests.processes import free_port, lone_rank, run_ranks
from tests.verl.workers.test_rollout_engine import generated
from tests.verl.workers.toy_task import ToyData

pytestmark = pytest.mark.timeout(600)
STEP = 1e-5  # one of Adam's, at the usual learning rate


@pytest.fixture
def bf16_folder(request, tmp_path_factory):
    """A checkpoint of each family whose weights are bf16 numbers, as on a GPU."""
    import shutil

    folder = tmp_path_factory.mktemp("bf16") / "policy"
    shutil.copytree(request.getfixturevalue(request.param), folder)
    weights = {name: weight.bfloat16().float() for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def scored(policy, prompt, completions):
    """fp32 log-probabilities of the completions, one after the other."""
    from verl.models.packing import TokenizedGroup, pack_groups

    ids = [torch.tensor(each.ids) for each in completions]
    with torch.no_grad():
        return policy(
            pack_groups([TokenizedGroup(prompt.ids, ids, prompt.pixel_values, prompt.image_grid_thw)], policy.family)
        ).log_probs


def surviving(change, wanted):
    """Which share of a change is there: 1 is all of it."""
    return (change @ wanted / (wanted @ wanted)).item()


def rollout_main(_, folder, port, modules):
    """In a process of its own, for vLLM changes the one it lives in."""
    os.environ |= lone_rank(port)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=0, world_size=1)
    from verl.config.worker_sections import ModelConfig, RolloutConfig
    from verl.models.lora import adapter_weights, disable_adapter, lora_layers, merged_weights
    from verl.models.policy_model import load_policy
    from verl.workers.actor import lora_options
    from verl.workers.prompt_builder import PromptBuilder
    from verl.workers.rollout_engine import RequestSampling, RolloutEngine
    from verl.workers.vllm_lora import MEMORY, PREFIX

    stale = MEMORY / f"{PREFIX}{2**30}_left"  # of a process that was killed
    stale.mkdir(exist_ok=True)
    model = ModelConfig(model_path=folder, lora_rank=64, lora_alpha=128, lora_target_modules=modules)
    builder, lora = PromptBuilder(folder), lora_options(model)
    config = RolloutConfig(prompt_length=600, response_length=24, max_num_seqs=16)
    engine = RolloutEngine(config, model, "cpu", builder, lora)
    torch.manual_seed(0)
    policy = load_policy(folder, lora=lora, gradient_checkpointing=None).eval()
    assert any(".visual." in name for name in lora_layers(policy.model)) is (modules != "all-linear")
    prompt = builder.build(ToyData().example(2, 0))

    def rollout():
        engine.load_lora_adapter(adapter_weights(policy.model))
        engine.wake_kv_cache()
        (drawn,) = generated(engine, prompt, RequestSampling(8, 1.0, 7))
        with disable_adapter(policy.model):
            base = scored(policy, prompt, drawn)
        vllm = torch.cat([each.log_probs for each in drawn])
        return drawn, base, vllm - base, scored(policy, prompt, drawn) - base

    _, _, change, wanted = rollout()  # B is 0
    assert change.abs().max() < 1e-5 and wanted.abs().max() == 0

    for step in (1, 10, 1000):  # an adapter's size after so many
        generator = torch.Generator().manual_seed(step)
        for layer in lora_layers(policy.model).values():
            weight = layer.lora_B["default"].weight
            with torch.no_grad():
                weight.copy_(torch.randn(weight.shape, generator=generator).sign() * STEP * step)
        drawn, base, change, wanted = rollout()
        print(f"{modules} {step}: {surviving(change, wanted):.4f}", (change - wanted).abs().max(), wanted.abs().max())
        assert surviving(change, wanted) == pytest.approx(1.0, abs=0.01)
        assert (change - wanted).abs().max() < 1e-5
        if step == 1:
            rounded = load_policy(folder, gradient_checkpointing=None).eval()
            merged = {name: weight.bfloat16().float() for name, weight in merged_weights(policy.model)}
            rounded.model.load_state_dict(merged, strict=False)
            share = surviving(scored(rounded, prompt, drawn) - base, wanted)
            print(f"merged into bf16: {share:.4f}")
            assert share < 0.5
    assert not stale.exists() and not list(MEMORY.glob(f"{PREFIX}{os.getpid()}_*"))
    dist.destroy_process_group()


LANGUAGE, TOWER = "all-linear", "q_proj, v_proj, down_proj, qkv"


@pytest.mark.parametrize(
    ("bf16_folder", "modules"),
    [
        pytest.param("policy_folder", LANGUAGE, id="qwen2_5_vl-language"),
        pytest.param("qwen3_folder", TOWER, id="qwen3_vl-tower"),
        # each family and each choice of layers is above; a case takes a minute
        pytest.param("policy_folder", TOWER, id="qwen2_5_vl-tower", marks=pytest.mark.soak),
        pytest.param("qwen3_folder", LANGUAGE, id="qwen3_vl-language", marks=pytest.mark.soak),
    ],
    indirect=["bf16_folder"],
)
def test_small_changes_of_an_adapter_reach_vllm(bf16_folder, modules):
    assert Path(bf16_folder).is_dir()
    run_ranks(rollout_main, (bf16_folder, free_port(), modules))


@pytest.mark.parametrize(
    ("device", "dtype", "unmerged"),
    [("cuda", torch.bfloat16, True), ("cuda", torch.float32, False), ("cpu", torch.float32, True)],
)
def test_an_engine_in_fp32_on_cuda_gets_merged_weights(device, dtype, unmerged):
    """In which nothing vanishes; vLLM's LoRA kernels refuse fp32."""
    from verl.models.lora import LoraOptions
    from verl.workers.vllm_lora import unmerged_adapter

    lora = LoraOptions(8, 16, "all-linear")
    assert unmerged_adapter(lora, device, dtype) is (lora if unmerged else None)
    assert unmerged_adapter(None, device, dtype) is None
