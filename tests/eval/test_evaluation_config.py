"""`key=value` words: typed, with the nearest key named."""

import pytest

from eval.metrics import MetricsConfig
from eval.options import EvaluateConfig, name_places, read_words
from verl.config import ConfigError

NEEDED = ["model_path=m", "data_path=d", "output_path=o"]


def test_words_take_the_types_of_their_fields(monkeypatch):
    monkeypatch.setenv("SAM2_CHECKPOINT", "weights.pt")
    config = read_words(
        EvaluateConfig, [*NEEDED, "temperature=0.7", "limit=3", "split=null", "--score=false", "benchmark=revos"]
    )
    assert (config.temperature, config.limit, config.split, config.score) == (0.7, 3, None, False)
    assert (config.benchmark, config.sam2_checkpoint) == ("revos", "weights.pt")
    assert read_words(EvaluateConfig, ["data_path=007", *NEEDED[:1], *NEEDED[2:]]).data_path == "007"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*NEEDED, "tempratur=1"], "unknown key tempratur .did you mean temperature"),
        ([*NEEDED, "limit=0"], "limit=0: at least 1 sample"),
        ([*NEEDED, "limit=many"], "limit: .*many"),
        (["model_path=m"], "missing: data_path=... output_path=..."),
        ([*NEEDED, "revos"], "write key=value"),
    ],
)
def test_wrong_words_are_named(words, message):
    with pytest.raises(ConfigError, match=message):
        read_words(EvaluateConfig, words)


def test_a_path_may_hold_an_equals_sign():
    words = name_places(
        MetricsConfig, ["outputs/lr=1e-6", "limit=2", "/data/x=y", "--name=a=b"], ("predictions", "data")
    )
    config = read_words(MetricsConfig, words)
    assert (config.predictions, config.data, config.limit, config.name) == ("outputs/lr=1e-6", "/data/x=y", 2, "a=b")
    with pytest.raises(ConfigError, match=r"too many words .*: a b procesess=2; the keys are .*processes"):
        name_places(MetricsConfig, ["a", "b", "procesess=2"], ("predictions", "data"))
