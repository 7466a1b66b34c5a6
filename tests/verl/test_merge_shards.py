"""Shards as the published code saves them (FSDP1, SHARDED_STATE_DICT, verl/utils/checkpoint/fsdp_checkpoint_manager.py
of github.com/SitongGong/Veason-R1 and EasyR1) become one checkpoint that transformers loads.
"""

import os
import pickle
import warnings

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.processes import free_port, run_ranks
from veason.toy.tiny_policy import write_policy
from veason.toy.tiny_policy_config import PolicySize
from verl.merge_shards import ShardError, find_shards, load_shard, main, merge_checkpoint

WORLD = 2


def save_shards(rank, policy, actor, port):
    """One rank of a training that saves, with the calls of the published code."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
    from torch.distributed.fsdp import ShardedStateDictConfig, StateDictType

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(WORLD))
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)
    mesh = init_device_mesh("cpu", mesh_shape=(WORLD,), mesh_dim_names=("fsdp",))
    model = AutoModelForImageTextToText.from_pretrained(policy, dtype=torch.float32)
    sharded = FSDP(model, use_orig_params=True, device_mesh=mesh, device_id=torch.device("cpu"))
    config = ShardedStateDictConfig(offload_to_cpu=True)
    with FSDP.state_dict_type(sharded, StateDictType.SHARDED_STATE_DICT, config):
        torch.save(sharded.state_dict(), f"{actor}/model_world_size_{WORLD}_rank_{rank}.pt")
    if rank == 0:
        model.config.save_pretrained(f"{actor}/huggingface")
        AutoProcessor.from_pretrained(policy).save_pretrained(f"{actor}/huggingface")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """(policy, actor folder with shards)"""
    folder = tmp_path_factory.mktemp("shards")
    write_policy(folder / "policy", PolicySize(layers=1, vision_depth=1))
    actor = folder / "global_step_625" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    run_ranks(save_shards, (str(folder / "policy"), str(actor), free_port()), WORLD)
    return folder / "policy", actor


def test_the_merged_checkpoint_has_the_weights(checkpoint, tmp_path, capsys):
    policy, actor = checkpoint
    assert main([str(actor), "--output", str(tmp_path / "merged"), "--dtype", "fp32"]) == 0
    assert "weights in" in capsys.readouterr().out
    wanted = AutoModelForImageTextToText.from_pretrained(policy).state_dict()
    model, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    merged = model.state_dict()
    assert merged.keys() == wanted.keys() and all(torch.equal(merged[name], wanted[name]) for name in wanted)
    AutoProcessor.from_pretrained(tmp_path / "merged")
    assert main([str(actor), "--output", str(tmp_path / "merged")]) == 2
    assert "holds weights already" in capsys.readouterr().err


def test_large_checkpoints_are_written_in_several_files(checkpoint, tmp_path):
    _, actor = checkpoint
    merge_checkpoint(actor, tmp_path / "merged", torch.bfloat16, max_shard_size="200KB")
    files = sorted((tmp_path / "merged").glob("*.safetensors"))
    assert len(files) > 1 and all(weight.dtype == torch.bfloat16 for weight in load_file(files[0]).values())
    AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")


def test_what_cannot_be_merged_is_named(checkpoint, tmp_path, capsys):
    _, actor = checkpoint
    (tmp_path / "actor" / "huggingface").mkdir(parents=True)
    with pytest.raises(ShardError, match="holds no model_world_size"):
        find_shards(tmp_path / "actor")
    assert main([str(tmp_path / "actor"), "--output", str(tmp_path / "out")]) == 2
    assert "config.json is missing" in capsys.readouterr().err
    shard = tmp_path / "actor" / "model_world_size_2_rank_1.pt"
    shard.write_bytes((actor / shard.name).read_bytes()[:1000])
    with pytest.raises(ShardError, match="rank 0 is missing"):
        find_shards(tmp_path / "actor")
    with pytest.raises(ShardError, match=r"model_world_size_2_rank_1\.pt cannot be read: "):
        load_shard(shard)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def test_a_shard_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Harmful()}, tmp_path / "model_world_size_1_rank_0.pt", pickle_module=pickle)
    with pytest.raises(ShardError, match=r"it holds posix\.mkdir, which is no part of sharded weights"):
        load_shard(tmp_path / "model_world_size_1_rank_0.pt")
    assert not (tmp_path / "harmed").exists()
    torch.save({"step": 3}, tmp_path / "model_world_size_1_rank_0.pt")
    with pytest.raises(ShardError, match="holds no weights sharded as DTensors"):
        load_shard(tmp_path / "model_world_size_1_rank_0.pt")
