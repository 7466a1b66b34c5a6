import os

import pytest
import torch

from tests import processes

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory):
    """A tiny Qwen2.5-VL checkpoint."""
    from veason.toy.tiny_policy import write_policy

    folder = tmp_path_factory.mktemp("policy")
    write_policy(folder, seed=0)
    return str(folder)


@pytest.fixture(scope="session")
def qwen3_folder(tmp_path_factory):
    """A tiny Qwen3-VL checkpoint whose tower has two deepstack levels."""
    from veason.toy.tiny_policy import write_policy
    from veason.toy.tiny_policy_config import PolicySize

    folder = tmp_path_factory.mktemp("qwen3")
    write_policy(folder, PolicySize(layers=3, vision_depth=3), seed=0, model_type="qwen3_vl")
    return str(folder)


@pytest.fixture(scope="module")
def lone_rank():
    """This process as the only rank of a group over gloo, as a worker of its own."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patched:  # the processes of other files' tests inherit none of it
        for name, value in processes.lone_rank(processes.free_port()).items():
            patched.setenv(name, value)
        torch.distributed.init_process_group("gloo", rank=0, world_size=1)
        yield
        torch.distributed.destroy_process_group()
