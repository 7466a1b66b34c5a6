"""`data.mix`: several data sets with weights, as one."""

from __future__ import annotations

import json
import pickle
from collections import Counter

import pytest

from veason.data.mixture import MixedTrainingData
from veason.data.training import build_training_data
from veason.errors import DataError
from verl.config import ConfigError, load_config
from verl.protocol import missing_methods


class Numbers:
    """Training data whose samples are named by a letter and a number."""

    def __init__(self, letter, count, depends_on_seed=True):
        self.letter, self.count, self.depends_on_seed = letter, count, depends_on_seed

    def __len__(self):
        return self.count

    def sample_id(self, index):
        return f"{self.letter}/{range(self.count)[index]}"

    def messages_and_sizes(self, index, seed):
        return self.sample_id(index), seed

    def example(self, index, seed):
        raise AssertionError("no test builds an example")


def shares(data):
    return Counter(data.sample_id(index).partition(":")[0] for index in range(len(data)))


@pytest.mark.parametrize(
    ("sizes", "weights", "counts"),
    [
        ((6, 3), None, (6, 3)),
        ((6, 3), (2, 1), (6, 3)),
        ((6, 3), (1, 1), (6, 6)),
        ((10, 3), (0.5, 0.5), (10, 10)),
        ((3, 10), (9, 1), (90, 10)),
        ((100, 7), (3, 1), (100, 33)),
    ],
)
def test_an_episode_has_the_sets_in_proportion_and_every_sample(sizes, weights, counts):
    members = {"a": Numbers("x", sizes[0]), "b": Numbers("y", sizes[1])}
    data = MixedTrainingData(members, weights and dict(zip("ab", weights)))
    assert tuple(shares(data)[label] for label in "ab") == counts and len(data) == sum(counts)
    shown = Counter(data.sample_id(index) for index in range(len(data)))
    assert len(shown) == sum(sizes)
    for label in "ab":  # repeated as equally as possible
        times = [count for name, count in shown.items() if name.startswith(label)]
        assert max(times) - min(times) <= 1


def test_a_position_is_the_sets_own_sample():
    data = MixedTrainingData({"a": Numbers("x", 2), "b": Numbers("y", 3, depends_on_seed=False)}, {"a": 2, "b": 1})
    assert [data.messages_and_sizes(index, 5)[0] for index in range(len(data))] == [
        *(["x/0", "x/1"] * 3),
        "y/0",
        "y/1",
        "y/2",
    ]
    assert data.messages_and_sizes(0, 5)[1] == 5 and data.depends_on_seed and missing_methods(data) == []
    with pytest.raises(IndexError):
        data.sample_id(9)


def test_real_sets_are_mixed_and_named_in_what_is_skipped_and_excluded(revos, refytvos, tmp_path):
    excluded = tmp_path / "exclude.txt"
    excluded.write_text("one:a/1  # empty\nmine:v/0\nb\n")
    mix = {
        "one": {"name": "revos", "weight": 1},
        "mine": {"name": "refytvos", "weight": 1, "train_files": str(refytvos)},
    }
    section = {"exclude": str(excluded), "keyframe_resize": 56, "meta_file": "meta_expressions_valid_.json"}
    data = build_training_data(train_files=str(revos), mix=mix, on_bad_sample="skip", **section)
    assert {data.sample_id(index) for index in range(len(data))} == {"one:a/0", "mine:v/1"}
    example = pickle.loads(pickle.dumps(data)).example(1, seed=3)
    assert example.sample_id == "mine:v/1" and example.images[0].size == (56, 56) and example.ground_truth.masks.any()
    data.members["mine"]._skip(data.members["mine"].samples[0], "no picture")
    assert data.skipped_samples == {"mine:v/1": "no picture"}


@pytest.mark.parametrize(
    ("mix", "says"),
    [
        ({"revos": 3}, r"data\.mix\.revos is 3: give its keys"),
        ({"revos": {"weight": 0}}, r"data\.mix\.revos\.weight is 0: a number above 0"),
        ({"revos": {"weight": "much"}}, r"data\.mix\.revos\.weight is 'much'"),
        ({"revos": {"weight": float("nan")}}, r"data\.mix\.revos\.weight is nan"),
        ({"revos": {"weight": 1}, "b": {"name": "revos"}}, r"data\.mix\.b\.weight is not set, revos has one"),
        ({"revos": {"wieght": 1}}, r"data\.mix\.revos\.wieght is unknown; did you mean weight\?"),
        ({"mine": {}}, r"data\.mix\.mine: data\.name: 'mine' is unknown"),
        ({"revos": {"train_files": "/nowhere"}}, r"data\.mix\.revos: .*missing: /nowhere"),
        ({"revos": {"options": {"sizes": 3}}}, r"data\.mix\.revos: data\.options\.sizes is unknown"),
    ],
)
def test_a_wrong_mixture_is_named_in_one_line(revos, mix, says):
    with pytest.raises(DataError, match=says) as caught:
        build_training_data(train_files=str(revos), mix=mix, options=None)
    assert "\n" not in str(caught.value)


def test_the_command_line_gives_a_mixture(revos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "revos").mkdir()  # a folder of the name of a data set is not meant by it
    mixed = ["data.mix.a.name=revos", "data.mix.a.train_files=ReVOS", "data.mix.a.weight=2", "data.mix.b.weight=0.5"]
    config = load_config(mixed)
    assert config.data.mix == {"a": {"name": "revos", "train_files": str(revos), "weight": 2}, "b": {"weight": 0.5}}
    path = tmp_path / "mix.yaml"
    path.write_text(json.dumps({"data": {"mix": {"a": {"weight": 3}}}}))
    assert load_config([f"config={path}", *mixed]).data.mix["a"]["weight"] == 2
    with pytest.raises(ConfigError, match=r"data\.mix"):
        load_config(["data.mix=[revos, mevis]"])
