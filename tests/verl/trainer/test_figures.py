"""Figures of a run: from groups, from the clock, from several updates, from FLOPs; and the files they go to."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import Qwen2_5_VLConfig

from verl.protocol import GroupResult
from verl.trainer.curves import plot_metrics
from verl.trainer.run_log import RunLog, read_metrics
from verl.trainer.step_metrics import Clock, group_metrics, over_parts
from verl.trainer.throughput import ModelFlops, device_peak, throughput_metrics
from verl.workers.engine import _merged

PLAN = SimpleNamespace(start=0, steps=3, val_only=False, config={"data": {"seed": 1}})


def group(totals: list[float], parts: list[dict[str, float]], failures: list[str | None]) -> GroupResult:
    n = len(totals)
    return GroupResult(0, "v/0", 100, ["text"] * n, [10, 30][:n], [False, True][:n], totals, parts, failures)


def test_scores_parts_failures_and_lengths() -> None:
    first = group([2.0, 0.0], [{"format": 2.0, "spatial": 0.0}, {"format": 0.0, "spatial": 0.0}], [None, "no answer"])
    lost = group([math.nan, math.nan], [{"format": math.nan}] * 2, [None, "no answer"])
    figures = group_metrics([first, lost], "val/")
    assert (
        figures["val/reward/mean"] == 1.0
        and figures["val/reward/std"] == 1.0
        and figures["val/reward/uncomputed"] == 0.5
    )
    assert (
        figures["val/part/format_zero"] == 0.5
        and figures["val/part/spatial_zero"] == 1.0
        and figures["val/part/format_mean"] == 1.0
    )
    assert figures["val/failure/any"] == figures["val/failure/no answer"] == 0.5
    assert (figures["val/response/mean"], figures["val/response/max"], figures["val/response/truncated"]) == (
        20.0,
        30.0,
        0.5,
    )
    assert group_metrics([]) == {}


def test_the_clock_adds_up_and_starts_again() -> None:
    clock = Clock()
    for _ in range(2):
        with clock("rollout"):
            pass
    with pytest.raises(KeyError), clock("update"):
        raise KeyError
    assert set(clock.read()) == {"seconds/rollout", "seconds/update"} and clock.read() == {}


def test_the_parts_of_a_step_give_means_peaks_and_sums() -> None:
    rows = [
        {"actor/kl": 1.0, "memory/update_gib": 5.0},
        {"actor/kl": 3.0, "memory/update_gib": 4.0, "actor/entropy": 2.0},
    ]
    assert over_parts(rows) == {"actor/kl": 2.0, "memory/update_gib": 5.0, "actor/entropy": 2.0}
    assert over_parts([{"seconds/rollout/generate": 1.0}, {"seconds/rollout/generate": 0.5}]) == {
        "seconds/rollout/generate": 1.5
    }
    assert over_parts([]) == {}


def test_the_slowest_worker_is_the_time_of_all() -> None:
    ranks = [
        {"loss": 2.0, "memory/update_gib": 1.0, "seconds/rollout/generate": 3.0},
        {"loss": 2.0, "memory/update_gib": 2.0, "seconds/rollout/generate": 4.0},
    ]
    assert _merged(ranks) == {"loss": 2.0, "memory/update_gib": 2.0, "seconds/rollout/generate": 4.0}


def test_flops_of_the_3b_model_are_near_six_per_weight_and_token() -> None:
    text = {
        "hidden_size": 2048,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "intermediate_size": 11008,
    }
    vision = {"hidden_size": 1280, "depth": 32, "intermediate_size": 3420, "out_hidden_size": 2048}
    flops = ModelFlops.of(Qwen2_5_VLConfig(text_config=text | {"vocab_size": 151936}, vision_config=vision))
    assert flops.token == pytest.approx(2 * 2.775e9, rel=0.02)  # 3.09e9 weights, less the embeddings
    assert flops.head == 2 * 2048 * 151936
    assert flops.patch == pytest.approx(2 * 0.67e9, rel=0.1)
    lora = flops.with_backward(adapter=True, tower=False)
    assert (lora.token, lora.pair, lora.patch) == (2 * flops.token, 3 * flops.pair, flops.patch)
    packed = flops.group(2000, [500] * 8, 8000)
    padded = 8 * flops.group(2000, [500], 8000)
    assert 2.5 < padded / packed < 5


def test_rates() -> None:
    result = group([1.0, 0.0], [{}, {}], [None, None])
    flops = ModelFlops(token=1.0, pair=0.0, head=0.0, patch=0.0)
    seconds = {"rollout": 2.0, "update": 1.0, "score": 0.5, "reference": 0.5}
    figures = throughput_metrics(
        [result],
        [result],
        {0: 64},
        seconds,
        {"reference": 1, "update": 1},
        flops,
        flops.with_backward(False, True),
        peak=1000.0,
    )
    assert figures["perf/tokens_per_second"] == 140 / 4 and figures["perf/generated_per_second"] == 20
    assert figures["perf/mfu"] == pytest.approx(140 * 5 / 4000) and figures["perf/mfu_update"] == pytest.approx(
        140 * 3 / 1000
    )
    assert figures["perf/mfu_reference"] == pytest.approx(140 / 500)
    assert device_peak("NVIDIA H100 80GB HBM3") == 989e12 and device_peak("CPU") is None


def test_files_survive_an_interruption(tmp_path: Path) -> None:
    with RunLog(tmp_path, [], "p", "e", PLAN) as log:
        for step in (1, 2, 3):
            log.metrics(step, {"reward/mean": step / 2})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')
    with RunLog(tmp_path, [], "p", "e", SimpleNamespace(start=1, steps=3, val_only=True, config={})):
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4  # what only validates removes nothing
    resumed = SimpleNamespace(start=2, steps=3, val_only=False, config={})
    with RunLog(tmp_path, [], "p", "e", resumed) as log:
        log.metrics(3, {"reward/mean": 9.0})
    assert read_metrics(tmp_path) == [
        {"step": 1, "reward/mean": 0.5},
        {"step": 2, "reward/mean": 1.0},
        {"step": 3, "reward/mean": 9.0},
    ]


def test_the_console_shows_a_step_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path, ["console"], "p", "e", PLAN) as log:
        log.metrics(2, {"reward/mean": 1.25, "response/truncated": 0.5, "seconds/step": 3.0})
    assert capsys.readouterr().out == "step 2/3  reward 1.250  cut 50%  s 3.0\n"


def test_wandb_is_offline_where_nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    with RunLog(tmp_path, ["wandb"], "p", "e", PLAN) as log:
        log.metrics(1, {"reward/mean": 1.0})
        log.generations(1, [group([1.0, 2.0], [{"format": 1.0}] * 2, [None, None])])
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert json.loads((tmp_path / "generations.jsonl").read_text())["total"] == 1.0


def test_the_curve_is_a_picture(tmp_path: Path) -> None:
    with RunLog(tmp_path, [], "p", "e", PLAN) as log:
        for step in range(1, 9):
            log.metrics(
                step,
                {"reward/mean": step / 8, "part/format_mean": 1.0}
                | ({"val/reward/mean": 0.5} if step % 4 == 0 else {}),
            )
    picture = plot_metrics(tmp_path, tmp_path / "reward.png")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="reward/means"):
        plot_metrics(tmp_path, tmp_path / "none.png", ["reward/means"])
