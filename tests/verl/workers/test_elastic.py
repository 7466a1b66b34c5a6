"""A checkpoint of any number of workers resumes on any other; what it reads is safetensors and JSON alone."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

from tests.verl.workers.elastic_ranks import on_ranks, train
from tests.verl.workers.toy_groups import ROLLOUT, config
from verl.config.worker_sections import FSDPConfig, ModelConfig, OptimConfig
from verl.models.policy_model import load_policy
from verl.workers.actor import Actor
from verl.workers.worker_checkpoint import SaveOptions, load_state, load_weights

pytestmark = [pytest.mark.usefixtures("lone_rank"), pytest.mark.timeout(600)]
OPTIM = OptimConfig(lr=1e-3, lr_scheduler_type="linear", training_steps=8)


@pytest.fixture(scope="module")
def actor_config(policy_folder):
    return config(policy_folder, optim=OPTIM)


@pytest.mark.parametrize("lora", [0, 4], ids=["full", "lora"])
def test_two_workers_then_one_then_four_are_one_run(policy_folder, tmp_path, lora):
    model = ModelConfig(model_path=policy_folder, lora_rank=lora, lora_alpha=8.0)
    plain = config(policy_folder, optim=OPTIM, model=model)
    hybrid = config(policy_folder, optim=OPTIM, model=model, fsdp=FSDPConfig(fsdp_size=2))
    whole = train(plain, None, None, 6, SaveOptions())
    first = on_ranks(2, tmp_path / "a.pt", plain, None, tmp_path / "a", 2, SaveOptions())
    second = train(plain, tmp_path / "a", tmp_path / "b", 2, SaveOptions())
    third = on_ranks(4, tmp_path / "c.pt", hybrid, tmp_path / "b", None, 2, SaveOptions())
    assert [*first, *second, *third] == pytest.approx(whole, rel=1e-6, abs=1e-6)
    assert len(set(map(str, whole))) == 6


def test_two_copies_save_their_rows_once(policy_folder, tmp_path):
    hybrid = config(policy_folder, optim=OPTIM, fsdp=FSDPConfig(fsdp_size=1))
    on_ranks(2, tmp_path / "a.pt", hybrid, None, tmp_path / "a", 1, SaveOptions())
    sizes = [(tmp_path / "a" / "state" / f"rank_0000{rank}.safetensors").stat().st_size for rank in (0, 1)]
    assert sizes[1] < 50_000 < sizes[0]


@pytest.fixture(scope="module")
def saved(actor_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    train(actor_config, None, folder, 1, SaveOptions())
    return folder


def resume(actor_config, folder):
    actor = Actor(actor_config, ROLLOUT, init_device_mesh("cpu", (1,)))
    load_weights(actor.policy, folder)
    load_state(actor.policy, actor.optimizer, actor.schedule, folder, seed=0)
    return actor


class Malicious:
    """Pickled, it makes a folder where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["state/rank_00000.safetensors", "state/state.json", "huggingface/model.safetensors"])
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_in_the_place_of_any_file_is_refused_and_not_run(actor_config, saved, tmp_path, name, kind):
    folder, proof = tmp_path / "copy", tmp_path / "proof"
    shutil.copytree(saved, folder)
    if kind == "pickle":
        (folder / name).write_bytes(pickle.dumps(Malicious(proof)))
    else:
        torch.save(Malicious(proof), folder / name)
    with pytest.raises(ValueError, match=r"safetensors|utf-8|decode|JSON|Expecting"):
        resume(actor_config, folder)
    assert not proof.exists()


def test_a_pickled_model_is_not_loaded(policy_folder, tmp_path):
    folder, proof = tmp_path / "model", tmp_path / "proof"
    shutil.copytree(policy_folder, folder)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    torch.save({"weight": Malicious(proof)}, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load_policy(folder)
    assert not proof.exists()


def test_another_model_s_checkpoint_is_named(actor_config, saved, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    (folder / "state" / "rank_00000.safetensors").unlink()
    assert json.loads((folder / "state" / "state.json").read_text()) == {"workers": 1, "updates": 1}
    (folder / "huggingface" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"rows of it: it is of another model"):
        resume(actor_config, folder)


def test_bf16_weights_are_half_the_size_and_resume_to_the_bit(actor_config, saved, tmp_path):
    options = SaveOptions(dtype=torch.bfloat16)
    whole = train(actor_config, None, tmp_path, 1, options)
    sizes = [folder.joinpath("huggingface", "model.safetensors").stat().st_size for folder in (saved, tmp_path)]
    assert sizes[1] < 0.6 * sizes[0]
    assert json.loads((tmp_path / "huggingface" / "config.json").read_text())["dtype"] == "bfloat16"
    assert whole == train(actor_config, None, None, 1, options)
    one, other = resume(actor_config, saved), resume(actor_config, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(one.policy.parameters(), other.policy.parameters()))


def test_ruined_weights_are_not_saved(actor_config, tmp_path):
    from verl.workers.prompt_builder import PromptBuilder
    from verl.workers.worker_checkpoint import save_weights

    actor = Actor(actor_config, ROLLOUT, init_device_mesh("cpu", (1,)))
    with torch.no_grad():
        next(actor.policy.parameters()).fill_(float("nan"))
    processor = PromptBuilder(actor_config.model.model_path).processor
    with pytest.raises(ValueError, match="not finite: the weights are ruined"):
        save_weights(actor.policy, processor, tmp_path, actor.device, SaveOptions())


def test_a_merged_model_keeps_changes_that_bf16_weights_would_lose(policy_folder, tmp_path):
    from safetensors.torch import load_file

    from verl.models.lora import lora_layers
    from verl.workers.prompt_builder import PromptBuilder
    from verl.workers.worker_checkpoint import save_weights

    model = ModelConfig(model_path=policy_folder, lora_rank=64, lora_alpha=128.0)
    actor_config = config(policy_folder, model=model, fsdp=FSDPConfig(torch_dtype="bf16"))
    actor = Actor(actor_config, ROLLOUT, init_device_mesh("cpu", (1,)))
    layers = lora_layers(actor.policy.model)
    for layer in layers.values():
        torch.nn.init.constant_(layer.lora_B["default"].weight, 1e-5)  # one step of Adam
    save_weights(actor.policy, PromptBuilder(policy_folder).processor, tmp_path, actor.device, SaveOptions())
    saved, names = load_file(tmp_path / "huggingface/model.safetensors"), actor.policy.family.checkpoint_names()
    for name, layer in layers.items():
        base, down, up = (
            getattr(weight, "full_tensor", lambda weight=weight: weight)().detach().float()
            for weight in (layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight)
        )
        wanted, merged = layer.scaling * up @ down, saved[names[f"{name}.weight"]]
        assert layer.base_layer.weight.dtype == torch.bfloat16 and merged.dtype == torch.float32
        assert (((merged - base) * wanted).sum() / (wanted * wanted).sum()).item() == pytest.approx(1.0, abs=1e-3)
        rounded = (base + wanted).bfloat16().float() - base
        assert ((rounded * wanted).sum() / (wanted * wanted).sum()).item() < 0.5
