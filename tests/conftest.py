import sys

import pytest


@pytest.fixture(autouse=True, scope="module")
def no_process_group_is_left():
    """vLLM in this process makes a process group and keeps it; the next file's tests want their own."""
    yield
    if "torch" not in sys.modules:
        return
    import torch.distributed as dist

    if not dist.is_initialized():
        return
    if "vllm" in sys.modules:
        from vllm.distributed.parallel_state import destroy_distributed_environment, destroy_model_parallel

        destroy_model_parallel()
        destroy_distributed_environment()
    if dist.is_initialized():
        dist.destroy_process_group()
