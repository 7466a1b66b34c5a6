"""The GRPO benchmark's own arithmetic: physical limits by hand, targets, what is scaled, and the data of the job."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForImageTextToText

from benchmarks import grpo_timing, grpo_trl
from benchmarks.grpo_job import TINY, BenchData, GRPOJob, make_config, make_job, write_policy
from benchmarks.grpo_lengths import SPREAD, draw_length, measure_lengths
from benchmarks.grpo_table import (
    HardwareLimits,
    ScalingRun,
    phase_table,
    print_scaling,
    print_table,
    table_row,
)
from benchmarks.packing import model_config
from benchmarks.qwen3_sizes import qwen3_model_config
from verl.config import Config
from verl.models.families import load_family
from verl.models.policy_model import PolicyModel

ROOT = Path(__file__).parents[2]
OURS = {
    "timing_s/step": 12.0,
    "timing_s/rollout": 9.0,
    "timing_s/rollout/generate": 8.32,
    "memory/peak_update_gib": 70.0,
}
OURS |= {
    "ray/transfer_mb_per_prompt": 0.02,
    "rollout/log_prob_gap": 1e-3,
    "timing_s/ref": 3.0,
    "timing_s/update": 12.0,
}


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job") / "policy"
    write_policy(folder, "tiny")
    return folder


def test_limits_by_hand(policy):
    config = make_config(GRPOJob(), policy.parent, policy, gpus=2)
    flops, images = load_family(model_config("tiny")).flops(), [(112, 112)]
    limits = HardwareLimits.of(flops, "NVIDIA H100 80GB HBM3", config, 100, images)
    weights = (
        2 * (2 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 320)) / 2 + 2 * 256 * 151936
    )  # bytes in half precision
    weights += 2 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 320)
    # keys and values of 2 layers with one head of 128; a prompt's are read once for its eight responses
    cache = 16 * (100 + 8 * 256) * (2 * 2 * 128 * 2)
    assert limits.decode == pytest.approx(512 * (weights + cache) / (2 * 3.35e12))
    assert limits.forward == pytest.approx(16 * flops.group_flops(100, [512] * 8, images) / (2 * 989e12))
    assert 0 < limits.prompts < limits.forward
    assert HardwareLimits.of(flops, "CPU", config, 100, images) == HardwareLimits(0.0, 0.0, 0.0)


def test_targets(capsys):
    assert table_row("seconds", 35.0, 35, "at most").endswith("| met |")
    assert table_row("seconds", 35.1, 35, "at most").endswith("| NOT MET |")
    found = {
        "ours": OURS,
        "published": {"timing_s/step": 84.0},
        "small": {"timing_s/step": 8.0},
        "trl": {"timing_s/over": 100.0},
    }
    print_table(found, "CPU")
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    assert [cells[1] for cells in rows] == ["12", "70", "0.02", "7", "12.5"]
    assert all(cells[-1] == "met |" for cells in rows) and "did not end" in rows[-1][0]


def test_phases_without_limits_and_with(capsys):
    phase_table("ours", OURS, HardwareLimits(prompts=1.0, decode=2.0, forward=1.2))
    assert "| ref | 3.00 | 40% |" in (printed := capsys.readouterr().out)
    assert "| update | 12.00 | 30% |" in printed and "| rollout/generate | 8.32 | 36% |" in printed
    phase_table("the published schedule", OURS | {"share": 0.25})
    assert "25% of the prompts" in (printed := capsys.readouterr().out) and "| ref | 3.00 |  |" in printed


def test_throughput_of_two_gpus_leaves_the_first_step_out(capsys):
    def steps(*seconds):
        return [
            {"timing_s/step": each, "actor/loss": -0.0119, "actor/entropy": 11.9, "actor/grad_norm": 2.0}
            for each in seconds
        ]

    one = ScalingRun(1, 16, steps(90, 30, 30))
    print_scaling([one, ScalingRun(2, 16, steps(99, 15, 15))], "CPU")
    printed = capsys.readouterr().out
    assert (
        "| throughput of 2 GPUs with 16 prompts, times that of 1 | 2 | at least 1.7 | met |" in printed
        and "NOT MET" not in printed
    )
    worse = steps(99, 15, 15)
    worse[2]["actor/loss"] = -0.0121
    print_scaling([one, ScalingRun(2, 16, worse)], "CPU")
    assert "| 2 GPUs, actor/loss, relative difference | 0.0168 | at most 0.001 | NOT MET |" in capsys.readouterr().out


def test_weak_scaling_counts_prompts_and_a_second_run_only_its_losses(capsys):
    steps = [
        {"timing_s/step": each, "actor/loss": -0.0119, "actor/entropy": 11.9, "actor/grad_norm": 2.0}
        for each in (90.0, 30.0)
    ]
    slower = [each | {"timing_s/step": 40.0, "actor/loss": 1.0} for each in steps]
    print_scaling([ScalingRun(1, 16, steps), ScalingRun(4, 64, slower)], "CPU")
    printed = capsys.readouterr().out
    assert (
        "| throughput of 4 GPUs with 64 prompts, times that of 1 | 3 | at least 3.4 | NOT MET |" in printed
        and "loss" not in printed
    )
    print_scaling([ScalingRun(4, 16, steps), ScalingRun(4, 16, slower)], "CPU")
    printed = capsys.readouterr().out
    assert (
        "throughput" not in printed
        and "| 4 GPUs, actor/loss, relative difference | 85 | at most 0.001 | NOT MET |" in printed
    )


def test_the_7b_recipe_has_its_dimensions(policy):
    text = model_config("7b").text_config
    weights = 2 * text.vocab_size * text.hidden_size  # embedding and head stand alone
    attention = text.hidden_size * (2 * text.hidden_size + 2 * 4 * 128)
    weights += text.num_hidden_layers * (attention + 3 * text.hidden_size * text.intermediate_size)
    assert weights == pytest.approx(7.6e9, rel=0.01)
    config = make_config(GRPOJob(size="7b"), policy.parent, policy, gpus=4)
    assert config.worker.rollout.tensor_parallel_size == 4 and config.trainer.experiment_name == "grpo_7b"


def test_only_what_is_proportional_to_the_prompts_is_scaled(monkeypatch):
    measured = {
        "timing_s/rollout": 5.0,
        "timing_s/score_wait": 12.0,
        "timing_s/ref": 9.0,
        "timing_s/update": 28.0,
        "timing_s/step": 54.0,
    }
    monkeypatch.setattr(grpo_timing, "step", lambda *_: measured)
    loop = SimpleNamespace(config=Config())
    scaled = grpo_timing.measure_published(loop, GRPOJob(), 4, OURS)
    assert scaled["timing_s/step"] == 9.0 + 4 * (12.0 + 9.0 + 28.0) and scaled["share"] == 0.25
    assert grpo_timing.measure_published(loop, GRPOJob(), 16, OURS) == measured
    assert loop.config.data.rollout_batch_size == 16


def test_the_policy_is_whole_and_random(policy):
    model, report = AutoModelForImageTextToText.from_pretrained(policy, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    layers = model.model.language_model.layers
    assert not torch.equal(layers[0].mlp.up_proj.weight, layers[1].mlp.up_proj.weight)
    assert layers[0].mlp.up_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert bool((layers[0].input_layernorm.weight == 1).all())


def test_examples_are_a_function_of_their_index():
    data = BenchData(side=56)
    one, again, other = data.example(3, 7), data.example(3, 7), data.example(4, 7)
    assert one.images == again.images != other.images
    assert [image.size for image in one.images] == data.messages_and_sizes(3, 7)[1]
    many = BenchData(side=28, frames=64).example(0, 0)
    assert len(many.images) == len(many.ground_truth.timestamps) == len(many.ground_truth.masks) == 64


def run_as_trl(monkeypatch, policy, times, ending, limit=60):
    """What is made of a TRL process that has written these events and then runs `ending`; on a clock at 100 s."""
    events = [
        {"event": "ready" if number == 0 else "step", "time": at, "what": "TRL"} for number, at in enumerate(times)
    ]
    text = "".join(json.dumps(each) + "\n" for each in events)

    def command(arguments):
        Path(arguments[arguments.index("--events") + 1]).write_text(text)
        return [sys.executable, "-c", f"import time; {ending}"]

    monkeypatch.setattr(grpo_trl.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(grpo_trl, "time", SimpleNamespace(time=lambda: 100.0))
    monkeypatch.setattr(grpo_trl, "command", command)
    return grpo_trl.measure(policy, grpo_trl.TRLSizes(4, 8, 256, 1, 560), limit, vllm=True)


def test_what_trl_did_is_read_from_its_events(monkeypatch, policy):
    metrics, about = run_as_trl(monkeypatch, policy, [10.0, 50.0, 72.5], "pass")
    assert metrics == {"timing_s/step": 22.5} and "steps of 40.0 s, 22.5 s" in about
    metrics, about = run_as_trl(monkeypatch, policy, [10.0, 50.0], "raise SystemExit('no memory')")
    assert metrics == {} and "it failed" in about and "no memory" in about


def test_trl_that_does_not_end_is_ended(monkeypatch, policy):
    metrics, about = run_as_trl(monkeypatch, policy, [91.0, 100.0], "time.sleep(600)", limit=1)
    assert metrics == {"timing_s/over": 1.0} and "ended after 1 s" in about
    metrics, about = run_as_trl(monkeypatch, policy, [], "time.sleep(600)", limit=1)
    assert metrics == {} and about.startswith("it did not start; ended after 1 s")  # its start is no step
    monkeypatch.setattr(grpo_trl.importlib.util, "find_spec", lambda _: None)
    assert grpo_trl.measure(policy, grpo_trl.TRLSizes(4, 8, 256, 1, 560), 1, vllm=True) == (
        {},
        "not installed: pip install trl==1.16.0",
    )


def test_the_tiny_job_is_smaller_in_every_way():
    assert (
        TINY.size == "tiny"
        and TINY.prompts < GRPOJob().prompts
        and TINY.tokens < GRPOJob().tokens
        and TINY.side < GRPOJob().side
    )


def test_the_tiny_job_runs_and_every_part_has_its_row():
    parts = ["--parts", "ours,lengths,published", "--length_steps", "2"]
    arguments = ["--size", "tiny", "--steps", "1", *parts]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.grpo_step", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    table = done.stdout.rpartition("| what | measured |")[2]
    for row_name in (
        "one step of ours",
        "peak memory",
        "through the object store",
        "the published schedule",
    ):
        assert f"| {row_name}" in table
    # 2 x 2 responses of a step of its own end where their seeds say
    lengths = [float(text) for text in re.findall(r"^    (\d+) tokens a response", done.stdout, re.MULTILINE)]
    assert len(lengths) == 2 and all(1 <= each <= 2 * TINY.tokens for each in lengths) and set(lengths) != {TINY.tokens}
    assert "free lengths, seconds per response token" in done.stdout


def test_free_lengths_are_log_normal_cut_and_a_function_of_the_seed():
    lengths = [draw_length(seed, 400, 1024) for seed in range(20_000)]
    assert lengths == [draw_length(seed, 400, 1024) for seed in range(20_000)]
    assert fmean(lengths) == pytest.approx(400, rel=0.03) and max(lengths) == 1024 and min(lengths) > 20
    logs = [math.log(each) for each in lengths if each < 1024]
    assert stdev(logs) == pytest.approx(SPREAD, rel=0.1)


def test_free_lengths_are_compared_per_token(capsys):
    steps = iter([99.0, 10.0, 14.0])

    def step(name):
        return {
            "timing_s/step": next(steps),
            "timing_s/rollout": 5.0,
            "response/mean": 400.0,
            "memory/peak_update_gib": 70.0 if name.endswith("2") else 60.0,
        }

    fixed = {"timing_s/step": 12.8, "response/mean": 512.0}
    assert len(measure_lengths(step, 3, 128, fixed, "CPU")) == 3
    printed = capsys.readouterr().out  # 12 s for 400 tokens, 12.8 for 512: 1.2 times as long
    assert "over those of one length | 1.2 | at most 1.25 | met |" in printed
    assert "mean of 2 steps, s | 12.00" in printed and "a second of the rollout | 10240" in printed
    assert "peak of 3 steps, GiB | 70.0" in printed


@pytest.mark.parametrize(("size", "billions"), [("qwen3_2b", 2.13), ("qwen3_4b", 4.44), ("qwen3_8b", 8.77)])
def test_the_sizes_of_qwen3_vl_run_by_their_recipes(size, billions, tmp_path):
    """Parameters as on the models' cards; frames that the tower takes as they are."""
    policy = PolicyModel.from_config(qwen3_model_config(size), torch.bfloat16, "meta")
    policy.model.tie_weights()
    assert sum(weight.numel() for weight in policy.parameters()) / 1e9 == pytest.approx(billions, abs=0.01)
    config = make_config(make_job(size), tmp_path, tmp_path, gpus=1)
    assert config.trainer.experiment_name == f"grpo_qwen3_vl_{size[-2:]}"
    assert config.data.keyframe_resize == 640 and config.data.keyframe_resize % policy.family.pixel_multiple == 0
