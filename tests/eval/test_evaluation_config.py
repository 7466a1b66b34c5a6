"""The command line of eval.*: typed values, three spellings, positional arguments, the nearest key named."""

import pytest

from eval.evaluation_options import EvaluateConfig, parse_overrides
from eval.metrics import MetricsConfig
from verl.config import ConfigError

NEEDED = ["model_path=m", "data_path=d", "output_path=o"]
POSITIONAL = ("predictions", "data")


def test_values_take_the_types_of_their_fields(monkeypatch):
    monkeypatch.setenv("SAM2_CHECKPOINT", "weights.pt")
    config = parse_overrides(
        EvaluateConfig, [*NEEDED, "temperature=0.7", "limit=3", "split=null", "--score=false", "benchmark=revos"]
    )
    assert (config.temperature, config.limit, config.split, config.compute_metrics) == (0.7, 3, None, False)
    assert (config.benchmark, config.sam2_checkpoint) == ("revos", "weights.pt")
    assert parse_overrides(EvaluateConfig, ["data_path=007", *NEEDED[:1], *NEEDED[2:]]).data_path == "007"


def test_three_spellings_mean_the_same():
    published = ["--reasoning_model_path", "a model", "--data_path=d", "--output_path", "o", "--limit", "2"]
    config = parse_overrides(EvaluateConfig, published)
    assert config == parse_overrides(EvaluateConfig, ["model_path=a model", "data_path=d", "output_path=o", "limit=2"])


def test_the_tracker_s_options_are_read_as_yaml():
    config = parse_overrides(
        EvaluateConfig, [*NEEDED, "tracker=my:Tracker", "tracker_options.size=3", "--tracker_options.fast", "true"]
    )
    assert (config.tracker, config.tracker_options) == ("my:Tracker", {"size": 3, "fast": True})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*NEEDED, "tempratur=1"], "unknown key tempratur; did you mean temperature"),
        ([*NEEDED, "--tempratur", "1"], "unknown key tempratur; did you mean temperature"),
        ([*NEEDED, "limit=0"], "limit=0: at least 1 sample"),
        ([*NEEDED, "limit=many"], "limit: .*many"),
        ([*NEEDED, "--limit"], "--limit needs a value"),
        (["model_path=m"], "missing: data_path=... output_path=..."),
        ([*NEEDED, "revos"], "write key=value"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parse_overrides(EvaluateConfig, arguments)


def test_a_path_may_hold_an_equals_sign_or_be_called_like_a_key():
    arguments = ["outputs/lr=1e-6", "limit=2", "/data/x=y", "--name=a=b"]
    config = parse_overrides(MetricsConfig, arguments, POSITIONAL)
    assert (config.predictions, config.data, config.limit, config.name) == ("outputs/lr=1e-6", "/data/x=y", 2, "a=b")
    assert parse_overrides(MetricsConfig, ["output", "data"], POSITIONAL).data == "data"
    with pytest.raises(ConfigError, match="unknown key procesess; did you mean processes"):
        parse_overrides(MetricsConfig, ["a", "b", "procesess=2"], POSITIONAL)
