"""verl's side of the GRPO benchmark: its command, its data, what is read of its metrics, and the table."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import grpo_step, grpo_verl
from benchmarks.grpo_job import TINY, GRPOJob
from benchmarks.grpo_table import print_table, print_verl_comparison
from benchmarks.grpo_verl import VerlRun

# A line of verl's file logger, shortened: {"step": n, "data": metrics}.
STEP = {"timing_s/gen": 20.0, "timing_s/old_log_prob": 12.0, "timing_s/ref": 13.0, "timing_s/adv": 0.2}
STEP |= {"timing_s/update_actor": 40.0, "timing_s/update_weights": 2.5, "timing_s/step": 88.0}
STEP |= {"response_length/mean": 512.0, "timing_per_token_ms/gen": 0.3, "actor/entropy": 6.5, "training/global_step": 1}
TIMED = STEP | {"timing_s/step": 66.0, "timing_s/gen": 18.0}


@pytest.fixture
def site(tmp_path):
    """A site directory as pip leaves it."""
    folder = tmp_path / "site" / "verl-0.9.1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: verl\nVersion: 0.9.1\n")
    return folder.parent


def make_run(tmp_path, job=TINY, steps=1):
    return VerlRun(tmp_path / "verl run", tmp_path / "policy", job, steps, "sdpa")


def options_of(command):
    assert command[:3] == [sys.executable, "-m", "verl.trainer.main_ppo"]
    pairs = [argument.partition("=")[::2] for argument in command[3:]]
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)


def test_the_command_is_the_job(tmp_path):
    options = options_of(grpo_verl.command(make_run(tmp_path, GRPOJob())))
    assert options["algorithm.adv_estimator"] == "grpo" and options["trainer.total_training_steps"] == "2"
    assert options["data.train_batch_size"] == options["actor_rollout_ref.actor.ppo_mini_batch_size"] == "16"
    assert options["actor_rollout_ref.rollout.n"] == "8" and options["data.max_response_length"] == "512"
    assert options["actor_rollout_ref.rollout.ignore_eos"] == "True"
    assert options["actor_rollout_ref.actor.use_kl_loss"] == "True"
    assert float(options["actor_rollout_ref.actor.entropy_coeff"]) == 1e-3
    assert 128 % int(options["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"]) == 0
    assert int(options["data.max_prompt_length"]) + 512 == int(options["actor_rollout_ref.rollout.max_model_len"])
    tiny = options_of(grpo_verl.command(make_run(tmp_path)))
    assert tiny["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"] == "4"  # no more than there are


def test_further_overrides_replace_those_of_the_job(tmp_path):
    attention = "+actor_rollout_ref.model.override_config.attn_implementation"
    further = ["actor_rollout_ref.model.override_config.attn_implementation=eager", "trainer.save_freq=5"]
    options = options_of(grpo_verl.command(make_run(tmp_path), further))
    assert options[attention] == "eager" and attention[1:] not in options and options["trainer.save_freq"] == "5"


def test_data_and_reward(tmp_path):
    run = make_run(tmp_path)
    grpo_verl.write_inputs(run)
    rows = [json.loads(line) for line in (run.folder / "data.jsonl").read_text().splitlines()]
    assert len(rows) == TINY.prompts * 2 and [row["extra_info"]["index"] for row in rows] == [0, 1, 2, 3]
    for row in rows:
        assert "".join(turn["content"] for turn in row["prompt"]).count("<image>") == len(row["images"]) == 6
        assert {Image.open(file).size for file in row["images"]} == {(TINY.side, TINY.side)}
    texts = [row["prompt"][-1]["content"] for row in rows]
    assert texts[0] == texts[2] == f"{texts[1]} Look." and texts[1] == texts[3]  # lengths differ within a step
    names: dict = {}
    exec((run.folder / "reward.py").read_text(), names)
    assert names["compute_score"]("noise", "ten words..", "", {}) == 4.0


def test_its_packages_come_first_and_everything_is_on_this_host(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/a:/b")
    monkeypatch.delenv("VLLM_HOST_IP", raising=False)
    found = grpo_verl.environment(make_run(tmp_path), Path("/site"))
    assert found["PYTHONPATH"] == "/site:/a:/b" and found["VLLM_HOST_IP"] == "127.0.0.1"


def measure_with(monkeypatch, run, site, lines, ending, limit=60):
    """What is made of a process that writes these lines as verl's file logger does, then runs `ending`."""
    text = "".join(json.dumps({"step": 1 + number, "data": each}) + "\n" for number, each in enumerate(lines))
    code = f"import os, sys, time\nopen(os.environ['VERL_FILE_LOGGER_PATH'], 'w').write({text!r} + '{{')\n{ending}"
    monkeypatch.setattr(grpo_verl, "command", lambda *_: [sys.executable, "-c", code])
    return grpo_verl.measure(run, site, limit)


def test_the_first_step_warms_up(tmp_path, monkeypatch, site):
    metrics, about = measure_with(monkeypatch, make_run(tmp_path), site, [STEP, TIMED], "pass")
    assert metrics["timing_s/step"] == 66.0 and metrics["timing_s/gen"] == 18.0 and metrics["timing_s/ref"] == 13.0
    assert set(metrics) == {"timing_s/step", *(f"timing_s/{phase}" for phase in grpo_verl.PHASES)}
    assert about == "verl 0.9.1, attention sdpa; steps of 88.0 s, 66.0 s; responses of 512, 512 tokens"


def test_a_run_that_fails_says_why(tmp_path, monkeypatch, site):
    metrics, about = measure_with(monkeypatch, make_run(tmp_path), site, [STEP], "raise SystemExit('out of memory')")
    assert metrics == {} and "it failed after" in about and about.endswith("out of memory\n")


def test_a_run_that_does_not_end_is_ended(tmp_path, monkeypatch, site):
    monkeypatch.setattr(grpo_verl, "END_SECONDS", 1)
    ending = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    metrics, about = measure_with(monkeypatch, make_run(tmp_path, steps=2), site, [STEP, TIMED], ending, limit=3)
    assert metrics["timing_s/step"] == 66.0 and about.endswith("ended after 3 s")  # of the steps that did


def test_without_verl_nothing_starts(tmp_path, monkeypatch):
    for arguments in ([], ["--verl_site", str(tmp_path)]):
        monkeypatch.setattr(sys, "argv", ["grpo_step", "--parts", "ours,verl", *arguments])
        with pytest.raises(SystemExit, match=r"pip install --target SITE verl==0\.9\.1"):
            grpo_step.main()


def test_the_attention_is_the_fastest_installed(site, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    assert grpo_verl.fastest_attention(site) == "sdpa"
    (folder := site / "flash_attn_4-4.0.0.dist-info").mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-attn-4\nVersion: 4.0.0\n")
    assert grpo_verl.fastest_attention(site) == "flash_attention_4"


def test_phases_stand_beside_ours(capsys):
    ours = {"timing_s/step": 16.5, "timing_s/rollout/generate": 6.0, "timing_s/ref": 2.0, "timing_s/update": 8.0}
    theirs = {"timing_s/step": 66.0, "timing_s/gen": 18.0, "timing_s/old_log_prob": 12.0, "timing_s/update_actor": 32.0}
    print_verl_comparison(ours, theirs)
    printed = capsys.readouterr().out
    assert "| generation | 6.00 | 18.00 | 3.0 x |" in printed and "| old log-probabilities |  | 12.00 |  |" in printed
    assert "| whole step | 16.50 | 66.00 | 4.0 x |" in printed
    print_table({"no_reward": ours, "verl": theirs}, "CPU")
    assert "| verl, times as long, no reward | 4 | at least 3 | met |" in capsys.readouterr().out
    print_verl_comparison(ours, {})
    print_table({"no_reward": ours, "verl": {}}, "CPU")
    assert "verl" not in capsys.readouterr().out
