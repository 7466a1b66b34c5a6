"""One packed group against its responses one at a time: forward and backward at 3B dimensions, random weights.

    python -m benchmarks.packing              # one CUDA device, about 2 minutes; prints everything
    python -m benchmarks.packing --tiny       # the same code in seconds on a CPU

The group is the published recipe's: 6 frames of 560 x 560, a prompt of about 2,600 tokens, 8 responses of 512 tokens;
fp32 master weights under FSDP2, bf16 compute, gradient checkpointing. MFU counts what the mathematics needs (a prompt
once per group), recomputation aside.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import transformers
from torch.nn.attention.flex_attention import BlockMask
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLConfig

from veason.command_line import HelpFormatter, parse_arguments
from verl.config.worker_sections import FSDPConfig
from verl.models.attention import packed_attention, packed_mask
from verl.models.log_probs import token_log_probs
from verl.models.packing import TokenizedGroup, pack_groups
from verl.models.policy_model import PolicyModel
from verl.models.qwen2_5_vl.published_configs import make_config, published_config
from verl.trainer.throughput import device_peak
from verl.workers.sharding import shard


def model_config(size: str = "3b") -> Qwen2_5_VLConfig:
    """The dimensions of Qwen2.5-VL-3B ("3b") or -7B ("7b"), or a few layers of small ones ("tiny")."""
    if size != "tiny":
        return published_config(size)
    text: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 320, "num_hidden_layers": 2, "vocab_size": 151936}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    vision: dict[str, Any] = {"depth": 2, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2}
    return make_config(text, vision | {"out_hidden_size": 256, "fullatt_block_indexes": [1]}, tied=True)


def make_group(config: Qwen2_5_VLConfig, frames: int, side: int, text: int, lengths: list[int]) -> TokenizedGroup:
    """Random words around the image tokens of `frames` square frames of `side` pixels."""
    vision: Any = config.vision_config
    patches = side // vision.patch_size
    image = torch.full(((patches // vision.spatial_merge_size) ** 2,), config.image_token_id)
    parts = [torch.cat([torch.randint(0, 150000, (text // frames,)), image]) for _ in range(frames)]
    dim = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return TokenizedGroup(
        torch.cat([*parts, torch.randint(0, 150000, (text % frames + 20,))]),
        [torch.randint(0, 150000, (length,)) for length in lengths],
        torch.randn(frames * patches**2, dim),
        torch.tensor([[1, patches, patches]] * frames),
    )


def seconds(run: Callable[[], object], repeats: int = 5, warm_up: int = 2) -> float:
    """Median wall time of a few runs, the device's work included, after some that compile and warm up."""
    times = []
    for _ in range(repeats + warm_up):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[warm_up:])


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def forward_backward(policy: PolicyModel, group: TokenizedGroup, device: str) -> None:
    batch = pack_groups([group], policy.family).to(device)
    policy(batch).log_probs.sum().backward()


def one_by_one(policy: PolicyModel, group: TokenizedGroup, device: str) -> None:
    for response in group.response_ids:
        forward_backward(policy, replace(group, response_ids=[response]), device)


@torch.no_grad()
def score(policy: PolicyModel, group: TokenizedGroup, device: str) -> None:
    policy(pack_groups([group], policy.family).to(device))


def measure_parts(policy: PolicyModel, group: TokenizedGroup, device: str) -> None:
    """The tower, one layer's attention and the output layer, forward and backward."""
    batch = pack_groups([group], policy.family).to(device)
    dtype = next(policy.parameters()).dtype
    text = policy.config.text_config

    def tower() -> None:
        policy.family.encode_images(policy.model, batch.pixel_values, batch.vision_metadata)[0].sum().backward()

    length, head_dim = batch.input_ids.shape[1], text.hidden_size // text.num_attention_heads
    heads = (text.num_attention_heads, text.num_key_value_heads, text.num_key_value_heads)
    options = {"device": device, "dtype": dtype, "requires_grad": True}
    query, key, value = (torch.randn(length, count, head_dim, **options) for count in heads)
    mask = packed_mask(batch, dtype)

    def attention() -> None:
        packed_attention(query, key, value, mask).sum().backward()

    hidden = torch.randn(len(batch.labels), text.hidden_size, device=device, dtype=dtype, requires_grad=True)

    def output_layer() -> None:
        token_log_probs(hidden, policy.model.lm_head.weight, batch.labels)[0].sum().backward()

    computed = f"{100 - mask.sparsity():.0f} % of the blocks" if isinstance(mask, BlockMask) else type(mask).__name__
    print(f"sequence of {length} tokens, {len(batch.labels)} labels; parts alone, forward + backward, {dtype}:")
    host = seconds(lambda: pack_groups([group], policy.family))
    print(f"  packing on the host                     {1e3 * host:9.1f} ms")
    print(f"  mask                                    {1e3 * seconds(lambda: packed_mask(batch, dtype)):9.1f} ms")
    print(f"  vision tower, no checkpointing          {1e3 * seconds(tower):9.1f} ms")
    print(f"  attention of one layer, {computed:16s} {1e3 * seconds(attention):9.1f} ms")
    print(f"  log-probabilities from hidden states    {1e3 * seconds(output_layer):9.1f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small dimensions, for a machine without a GPU")
    parser.add_argument("--responses", type=int, default=8, help="responses of a group")
    parser.add_argument("--response_tokens", type=int, default=512, help="tokens of a response")
    parser.add_argument("--frames", type=int, default=6, help="images of a prompt")
    parser.add_argument("--side", type=int, default=560, help="pixels")
    arguments = parse_arguments(parser)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, transformers {transformers.__version__}", flush=True)
    torch.manual_seed(0)

    config = model_config("tiny" if arguments.tiny else "3b")
    side = 56 if arguments.tiny else arguments.side
    tokens = 20 if arguments.tiny else arguments.response_tokens
    group = make_group(config, arguments.frames, side, 200, [tokens] * arguments.responses)
    compute = torch.bfloat16 if device == "cuda" else torch.float32
    measure_parts(PolicyModel.from_config(config, compute, device), group, device)

    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
        mesh = dist.device_mesh.init_device_mesh(device, (1,))
        start = time.perf_counter()
        policy = PolicyModel.from_config(config, torch.float32, device)
        policy.enable_gradient_checkpointing()
        shard(policy, FSDPConfig(), mesh, torch.float32)
        policy.train()
        print(f"weights made and sharded in {time.perf_counter() - start:.1f} s", flush=True)
        compare(policy, group, device, name)
        dist.destroy_process_group()


def compare(policy: PolicyModel, group: TokenizedGroup, device: str, name: str) -> None:
    """Packed, scoring only, one by one, and sequences whose length changes every time."""
    assert group.image_grid_thw is not None
    patch = policy.config.vision_config.patch_size
    images = [(height * patch, width * patch) for _, height, width in group.image_grid_thw.tolist()]
    responses = [len(ids) for ids in group.response_ids]
    forward = policy.family.flops().group_flops(len(group.prompt_ids), responses, images)
    peak = device_peak(name)
    print()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = {}
    for label, run, passes in (
        ("packed", forward_backward, 3),
        ("packed, score only", score, 1),
        ("one by one", one_by_one, 3),
    ):
        times[label] = spent = seconds(partial(run, policy, group, device))
        mfu = f"{100 * passes * forward / spent / peak:5.1f} % MFU" if peak else ""
        print(f"  {label:20s} {spent:7.3f} s   {group.tokens / spent:8.0f} tokens/s   {mfu}", flush=True)
    print(f"  packing gains        {times['one by one'] / times['packed']:7.2f} x")
    changing = []
    for cut in (1, 37, 130, 255, 301):
        shorter = replace(group, response_ids=[ids[: max(1, len(ids) - cut)] for ids in group.response_ids])
        synchronize()
        start = time.perf_counter()
        forward_backward(policy, shorter, device)
        synchronize()
        changing.append(f"{time.perf_counter() - start:.2f}")
    print(f"  lengths that change  {' '.join(changing)} s, in order")
    if device == "cuda":
        print(f"  peak memory          {torch.cuda.max_memory_allocated() / 2**30:7.1f} GiB")


if __name__ == "__main__":
    main()
