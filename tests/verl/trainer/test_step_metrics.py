"""Metrics of a run: from groups, from the timer, from several updates, from FLOPs; and the files they go to."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import Qwen2_5_VLConfig

from verl.config import Config, ConfigError, load_config, override
from verl.metric_types import PeakMetric, ReplicatedMetric, TimeMetric, reduce_over_ranks, reduce_over_step
from verl.models.families import load_family
from verl.models.flops import ModelFlops
from verl.protocol import GroupResult
from verl.trainer.loggers import Logger
from verl.trainer.run_log import RunLog, read_metrics
from verl.trainer.step_metrics import PhaseTimer, group_metrics
from verl.trainer.throughput import device_peak, throughput_metrics

PLAN: Any = SimpleNamespace(start_step=0, steps=3)


def run_config(folder: Path, *loggers: str) -> Config:
    return load_config([f"trainer.save_checkpoint_path={folder}", f"trainer.logger=[{','.join(loggers)}]"])


def group(totals: list[float], parts: list[dict[str, float]], failures: list[str | None]) -> GroupResult:
    n = len(totals)
    return GroupResult(0, "v/0", 100, ["text"] * n, [10, 30][:n], [False, True][:n], totals, parts, failures)


def test_scores_parts_failures_and_lengths() -> None:
    first = group([2.0, 0.0], [{"format": 2.0, "spatial": 0.0}, {"format": 0.0, "spatial": 0.0}], [None, "no answer"])
    lost = group([math.nan, math.nan], [{"format": math.nan}] * 2, [None, "no answer"])
    metrics = group_metrics([first, lost], "val/")
    assert (
        metrics["val/reward/mean"] == 1.0 and metrics["val/reward/std"] == 1.0 and metrics["val/reward/frac_nan"] == 0.5
    )
    assert (
        metrics["val/rewards/format/frac_zero"] == 0.5
        and metrics["val/rewards/spatial/frac_zero"] == 1.0
        and metrics["val/rewards/format/mean"] == 1.0
    )
    assert metrics["val/parse_failure/any"] == metrics["val/parse_failure/no answer"] == 0.5
    assert (metrics["val/response/mean"], metrics["val/response/max"], metrics["val/response/truncated"]) == (
        20.0,
        30.0,
        0.5,
    )
    assert group_metrics([]) == {}


def test_the_timer_adds_up_and_starts_again() -> None:
    timer = PhaseTimer()
    for _ in range(2):
        with timer("rollout"):
            pass
    with pytest.raises(KeyError), timer("update"):
        raise KeyError
    assert set(timer.read()) == {"timing_s/rollout", "timing_s/update"} and timer.read() == {}


def test_the_parts_of_a_step_give_means_peaks_and_sums() -> None:
    calls = [
        {"actor/kl": 1.0, "memory/peak_update_gib": PeakMetric(5.0), "timing_s/rollout/generate": TimeMetric(1.0)},
        {
            "actor/kl": 3.0,
            "memory/peak_update_gib": PeakMetric(4.0),
            "timing_s/rollout/generate": TimeMetric(0.5),
            "actor/entropy": 2,
        },
    ]
    reduced = reduce_over_step(calls)
    assert reduced == {"actor/kl": 2, "memory/peak_update_gib": 5, "timing_s/rollout/generate": 1.5, "actor/entropy": 2}
    assert [type(value) for value in reduced.values()] == [ReplicatedMetric, PeakMetric, TimeMetric, ReplicatedMetric]
    assert reduce_over_step([]) == {}


def test_the_slowest_worker_is_the_time_of_all() -> None:
    ranks = [
        {
            "loss": ReplicatedMetric(2),
            "memory": PeakMetric(rank),
            "seconds": pickle.loads(pickle.dumps(TimeMetric(rank))),
        }
        for rank in (1, 2)
    ]
    assert reduce_over_ranks(ranks) == {"loss": 2, "memory": 2, "seconds": 2}
    assert type(reduce_over_ranks(ranks)["seconds"]) is TimeMetric


def test_flops_of_the_3b_model_are_near_six_per_weight_and_token() -> None:
    text = {
        "hidden_size": 2048,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "intermediate_size": 11008,
    }
    vision = {"hidden_size": 1280, "depth": 32, "intermediate_size": 3420, "out_hidden_size": 2048}
    flops = load_family(Qwen2_5_VLConfig(text_config=text | {"vocab_size": 151936}, vision_config=vision)).flops()
    assert flops.per_token == pytest.approx(2 * 2.775e9, rel=0.02)  # 3.09e9 weights, less the embeddings
    assert flops.per_label == 2 * 2048 * 151936
    assert flops.per_patch == pytest.approx(2 * 0.67e9, rel=0.1)
    lora = flops.with_backward(adapter=True, vision=False)
    assert (lora.per_token, lora.per_attention_pair, lora.per_patch) == (
        2 * flops.per_token,
        3 * flops.per_attention_pair,
        flops.per_patch,
    )
    frames = [(560, 560)] * 5  # 8,000 patches
    packed = flops.group_flops(2000, [500] * 8, frames)
    padded = 8 * flops.group_flops(2000, [500], frames)
    assert 2.5 < padded / packed < 5


def test_rates() -> None:
    result = group([1.0, 0.0], [{}, {}], [None, None])
    flops = ModelFlops(per_token=1.0, per_attention_pair=0.0, per_label=0.0, per_patch=0.0)
    seconds = {"rollout": 2.0, "update": 1.0, "score_wait": 0.5, "ref": 0.5}
    update, passes = flops.with_backward(adapter=False, vision=True), {"ref": 1, "old_log_prob": 0, "update": 1}
    metrics = throughput_metrics([result], [result], {0: [(112, 112)]}, seconds, passes, flops, update, peak=1000.0)
    assert metrics["perf/tokens_per_second"] == 140 / 4 and metrics["perf/rollout_tokens_per_second"] == 20
    assert metrics["perf/mfu"] == pytest.approx(140 * 5 / 4000) and metrics["perf/mfu_update"] == pytest.approx(
        140 * 3 / 1000
    )
    assert metrics["perf/mfu_ref"] == pytest.approx(140 / 500)
    assert device_peak("NVIDIA H100 80GB HBM3") == 989e12 and device_peak("CPU") is None


def test_files_survive_an_interruption(tmp_path: Path) -> None:
    with RunLog(run_config(tmp_path), PLAN) as log:
        for step in (1, 2, 3):
            log.metrics(step, {"reward/mean": step / 2})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')
    validating = override(run_config(tmp_path), {"trainer.val_only": True})
    with RunLog(validating, SimpleNamespace(start_step=1, steps=3)):  # type: ignore[arg-type]
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4  # what only validates removes nothing
    resumed: Any = SimpleNamespace(start_step=2, steps=3)
    with RunLog(run_config(tmp_path), resumed) as log:
        log.metrics(3, {"reward/mean": 9.0})
    assert read_metrics(tmp_path) == [
        {"step": 1, "reward/mean": 0.5},
        {"step": 2, "reward/mean": 1.0},
        {"step": 3, "reward/mean": 9.0},
    ]


def test_the_console_shows_a_step_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(run_config(tmp_path, "console"), PLAN) as log:
        log.metrics(2, {"reward/mean": 1.25, "response/truncated": 0.5, "timing_s/step": 3.0})
    assert capsys.readouterr().out == "step 2/3  reward 1.250  truncated 50%  s 3.0\n"


def test_the_console_says_how_much_time_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(run_config(tmp_path, "console"), PLAN) as log:
        log.begin("CPU", 2)
        for step in (1, 2, 3):
            log.show_progress({"generation": (1, 2)})
            log.metrics(step, {"reward/mean": 1.0})
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.endswith("left 0:00:00") and "left" in second and "left" not in last


def test_wandb_is_offline_where_nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    with RunLog(run_config(tmp_path, "wandb"), PLAN) as log:
        log.metrics(1, {"reward/mean": 1.0})
        log.val_generations(1, [group([1.0, 2.0], [{"format": 1.0}] * 2, [None, None])])
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert json.loads((tmp_path / "val_generations.jsonl").read_text())["total"] == 1.0


class Counting(Logger):
    """A logger of one's own."""

    seen: list[tuple[int, dict[str, float]]] = []  # noqa: RUF012

    def metrics(self, step: int, metrics: Any) -> None:
        self.seen.append((step, metrics))


def test_a_logger_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from test_step_metrics import Counting as Chosen  # as the path leads to it

    with RunLog(run_config(tmp_path, "test_step_metrics:Counting"), PLAN) as log:
        log.metrics(1, {"reward/mean": ReplicatedMetric(1.0)})
    assert Chosen.seen == [(1, {"reward/mean": 1.0})]
    with pytest.raises(ConfigError, match=r"trainer.logger 'test_step_metrics:Counted' cannot be imported"):
        run_config(tmp_path, "test_step_metrics:Counted")
