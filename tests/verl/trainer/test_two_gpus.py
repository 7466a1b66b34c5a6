"""Real runs of the toy world on two GPUs: a kill in each phase, another number of workers, no memory, Qwen3-VL, and the
log-probabilities of a LoRA policy in bf16.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from real_run import GRPO, SFT, RealRun

from veason.toy.tiny_policy import write_policy
from verl.trainer.checkpoint_folders import find_damaged_file, saved_checkpoints

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]
WHOLE = 900.0  # seconds of a run
PHASES = ("rollout", "collect_scores", "compute_ref_log_probs", "update", "save")
# of GRPO and of fine-tuning
COMPARED = ("actor/loss", "actor/entropy", "actor/grad_norm", "reward/mean", "response/mean", "loss", "response_tokens")
FAULTY = "worker.reward.compute_score=phase_faults:RULE"
GAP = "rollout/log_prob_gap"


def run(program: str, toy: Path, folder: Path, *options: str, status: int = 0) -> RealRun:
    """A run that has ended."""
    with RealRun(program, toy, folder, *options) as started:
        assert started.process.wait(WHOLE) == status, started.text[-4000:]
    return started


def largest_difference(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> float:
    """Of the compared metrics of two runs, relative."""
    assert [row["step"] for row in one] == [row["step"] for row in other]
    pairs = [(a[name], b[name]) for a, b in zip(one, other) for name in COMPARED if name in a]
    assert len(pairs) >= 3 * len(one)
    return max(abs(a - b) / max(abs(a), abs(b), 1e-3) for a, b in pairs)


def test_a_worker_killed_in_each_phase_and_the_run_is_as_another(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As near to an undisturbed run as two of these are to each other."""
    length, marks = "trainer.max_steps=14", tmp_path / "marks"
    marks.mkdir()
    faults = [f"{phase}:{2 if phase == 'save' else 3}" for phase in PHASES]
    monkeypatch.setenv("PHASE_FAULTS", ",".join([str(marks), *faults]))  # read by `phase_faults` alone
    with ThreadPoolExecutor() as threads:
        whole = [threads.submit(run, GRPO, toy, tmp_path / name, length) for name in ("first", "second")]
        disturbed = run(GRPO, toy, tmp_path / "disturbed", length, FAULTY, f"trainer.max_restarts={len(PHASES)}")
    first, second = (each.result().steps() for each in whole)
    assert {path.name for path in marks.iterdir()} == set(PHASES)
    assert f"restart {len(PHASES)} of" in disturbed.text and disturbed.left() == []
    noise, difference = largest_difference(first, second), largest_difference(first, disturbed.steps())
    with capsys.disabled():
        print(f"\nkilled in {', '.join(PHASES)}: differs by {difference:.1e}, two undisturbed runs by {noise:.1e}")
    assert difference <= max(2 * noise, 1e-6)


def test_two_workers_one_and_two_again(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # of no particular length
    schedule = ("worker.actor.optim.lr_scheduler_type=constant", "worker.actor.optim.lr_warmup_steps_ratio=0")
    with ThreadPoolExecutor() as threads:
        whole = threads.submit(run, SFT, toy, tmp_path / "whole", "trainer.max_steps=12", *schedule)
        for workers, until in ((2, 4), (1, 8), (2, 12)):
            options = (f"trainer.n_gpus_per_node={workers}", f"trainer.max_steps={until}", "trainer.resume_mode=auto")
            elastic = run(SFT, toy, tmp_path / "elastic", *options, *schedule)
    difference = largest_difference(whole.result().steps(), elastic.steps())
    with capsys.disabled():
        print(f"\n2, 1 and 2 workers: metrics of twelve steps differ by {difference:.1e}")
    assert difference < 1e-4


def test_no_memory_in_an_update_names_what_to_change_and_spares_the_checkpoints(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHASE_FAULTS", f"{tmp_path},memory:3")
    ended = run(GRPO, toy, tmp_path / "run", "trainer.max_steps=6", FAULTY, status=1)
    assert "out of memory in the phase update: lower worker.actor.max_tokens_per_micro_batch" in ended.text
    assert "memory on each GPU, GiB" in ended.text.rpartition("step 2/")[2] and ended.left() == []
    assert set(saved_checkpoints(ended.folder)) == {2} and find_damaged_file(saved_checkpoints(ended.folder)[2]) is None
    monkeypatch.delenv("PHASE_FAULTS")
    go_on = run(GRPO, toy, tmp_path / "run", "trainer.max_steps=4", "trainer.resume_mode=auto")
    assert [row["step"] for row in go_on.steps()] == [1, 2, 3, 4]


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("parallel", [1, 2])
def test_an_engine_of_two_gpus_agrees_with_an_actor_sharded_over_them(
    model_type: str, parallel: int, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_policy(tmp_path / "policy", model_type=model_type)
    side = {"qwen2_5_vl": 112, "qwen3_vl": 128}[model_type]
    options = [f"worker.actor.model.model_path={tmp_path / 'policy'}", f"data.keyframe_resize={side}"]
    options += [f"worker.rollout.tensor_parallel_size={parallel}", "worker.rollout.enable_sleep_mode=true"]
    options += ["worker.actor.offload.param_offload=true", "worker.actor.offload.optimizer_offload=true"]
    rows = run(GRPO, toy, tmp_path / "run", "trainer.max_steps=5", "worker.actor.optim.lr=1e-3", *options).steps()
    gaps = [row[GAP] for row in rows]
    with capsys.disabled():
        print(
            f"\n{model_type}, tensor parallel {parallel}, FSDP over 2: gaps {', '.join(f'{gap:.1e}' for gap in gaps)}"
        )
    assert len(gaps) == 5 and max(gaps) < 5e-3  # fp32 matrices may be rounded to TF32 on one side


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl"])
def test_lora_in_bf16_agrees_as_well_as_full_fine_tuning(
    model_type: str, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_policy(tmp_path / "policy", model_type=model_type)
    side = {"qwen2_5_vl": 112, "qwen3_vl": 128}[model_type]
    options = [f"worker.actor.model.model_path={tmp_path / 'policy'}", f"data.keyframe_resize={side}"]
    options += ["worker.rollout.dtype=bf16", "worker.actor.fsdp.mp_param_dtype=bf16", "trainer.n_gpus_per_node=1"]
    options += ["worker.ref.fsdp.mp_param_dtype=bf16", "worker.actor.optim.lr=1e-5", "trainer.max_steps=10"]
    options += ["data.max_response_length=48"]
    lora = ("worker.actor.model.lora_rank=64", "worker.actor.model.lora_alpha=128")
    with ThreadPoolExecutor() as threads:
        full = threads.submit(run, GRPO, toy, tmp_path / "full", *options)
        runs = {"lora": run(GRPO, toy, tmp_path / "lora", *options, *lora), "full": full.result()}
    gaps = {name: [row[GAP] for row in each.steps()] for name, each in runs.items()}
    with capsys.disabled():
        shown = "; ".join(f"{name} {', '.join(f'{gap:.2e}' for gap in each)}" for name, each in gaps.items())
        print(f"\n{model_type} in bf16, gaps of ten steps: {shown}")
    assert sum(gaps["lora"]) <= 1.2 * sum(gaps["full"])
