"""What the loops call, step by step, and that an interruption changes nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from recording_backend import ListData, RecordingBackend, count_words

from verl.config import Config, override
from verl.errors import TrainingError
from verl.metric_info import find_metric
from verl.metric_types import CountMetric
from verl.trainer.checkpoint_folders import saved_checkpoints
from verl.trainer.data_sampler import DataSampler, validation_requests
from verl.trainer.grpo import GRPO
from verl.trainer.prompt_data import PromptData
from verl.trainer.prompt_lengths import PromptLengths, PromptTooLong, ResponseTooLong
from verl.trainer.run_log import RunLog, read_metrics
from verl.trainer.run_plan import make_run_plan
from verl.trainer.sft import SFT
from verl.trainer.training_loop import TrainingLoop


def loop_of(
    kind: type[TrainingLoop],
    config: Config,
    backend: RecordingBackend,
    validated: int = 0,
    data: ListData | None = None,
) -> TrainingLoop:
    data = data or ListData()
    lengths = PromptLengths(data, count_words, config.data.max_prompt_length)
    order = DataSampler(range(len(data)), config.data.seed)
    plan = make_run_plan(config, len(data))
    log = RunLog(config, plan, kind.__name__)
    return kind(
        config, plan, backend, PromptData(order, lengths, validation_requests(range(validated), 0), lengths), log
    )


def test_every_step_runs_and_every_prompt_is_seen_once_an_episode(config: Config) -> None:
    backend = RecordingBackend()
    loop_of(GRPO, config, backend).fit()
    assert len(backend.updates()) == 6
    assert sorted(uid for update in backend.updates() for uid in update) == list(range(24))
    assert not backend.stored
    assert [row["step"] for row in read_metrics(config.trainer.save_checkpoint_path)] == [1, 2, 3, 4, 5, 6]
    assert list(saved_checkpoints(config.trainer.save_checkpoint_path)) == [6]


@pytest.mark.parametrize("kind", [GRPO, SFT])
def test_resumed_equals_uninterrupted(kind: type[TrainingLoop], config: Config, tmp_path: Path) -> None:
    config = override(config, {"trainer.save_freq": 2})
    whole = RecordingBackend()
    loop_of(kind, config, whole).fit()
    config = override(
        config,
        {
            "trainer.load_checkpoint_path": str(tmp_path / "run" / "global_step_2"),
            "trainer.save_checkpoint_path": str(tmp_path / "resumed"),
        },
    )
    resumed = RecordingBackend()
    loop_of(kind, config, resumed).fit()
    assert resumed.weight == whole.weight != 0
    done, expected = ([call for call in each.calls if call[0] != "prefetch_sft_batch"] for each in (resumed, whole))
    assert done == expected[-len(done) :]
    assert [row["step"] for row in read_metrics(tmp_path / "resumed")] == [3, 4, 5, 6]


def test_going_on_in_place_rewrites_the_lost_steps(config: Config) -> None:
    config = override(config, {"trainer.save_freq": 2})

    class Dies(RecordingBackend):
        def update(self, advantages):
            if len(self.updates()) == 3:
                raise RuntimeError("rank 1 died")
            return super().update(advantages)

    with pytest.raises(RuntimeError, match="rank 1 died"):
        loop_of(GRPO, config, Dies()).fit()
    folder = config.trainer.save_checkpoint_path
    assert list(saved_checkpoints(folder)) == [2] and [row["step"] for row in read_metrics(folder)] == [1, 2, 3]
    config = override(config, {"trainer.load_checkpoint_path": "latest"})
    loop_of(GRPO, config, RecordingBackend()).fit()
    assert [row["step"] for row in read_metrics(folder)] == [1, 2, 3, 4, 5, 6]


def test_one_update_needs_no_old_log_probabilities_and_several_do(config: Config) -> None:
    backend = RecordingBackend()
    loop_of(GRPO, config, backend).fit()
    names = [name for name, _ in backend.calls]
    assert "compute_ref_log_probs" in names and "compute_old_log_probs" not in names

    folder = f"{config.trainer.save_checkpoint_path}_several"
    changes = {
        "worker.actor.global_batch_size": 2,
        "worker.actor.ppo_epochs": 2,
        "trainer.save_checkpoint_path": folder,
    }
    config = override(config, changes)
    backend = RecordingBackend()
    loop = loop_of(GRPO, config, backend)
    assert loop.plan.updates_per_step == 4 and loop.plan.updates == 24
    loop.step()
    assert backend.updates() == [[0, 1], [2, 3], [0, 1], [2, 3]]
    for passes, phase in (("compute_ref_log_probs", "ref"), ("compute_old_log_probs", "old_log_prob")):
        assert (passes, [0, 1, 2, 3]) in backend.calls and phase in loop.timer.seconds
    batches = next(value for name, value in backend.calls if name == "rollout")
    # each minibatch is spread over the replicas
    assert all(len([uid for uid in batch if uid < 2]) == 1 for batch in batches)


def test_without_a_kl_term_there_is_no_pass_of_the_reference_model(config: Config) -> None:
    config = override(config, {"worker.actor.use_kl_loss": False})
    backend = RecordingBackend()
    loop_of(GRPO, config, backend).step()
    assert not {"compute_ref_log_probs", "compute_old_log_probs"} & {name for name, _ in backend.calls}


def test_log_probs_are_computed_while_the_last_groups_are_scored(config: Config) -> None:
    """Unless dynamic sampling may drop some groups: then only those that are trained on have their pass."""
    backend = RecordingBackend()
    loop_of(GRPO, config, backend).step()
    names = [name for name, _ in backend.calls]
    assert names.index("compute_ref_log_probs") < names.index("collect_scores")
    backend = RecordingBackend()
    loop_of(GRPO, override(config, {"algorithm.dynamic_sampling": True}), backend).step()
    names = [name for name, _ in backend.calls]
    assert names.index("compute_ref_log_probs") > names.index("collect_scores")


def test_the_next_prompts_are_prefetched_before_an_update_and_not_beyond_the_end(config: Config) -> None:
    backend = RecordingBackend()
    loop_of(GRPO, override(config, {"trainer.max_steps": 3}), backend).fit()
    rollouts = [batches for name, batches in backend.calls if name == "rollout"]
    prefetched = [batches for name, batches in backend.calls if name == "prefetch_rollout_batch"]
    assert len(rollouts) == 3 and prefetched == rollouts[1:]
    names = [name for name, _ in backend.calls if name in ("rollout", "prefetch_rollout_batch", "update")]
    assert names == ["rollout", "prefetch_rollout_batch", "update"] * 2 + ["rollout", "update"]


def test_a_group_without_a_score_is_left_out_and_counted(config: Config) -> None:
    backend = RecordingBackend(nan=[0, 1, 2])
    loop = loop_of(GRPO, config, backend)
    metrics = [loop.step() for _ in range(3)]
    assert sum(len(update) for update in backend.updates()) == 9 and not backend.stored
    assert sum(row["reward/frac_nan"] for row in metrics) == pytest.approx(3 / 4)
    assert all(math.isfinite(value) for row in metrics for value in row.values())


def test_a_step_with_too_few_scores_ends_the_run(config: Config) -> None:
    config = override(config, {"algorithm.max_frac_nan": 0.25})
    backend = RecordingBackend(nan=range(12))
    message = r"4 of 4 groups have no score.*video/\d.*algorithm\.max_frac_nan=0.25"
    with pytest.raises(TrainingError, match=message):
        loop_of(GRPO, config, backend).step()
    assert backend.updates() == []


def test_what_is_left_of_a_batch_is_divided_evenly_among_its_updates(config: Config) -> None:
    config = override(config, {"data.rollout_batch_size": 12, "worker.actor.global_batch_size": 6})
    backend = RecordingBackend(nan=[0, 1, 2, 3, 4])
    loop_of(GRPO, config, backend).step()
    assert [len(update) for update in backend.updates()] == [4, 3]  # not 6 and 1


def test_a_step_without_any_score_updates_nothing(config: Config) -> None:
    backend = RecordingBackend(nan=range(12))
    metrics = loop_of(GRPO, config, backend).step()
    assert backend.updates() == [] and metrics["reward/frac_nan"] == 1 and "reward/mean" not in metrics


def test_dynamic_sampling_replaces_groups_without_a_signal(config: Config) -> None:
    config = override(config, {"algorithm.dynamic_sampling": True})
    backend = RecordingBackend(equal=range(6))
    loop = loop_of(GRPO, config, backend)
    metrics = loop.step()
    (trained,) = backend.updates()
    assert len(trained) == 4 and all(loop.prompts.sampler.request(uid).index >= 6 for uid in trained)
    assert metrics["reward/frac_zero_std"] > 0 and not backend.stored

    folder = f"{config.trainer.save_checkpoint_path}_none"
    config = override(config, {"algorithm.max_sampling_rounds": 2, "trainer.save_checkpoint_path": folder})
    backend = RecordingBackend(equal=range(12))
    loop_of(GRPO, config, backend).step()
    assert backend.updates() == [] and sum(name == "rollout" for name, _ in backend.calls) == 2


def test_validation_is_scored_at_its_steps_and_after_the_last(config: Config) -> None:
    changes = {"test_freq": 4, "val_before_train": True, "val_generations_to_log_to_wandb": 2}
    config = override(config, {f"trainer.{key}": value for key, value in changes.items()})
    loop_of(GRPO, config, RecordingBackend(), validated=5).fit()
    rows = read_metrics(config.trainer.save_checkpoint_path)
    assert [row["step"] for row in rows if "val/reward/mean" in row] == [0, 4, 6]
    logged = [
        json.loads(line)
        for line in Path(config.trainer.save_checkpoint_path, "val_generations.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in logged] == [0, 0, 4, 4, 6, 6] and logged[0]["response"] == "text"


def test_metrics_of_a_step(config: Config) -> None:
    config = override(config, {"trainer.max_steps": 1})
    loop_of(GRPO, config, RecordingBackend()).fit()
    (row,) = read_metrics(config.trainer.save_checkpoint_path)
    phases = {name for name in row if name.startswith("timing_s/")}
    assert phases == {
        f"timing_s/{phase}" for phase in ("rollout", "score_wait", "ref", "advantage", "update", "save", "step")
    }
    for name in (
        "reward/mean",
        "rewards/format/mean",
        "rewards/format/std",
        "rewards/format/frac_zero",
        "parse_failure/any",
        "parse_failure/no answer",
    ):
        assert name in row
    for name in (
        "response/mean",
        "response/truncated",
        "prompt/max",
        "actor/loss",
        "memory/peak_update_gib",
        "perf/tokens_per_second",
    ):
        assert name in row
    assert {name for name in row if find_metric(name) is None} == {"step", "rollout/seen"}  # the latter of the test
    assert row["response/mean"] == 3.5 and row["rewards/format/frac_zero"] == row["parse_failure/any"]


def test_fine_tuning_validates_on_what_it_does_not_train_on(config: Config) -> None:
    config = override(config, {"trainer.test_freq": 3, "sft.val_generations": 2})
    backend = RecordingBackend()
    loop_of(SFT, config, backend, validated=4).fit()
    rows = read_metrics(config.trainer.save_checkpoint_path)
    assert (
        [row["step"] for row in rows if "val/loss" in row]
        == [3, 6]
        == [row["step"] for row in rows if "val/reward/mean" in row]
    )
    assert sum(name == "fine_tune" for name, _ in backend.calls) == 6 and not backend.stored


def test_fine_tuning_prefetches_one_step_and_not_beyond_the_end(config: Config) -> None:
    config = override(config, {"trainer.max_steps": 3})
    backend = RecordingBackend()
    loop_of(SFT, config, backend).fit()

    def asked(kind: str) -> list[list[int]]:
        return [sorted(uid for batch in batches for uid in batch) for name, batches in backend.calls if name == kind]

    loaded, trained = asked("prefetch_sft_batch"), asked("fine_tune")
    assert trained == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert loaded == trained
    order = [name for name, _ in backend.calls if name in ("prefetch_sft_batch", "fine_tune")]
    assert order == [
        "prefetch_sft_batch",
        "prefetch_sft_batch",
        "fine_tune",
        "prefetch_sft_batch",
        "fine_tune",
        "fine_tune",
    ]


def test_fine_tuning_goes_on_with_smaller_steps(config: Config, tmp_path: Path) -> None:
    config = override(config, {"trainer.save_freq": 2, "trainer.max_steps": 5})
    loop_of(SFT, config, RecordingBackend()).fit()
    config = override(
        config,
        {
            "trainer.load_checkpoint_path": str(tmp_path / "run" / "global_step_4"),
            "trainer.save_checkpoint_path": str(tmp_path / "more"),
            "data.rollout_batch_size": 1,
            "worker.actor.global_batch_size": 1,
            "trainer.max_steps": 9,
        },
    )
    backend = RecordingBackend()
    loop_of(SFT, config, backend).fit()
    assert [name for name, _ in backend.calls].count("fine_tune") == 5
    assert [row["step"] for row in read_metrics(tmp_path / "more")] == [5, 6, 7, 8, 9]


def test_skipped_samples_are_counted_and_named(config: Config) -> None:
    config = override(config, {"data.on_bad_sample": "skip"})
    loop = loop_of(SFT, config, RecordingBackend())
    loop.fit()
    assert {row["data/skipped_samples"] for row in read_metrics(config.trainer.save_checkpoint_path)} == {1.0}
    assert loop.run_log.skipped_samples == {"video/3": "no frame 7"}
    assert (loop.run_log.folder / "skipped.txt").read_text() == "video/3  # no frame 7\n"


def test_too_long_a_prompt_is_refused_by_name(config: Config) -> None:
    lengths = PromptLengths(ListData(60), count_words, config.data.max_prompt_length)
    with pytest.raises(PromptTooLong, match=r"video/\d+: the prompt has \d+ tokens, data.max_prompt_length is 64"):
        lengths.longest(DataSampler(range(60), 0).preview(60))
    assert lengths.longest(DataSampler(range(12), 0).preview(12)) == 26 + 11


def test_a_checkpoint_of_other_data_is_refused(config: Config, tmp_path: Path) -> None:
    loop_of(GRPO, config, RecordingBackend()).fit()
    config = override(config, {"trainer.load_checkpoint_path": str(tmp_path / "run")})
    with pytest.raises(ValueError, match=r"samples 12 -> 16"):
        loop_of(GRPO, config, RecordingBackend(), data=ListData(16)).fit()


def test_a_response_that_is_too_long_is_found_before_the_run() -> None:
    data: Any = SimpleNamespace(response=["a b", None, "a b c d"].__getitem__, sample_id="sample/{}".format)
    lengths = PromptLengths(data, count_words, 10)
    lengths.check_responses(range(3), lambda text: len(text.split()), 4)
    with pytest.raises(ResponseTooLong, match=r"sample/2: its response has 4 tokens, data\.max_response_length is 3"):
        lengths.check_responses(range(3), lambda text: len(text.split()), 3)


def test_a_crash_between_save_and_metrics_loses_no_row(config: Config) -> None:
    config = override(config, {"trainer.save_freq": 2})
    folder = Path(config.trainer.save_checkpoint_path)
    loop = loop_of(GRPO, config, RecordingBackend())
    write = loop.run_log.metrics

    def crash(step: int, metrics: Any) -> None:
        if step == 4:
            raise KeyboardInterrupt
        write(step, metrics)

    loop.run_log.metrics = crash  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        loop.fit()
    assert [row["step"] for row in read_metrics(folder)] == [1, 2, 3]
    loop_of(GRPO, override(config, {"trainer.resume_mode": "auto"}), RecordingBackend()).fit()
    rows = read_metrics(folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[3].keys() >= rows[2].keys() - {"timing_s/save"}


class BadUpdates(RecordingBackend):
    """Skips these of its updates, counted from 0."""

    def __init__(self, *bad: int) -> None:
        super().__init__()
        self.bad = bad

    def update(self, advantages: Any) -> Any:
        number = len(self.updates())
        metrics = super().update(advantages)
        return metrics | {"actor/skipped_updates": CountMetric(number in self.bad), "actor/grad_norm": math.inf}


def test_updates_that_are_not_finite_are_counted_named_and_end_the_run(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    config = override(config, {"trainer.max_nonfinite_updates": 2, "trainer.save_freq": 1})
    loop_of(GRPO, config, BadUpdates(1, 3)).fit()  # never two in a row
    folder = config.trainer.save_checkpoint_path
    assert [row["actor/skipped_updates"] for row in read_metrics(folder)] == [0, 1, 0, 1, 0, 0]
    assert "an update of step 2 was skipped" in caplog.text and "1 in a row): video/7" in caplog.text
    config = override(config, {"trainer.save_checkpoint_path": f"{folder}_ruined"})
    with pytest.raises(TrainingError, match=r"step 4 .*2 in a row\): video/7; trainer\.max_nonfinite_updates=2"):
        loop_of(GRPO, config, BadUpdates(2, 3)).fit()
    assert list(saved_checkpoints(f"{folder}_ruined")) == [1, 2, 3]


def test_a_collapse_is_warned_of_once_with_numbers(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    config = override(config, {"algorithm.collapse_patience": 2, "trainer.save_freq": 3})
    loop_of(GRPO, config, RecordingBackend(equal=range(12))).fit()
    folder = Path(config.trainer.save_checkpoint_path)
    rows = read_metrics(folder)
    assert [row["collapse/equal_reward_streak"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {row["collapse/parse_failure_streak"] for row in rows} == {0}
    warned = [record.getMessage() for record in caplog.records if "in each of the last" in record.getMessage()]
    assert warned == [
        "in each of the last 2 steps all answers to a prompt have the same score, for every prompt, so nothing is "
        "learnt (reward/frac_zero_std=1; reward 1.000, 4 tokens, 0% cut at the length limit)"
    ]
    changes = {"load_checkpoint_path": str(folder / "global_step_3"), "save_checkpoint_path": f"{folder}_resumed"}
    config = override(config, {f"trainer.{key}": value for key, value in changes.items()})
    loop_of(GRPO, config, RecordingBackend(equal=range(12))).fit()
    assert [row["collapse/equal_reward_streak"] for row in read_metrics(f"{folder}_resumed")] == [4, 5, 6]
