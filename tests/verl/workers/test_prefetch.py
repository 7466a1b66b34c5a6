"""Steps that processes load and pack are those that threads load and the actor packs."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from toy_task import ToyData

from verl.config.worker_sections import ActorConfig
from verl.models.packing import pack_groups
from verl.protocol import GroupRequest
from verl.workers.prefetch import LoaderSpec, ProcessPrefetcher, ThreadPrefetcher, load_sft_group
from verl.workers.prompt_builder import PromptBuilder

COMPARED = (
    "input_ids",
    "position_ids",
    "segment_ids",
    "prompt_segment_ids",
    "image_positions",
    "logit_positions",
    "labels",
)


def test_processes_load_and_pack_what_threads_load_and_their_errors_come_back(policy_folder):
    make_data = partial(ToyData, with_response=True, skipped_samples={"toy/40": "no picture"})
    make_prompt_builder = partial(PromptBuilder, policy_folder)
    actor = ActorConfig(micro_batch_size_per_device_for_update=2)
    requests = tuple(GroupRequest(uid=n, index=n, seed=5) for n in range(3))
    threads, prompt_builder = ThreadPoolExecutor(2), make_prompt_builder()
    loader = ThreadPrefetcher(threads, make_data(), prompt_builder, 60)
    loader.prefetch(requests[:2])
    groups = loader.take(requests)
    longest = max(len(group.response_ids[0]) for group in groups)
    spec = LoaderSpec(make_data, make_prompt_builder, longest, actor, 8, torch.bfloat16)
    processes = ProcessPrefetcher(spec, 1, threads, pin=False)
    processes.prefetch(requests)
    batches = processes.take(requests)
    assert processes.skipped_samples == {"toy/40": "no picture"}
    for batch, members in zip(batches, (groups[:2], groups[2:]), strict=True):
        expected = pack_groups(members, prompt_builder.family, 8)
        for name in COMPARED:
            assert getattr(batch, name).equal(getattr(expected, name)), name
        assert (batch.segments, batch.lengths) == (expected.segments, expected.lengths)
        assert batch.vision_metadata.order.equal(expected.vision_metadata.order)
        assert batch.pixel_values.dtype == torch.bfloat16
        assert batch.pixel_values.equal(expected.pixel_values.bfloat16())
    too_long = rf"toy/11: its response has \d+ tokens, data.max_response_length is {longest}"
    with pytest.raises(ValueError, match=too_long):
        processes.take((GroupRequest(uid=4, index=11, seed=5),))  # a longer number in it
    with pytest.raises(ValueError, match="toy/1 has no response to learn"):
        load_sft_group(ToyData(), prompt_builder, requests[1], 60)
    processes.pool.shutdown()
