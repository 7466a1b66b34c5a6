"""Examples read in processes of their own are those that are read here."""

from functools import partial

import pytest
import torch
from toy_task import ToyData

from verl.protocol import GroupRequest
from verl.workers.prompts import PromptBuilder
from verl.workers.reading import Reader, ReadingProcesses, read_target


def test_a_process_reads_what_this_one_reads_and_its_errors_come_back(policy_folder):
    make_data, make_prompts = partial(ToyData, with_response=True), partial(PromptBuilder, policy_folder)
    requests = [GroupRequest(uid=n, index=n, seed=5) for n in range(4)]
    reading = ReadingProcesses(Reader(make_data, make_prompts, 60, torch.bfloat16), 1)
    groups = [future.result() for future in [reading.submit(request) for request in requests]]
    data, prompts = make_data(), make_prompts()
    for request, group in zip(requests, groups):
        expected = read_target(data, prompts, request, 60)
        assert group.prompt_ids.equal(expected.prompt_ids) and group.response_ids[0].equal(expected.response_ids[0])
        assert group.image_grid_thw.equal(expected.image_grid_thw)
        assert group.pixel_values.dtype == torch.bfloat16 and group.pixel_values.equal(expected.pixel_values.bfloat16())
    short = ReadingProcesses(Reader(make_data, make_prompts, 3, torch.float32), 1)
    with pytest.raises(ValueError, match=r"toy/2: its response has \d+ tokens, data.max_response_length is 3"):
        short.submit(requests[2]).result()
    with pytest.raises(ValueError, match="toy/1 has no response to learn"):
        read_target(ToyData(), prompts, requests[1], 60)
    for pool in (reading.pool, short.pool):
        pool.shutdown()
