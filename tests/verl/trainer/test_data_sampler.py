"""The order of the data is a function of the seed and the position, and groups are divided evenly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl.trainer.data_sampler import DataSampler, balance_by_length, batched, train_val_split, validation_requests


def test_an_episode_shows_every_sample_once_and_the_next_in_another_order() -> None:
    order = DataSampler(range(7), seed=42)
    first, second = order.draw(7), order.draw(7)
    assert sorted(r.index for r in first) == sorted(r.index for r in second) == list(range(7))
    assert [r.index for r in first] != [r.index for r in second]
    assert [r.uid for r in first + second] == list(range(14))
    assert len({r.seed for r in first + second}) == 14


@given(cuts=st.lists(st.integers(1, 9), max_size=8), resumed_at=st.integers(0, 8))
def test_a_resumed_order_is_the_uninterrupted_one(cuts: list[int], resumed_at: int) -> None:
    whole = DataSampler(range(5), seed=3).draw(sum(cuts))
    drawn, order = [], DataSampler(range(5), seed=3)
    for number, cut in enumerate(cuts):
        if number == resumed_at:
            state, order = order.state_dict(), DataSampler(range(5), seed=3)
            order.load_state_dict(state)
        drawn += order.draw(cut)
    assert drawn == whole


def test_unshuffled_data_come_as_they_are_with_new_seeds_each_episode() -> None:
    requests = DataSampler([4, 8], seed=0, shuffle=False).draw(4)
    assert [r.index for r in requests] == [4, 8, 4, 8]
    assert requests[0].seed != requests[2].seed


def test_other_data_or_another_seed_is_refused_by_name() -> None:
    state = DataSampler(range(5), seed=3).state_dict()
    with pytest.raises(ValueError, match="samples 5 -> 6"):
        DataSampler(range(6), seed=3).load_state_dict(state)
    with pytest.raises(ValueError, match="seed 3 -> 4"):
        DataSampler(range(5), seed=4).load_state_dict(state)


def test_preview_moves_nothing() -> None:
    order = DataSampler(range(5), seed=1)
    assert order.preview(8) == order.draw(8)


def test_no_data_is_refused() -> None:
    with pytest.raises(ValueError, match="no sample"):
        DataSampler([], seed=0)


@given(lengths=st.lists(st.integers(1, 10_000), max_size=40), replicas=st.integers(1, 9))
def test_batches_are_even_in_number_and_near_in_length(lengths: list[int], replicas: int) -> None:
    divided = balance_by_length(range(len(lengths)), lengths, replicas)
    counts = [len(each) for each in divided]
    assert sorted(i for each in divided for i in each) == list(range(len(lengths)))
    assert max(counts) - min(counts) <= 1
    if len(lengths) % replicas == 0 and lengths:
        loads = [sum(lengths[i] for i in each) for each in divided]
        assert max(loads) - min(loads) <= max(lengths) * 2


def test_the_longest_prompts_are_spread() -> None:
    assert balance_by_length("abcd", [100, 90, 10, 9], 2) == [["a", "d"], ["b", "c"]]


def test_validation_is_the_same_each_time_and_apart_from_training() -> None:
    once, again = (validation_requests(range(20), seed=42, limit=6) for _ in range(2))
    assert once == again and len(once) == 6
    assert all(request.uid < 0 for request in once)


def test_held_out_prompts_are_not_trained_on() -> None:
    names = [f"v/{index}" for index in range(40)]
    trained, validation = train_val_split(names, 0.1, seed=42)
    assert len(validation) == 4 and sorted(trained + validation) == list(range(40))
    assert train_val_split(names, 0.0, seed=42) == (list(range(40)), [])


def test_a_repeated_sample_is_held_out_as_a_whole_and_once() -> None:
    names = [f"v/{index % 10}" for index in range(40)]
    trained, validation = train_val_split(names, 0.1, seed=42)
    apart = {names[index] for index in validation}
    assert len(apart) == len(validation) > 0
    assert trained == [index for index in range(40) if names[index] not in apart]


def test_the_last_slice_is_shorter() -> None:
    assert batched([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
