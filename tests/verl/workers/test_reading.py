"""Steps that are read and packed in processes of their own are those that are read and packed here."""

from functools import partial

import pytest
import torch
from toy_task import ToyData
from transformers import AutoConfig

from verl.config.worker_sections import ActorConfig
from verl.models.packing import pack_groups
from verl.protocol import GroupRequest
from verl.workers.prompts import PromptBuilder
from verl.workers.reading import Reader, ReadingProcesses, read_target


def test_a_process_reads_and_packs_what_this_one_does_and_its_errors_come_back(policy_folder):
    make_data, make_prompts = (
        partial(ToyData, with_response=True, skipped={"toy/40": "no picture"}),
        partial(PromptBuilder, policy_folder),
    )
    model_config, actor = (
        AutoConfig.from_pretrained(policy_folder),
        ActorConfig(micro_batch_size_per_device_for_update=2),
    )
    requests = [GroupRequest(uid=n, index=n, seed=5) for n in range(3)]
    data, prompts = make_data(), make_prompts()
    groups = [read_target(data, prompts, request, 60) for request in requests]
    longest = max(len(group.response_ids[0]) for group in groups)
    reading = ReadingProcesses(Reader(make_data, make_prompts, longest, actor, model_config, 8, torch.bfloat16), 1)
    rows, skipped = reading.submit(requests).result()
    assert skipped == {"toy/40": "no picture"}
    for row, members in zip(rows, (groups[:2], groups[2:]), strict=True):
        expected = pack_groups(members, model_config, 8)
        for name in (
            "input_ids",
            "position_ids",
            "segments",
            "parents",
            "image_positions",
            "predictors",
            "labels",
            "response_of",
        ):
            assert getattr(row, name).equal(getattr(expected, name)), name
        assert (row.spans, row.lengths, row.vision.grids) == (expected.spans, expected.lengths, expected.vision.grids)
        assert row.pixel_values.dtype == torch.bfloat16 and row.pixel_values.equal(expected.pixel_values.bfloat16())
    with pytest.raises(
        ValueError, match=rf"toy/11: its response has \d+ tokens, data.max_response_length is {longest}"
    ):
        reading.submit([GroupRequest(uid=4, index=11, seed=5)]).result()  # a longer number in it
    with pytest.raises(ValueError, match="toy/1 has no response to learn"):
        read_target(ToyData(), prompts, requests[1], 60)
    reading.pool.shutdown()
