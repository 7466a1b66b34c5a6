"""The records of a run: files, loggers by name, and what a resumed run keeps."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from recording_backend import ListData, RecordingBackend
from test_loops import loop_of

from verl.config import Config, ConfigError, override
from verl.config.name_checks import LOGGERS
from verl.registry import load_by_name
from verl.trainer.grpo import GRPO
from verl.trainer.run_info import RunInfo
from verl.trainer.run_log import read_metrics
from verl.trainer.sft import SFT

LOGGED = {"trainer.log_rollouts_freq": 2, "trainer.test_freq": 3, "trainer.log_rollouts_groups": 2}


def folder_of(config: Config) -> Path:
    return Path(config.trainer.save_checkpoint_path or "")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rollouts_are_kept_every_so_many_steps_and_at_validations(config: Config) -> None:
    config = override(config, LOGGED)
    backend = RecordingBackend()
    loop_of(GRPO, config, backend, validated=5).fit()
    folder = folder_of(config) / "rollouts"
    files = {path.name: rows_of(path) for path in folder.glob("*.jsonl")}
    phases = {name: {row["phase"] for row in rows} for name, rows in files.items()}
    assert phases == {
        "step_2.jsonl": {"train"},
        "step_3.jsonl": {"validation"},
        "step_4.jsonl": {"train"},
        "step_6.jsonl": {"train", "validation"},
    }
    train = [row for row in files["step_2.jsonl"] if row["phase"] == "train"]
    assert len(train) == 2 * 4 and {row["number"] for row in train} == {0, 1, 2, 3}
    for row in train:
        assert (folder / row["pictures"]["masks"]).is_file() and row["response"] == "text" and "word" in row["question"]
        assert row["parts"] == {"format": row["total"]} and row["tokens"] == 2 + row["number"]
    by_prompt = {uid: [row["advantage"] for row in train if row["uid"] == uid] for uid in {row["uid"] for row in train}}
    assert all(sum(values) == pytest.approx(0, abs=1e-5) and max(values) > 0 for values in by_prompt.values())
    (one, *_) = (row for row in files["step_3.jsonl"])
    assert one["advantage"] is None and one["uid"] < 0


def test_a_prompt_that_was_logged_is_logged_when_it_comes_again(config: Config) -> None:
    """In two episodes of three steps: as many different prompts as one episode logs."""
    config = override(config, {"trainer.log_rollouts_freq": 1, "trainer.log_rollouts_groups": 1})
    config = override(config, {"data.rollout_batch_size": 12, "worker.actor.global_batch_size": 12})
    loop_of(GRPO, config, RecordingBackend()).fit()
    rows = [rows_of(path) for path in (folder_of(config) / "rollouts").glob("*.jsonl")]
    assert len(rows) == 2 and len({row["sample_id"] for step in rows for row in step}) == 1


def test_logging_rollouts_changes_nothing_else(config: Config, tmp_path: Path) -> None:
    plain, logged = RecordingBackend(), RecordingBackend()
    loop_of(GRPO, config, plain).fit()
    other = override(
        config, LOGGED | {"trainer.save_checkpoint_path": str(tmp_path / "logged"), "trainer.test_freq": -1}
    )
    loop_of(GRPO, other, logged).fit()
    assert plain.weight == logged.weight != 0
    assert [call for call in logged.calls if call[0] != "draw_pictures"] == plain.calls
    one, two = (
        [{name: value for name, value in row.items() if not name.startswith(("timing_s/", "perf/"))} for row in rows]
        for rows in (read_metrics(folder_of(config)), read_metrics(tmp_path / "logged"))
    )
    assert one == two


def test_histograms_of_every_step(config: Config) -> None:
    loop_of(GRPO, config, RecordingBackend(nan=[0])).fit()
    rows = rows_of(folder_of(config) / "histograms.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert sum(sum(row["reward"]["counts"]) for row in rows) == 2 * 11 * 4  # twice every prompt that has a score
    assert (
        sum(rows[0]["response"]["counts"]) == 16 and rows[0]["response"]["low"] == 2 and rows[0]["advantage"]["low"] < 0
    )


def test_a_resumed_run_keeps_its_id_and_drops_what_it_computes_again(config: Config) -> None:
    config = override(config, LOGGED | {"trainer.save_freq": 2, "trainer.max_steps": 5})

    class Dies(RecordingBackend):
        def update(self, advantages):
            if len(self.updates()) == 4:
                raise RuntimeError("rank 1 died")
            return super().update(advantages)

    with pytest.raises(RuntimeError, match="rank 1 died"):
        loop_of(GRPO, override(config, {"trainer.log_rollouts_freq": 1}), Dies()).fit()
    folder = folder_of(config)
    first = RunInfo.read(folder)
    assert first.start == 0 and first.program == "GRPO" and (folder / "rollouts/step_5.jsonl").is_file()
    config = override(config, {"trainer.load_checkpoint_path": "latest"})
    loop_of(GRPO, config, RecordingBackend()).fit()
    again = RunInfo.read(folder)
    assert (again.id, again.started, again.start) == (first.id, first.started, 4)
    assert not (folder / "rollouts/step_5.jsonl").exists() and not (folder / "rollouts/step_5").exists()
    assert [row["step"] for row in rows_of(folder / "histograms.jsonl")] == [1, 2, 3, 4, 5]
    loop_of(
        GRPO,
        override(config, {"trainer.load_checkpoint_path": None, "trainer.save_checkpoint_path": f"{folder}2"}),
        RecordingBackend(),
    )
    assert RunInfo.read(f"{folder}2").id != first.id


def test_answers_of_fine_tuning_are_kept_with_pictures(config: Config) -> None:
    config = override(config, {"trainer.test_freq": 3, "sft.val_generations": 2, "trainer.log_rollouts_freq": 1})
    loop_of(SFT, config, RecordingBackend(), validated=4).fit()
    rows = rows_of(folder_of(config) / "rollouts/step_3.jsonl")
    assert (
        len(rows) == 2
        and {row["phase"] for row in rows} == {"validation"}
        and RunInfo.read(folder_of(config)).program == "SFT"
    )


def fit_with(config: Config, *loggers: str, **changes: Any) -> None:
    changed = LOGGED | {"trainer.logger": list(loggers)} | {f"trainer.{key}": value for key, value in changes.items()}
    loop = loop_of(GRPO, override(config, changed), RecordingBackend(), validated=3, data=ListData())
    with loop.run_log:
        loop.fit()


def test_tensorboard_has_metrics_histograms_and_pictures_and_goes_on_after_a_checkpoint(config: Config) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit_with(config, "tensorboard", save_freq=4)
    fit_with(config, "tensorboard", load_checkpoint_path=str(folder_of(config) / "global_step_4"))
    events = accumulator.EventAccumulator(str(folder_of(config) / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("reward/mean")] == [1, 2, 3, 4, 5, 6]
    values = [row["reward/mean"] for row in read_metrics(folder_of(config))]
    assert [event.value for event in events.Scalars("reward/mean")] == pytest.approx(values)
    tags = events.Tags()
    assert {"histogram/reward", "histogram/advantage", "histogram/response"} <= set(tags["histograms"])
    assert any(tag.startswith("rollouts/validation/video/") for tag in tags["images"])


def test_wandb_is_resumed_under_its_id(config: Config, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    fit_with(config, "wandb", save_freq=4)
    fit_with(config, "wandb", load_checkpoint_path=str(folder_of(config) / "global_step_4"))
    runs = sorted((folder_of(config) / "wandb").glob("offline-run-*"))
    assert len(runs) == 2 and {path.name.rpartition("-")[2] for path in runs} == {RunInfo.read(folder_of(config)).id}
    assert capsys.readouterr().out.count("wandb: ") == 2  # a line each


class Service(SimpleNamespace):
    """A stand-in for a service's package: records the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple, dict]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            return SimpleNamespace(info=SimpleNamespace(run_id="of-the-service"))

        return call

    def of(self, name: str) -> list[tuple[tuple, dict]]:
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]


def test_swanlab_gets_the_run_s_id_where_it_is_online(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    monkeypatch.setitem(sys.modules, "swanlab", service)
    monkeypatch.setenv("SWANLAB_MODE", "online")
    fit_with(config, "swanlab")
    ((_, options),) = service.of("init")
    assert options["id"] == RunInfo.read(folder_of(config)).id and options["resume"] == "allow"
    metrics = [args[0] for args, _ in service.of("log") if "reward/mean" in args[0]]
    assert len(metrics) == 6 and service.of("finish")
    assert any("histogram/reward_p50" in args[0] for args, _ in service.of("log"))
    monkeypatch.delenv("SWANLAB_MODE")
    monkeypatch.delenv("SWANLAB_API_KEY", raising=False)
    fit_with(config, "swanlab", save_checkpoint_path=f"{folder_of(config)}2")
    assert service.of("init")[1][1]["mode"] == "offline" and "id" not in service.of("init")[1][1]


def test_mlflow_is_resumed_under_the_id_that_it_gave(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    monkeypatch.setitem(sys.modules, "mlflow", service)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    fit_with(config, "mlflow", save_freq=4)
    parameters = {key: value for args, _ in service.of("log_params") for key, value in args[0].items()}
    assert parameters["worker.rollout.n"] == "4" and service.of("set_tracking_uri")[0][0][0].startswith("sqlite:///")
    fit_with(config, "mlflow", load_checkpoint_path=str(folder_of(config) / "global_step_4"))
    assert [options["run_id"] for _, options in service.of("start_run")] == [None, "of-the-service"]
    assert [options["step"] for args, options in service.of("log_metrics") if "reward/mean" in args[0]][-2:] == [5, 6]
    assert service.of("log_artifact") and service.of("end_run")


@pytest.mark.parametrize("name", ["swanlab", "mlflow", "tensorboard"])
def test_a_package_that_is_missing_is_named(name: str, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("swanlab", "mlflow", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    kind = load_by_name(name, LOGGERS, "logger")
    with pytest.raises(ConfigError, match=f"trainer.logger names {name}, which is not installed: pip install {name}"):
        kind(folder_of(config), config, 6)


def test_quartiles() -> None:
    from verl.trainer.loggers.base import quartiles

    assert quartiles({"reward": np.arange(5.0)}) == {
        "histogram/reward_p25": 1.0,
        "histogram/reward_p50": 2.0,
        "histogram/reward_p75": 3.0,
    }
