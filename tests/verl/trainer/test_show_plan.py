"""`--plan` says what a run would do, and starts nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.verl.shipped_configs import CONFIGS, ROOT, VARIABLES
from veason.toy.world import make_world
from verl.trainer import show_plan
from verl.trainer.main import run
from verl.workers.memory import GIB


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan") / "world"
    make_world(str(folder), train_videos=6, valid_videos=3, reasonvos_videos=1)
    return folder


def toy(world: Path, *more: str) -> list[str]:
    return [f"data.train_files={world / 'ReVOS'}", "config=configs/toy/grpo.yaml", "trainer.device=cpu", *more]


def test_a_run_that_can_start(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MODEL_PATH", "weights/toy_policy")
    folder = f"trainer.save_checkpoint_path={tmp_path / 'run'}"
    assert run([*toy(world, "trainer.save_freq=10", folder), "--plan"], "verl.trainer.main") == 0
    text = capsys.readouterr().out
    assert "steps: 36; 1 optimizer steps in each, 36 in all" in text
    assert f"training on {world / 'ReVOS'}" in text
    assert "checkpoints: 4; validations: 0" in text
    assert "a step of 16 x 8: " in text and "model: 7 million parameters, 7 trained" in text
    assert "memory on each worker, GiB:" in text and "disk: a checkpoint takes 0.1 GB" in text
    assert "not readable on this machine" not in text and not (tmp_path / "run").exists()


def test_every_value_has_its_source(world, capsys):
    assert run([*toy(world), "--plan"], "verl.trainer.main") in (0, 3)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    sources = {words[0].partition("=")[0]: " ".join(words[1:]) for words in lines if words and "=" in words[0]}
    assert sources["data.train_files"] == "command line"
    assert sources["data.keyframe_resize"] == "configs/toy/grpo.yaml"
    assert sources["data.seed"] == "configs/video_seg_zero_3b_keyframe_sam_sft_mod.yaml"  # its base
    assert sources["worker.actor.model.model_path"] == "configs/toy/grpo.yaml, $MODEL_PATH"
    assert sources["worker.rollout.top_p"] == "default"
    assert sources["worker.rollout.prompt_length"] == "derived"
    assert len(sources) > 100


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_has_a_plan_on_a_machine_without_its_files(path, monkeypatch, capsys):
    monkeypatch.setattr("verl.workers.ray_backend.RayBackend.__init__", None)
    monkeypatch.setenv("TOY_WORLD", "/nowhere")
    monkeypatch.setenv("MODEL_PATH", f"/weights/sft-{'7b' if '7b' in path.stem else '3b'}")
    fine_tunes = path.stem.startswith(("sft", "pretrain"))
    program = "verl.trainer.sft" if fine_tunes else "verl.trainer.main"
    assert run([f"config={path}", "--plan"], program) == show_plan.INCOMPLETE
    text = capsys.readouterr().out
    draws_its_data = path.parent.name == "toy" and path.stem in ("pretrain", "sft")
    assert ("data and steps: not known" in text) != draws_its_data and "tokens: " in text
    missing = text.split("not readable on this machine, so the run would not start here:\n")[1]
    assert missing.count("\n") >= 1 and "Traceback" not in text
    if "3b" in path.stem or "7b" in path.stem:
        assert "time: about " in text and "disk: a checkpoint takes " in text


def test_a_disk_without_room_for_one_checkpoint_is_noticed_without_the_data(monkeypatch, capsys):
    monkeypatch.setenv("MODEL_PATH", "/weights/sft-3b")
    arguments = ["config=configs/grpo_3b_one_gpu.yaml", "data.train_files=/nowhere", "--plan"]
    arguments.append("worker.reward.sam2_checkpoint=/nowhere/sam2.pt")
    for gigabytes, warned in ((21, True), (100, False)):
        free = SimpleNamespace(free=gigabytes * 10**9)
        monkeypatch.setattr("verl.trainer.show_plan.shutil.disk_usage", lambda _, free=free: free)
        assert run(arguments, "verl.trainer.main") == show_plan.INCOMPLETE
        text = capsys.readouterr().out
        assert "data and steps: not known" in text and ("NOT ENOUGH" in text) == warned


def test_64_frames_need_room_in_the_prompt(tmp_path, monkeypatch, capsys):
    """Frames of 16 tokens: the limit is the only thing that stops them, and it is named with the sample."""
    make_world(str(tmp_path / "world"), train_videos=2, valid_videos=1, reasonvos_videos=1, frames=70, queries=8)
    monkeypatch.setenv("MODEL_PATH", "weights/toy_policy")
    words = toy(tmp_path / "world", "data.sampled_frames=100", "data.val_files=null", "data.rollout_batch_size=4")
    words += ["worker.actor.global_batch_size=4", "trainer.save_checkpoint_path=null", "--plan"]
    assert run([*words, "data.max_prompt_length=3072"], "verl.trainer.main") == 0
    assert "not readable on this machine" not in capsys.readouterr().out
    assert run(words, "verl.trainer.main") == 3
    assert "data.max_prompt_length is 512; raise it, lower data.keyframe_resize or data.sampled_frames" in (
        capsys.readouterr().out
    )


def test_what_no_machine_can_run_is_refused(capsys):
    for wrong, says in (
        ("worker.reward.compute_score=veason_strickt", "veason_strict"),
        ("worker.reward.tracker=samm2", "did you mean sam2"),
        ("worker.rollout.nn=3", "did you mean worker.rollout.n"),
        ("data.keyframe_resize=x", "data.keyframe_resize"),
        ("worker.reward.weights.spatial=-1", "worker.reward.weights.spatial=-1.0 is outside its range"),
        ("--plan=1", "unknown option --plan=1; did you mean --plan?"),
        ("--dry_run", "unknown option --dry_run; did you mean --plan?"),
    ):
        assert run(["config=configs/grpo_3b_one_gpu.yaml", wrong, "--plan"], "verl.trainer.main") == 1
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1


UNKNOWN_OPTIONS = {
    "worker.reward.tracker_options.sam2_chekpoint=x": "did you mean sam2_checkpoint? options: sam2_config, "
    "sam2_checkpoint, dtype, max_objects, max_frames, compile_options",
    "data.options.sampled_frame=3": "did you mean sampled_frames? options: ",
    "data.mix={revos: {options: {foo: 1}}}": "options: ",
}


@pytest.mark.parametrize("switches", [["--plan"], ["worker.reward.compute_score=no_sam2"]], ids=["plan", "run"])
@pytest.mark.parametrize(("option", "says"), UNKNOWN_OPTIONS.items())
def test_an_unknown_option_is_an_error_before_anything_is_missed(option, says, switches, capsys):
    if "tracker" in option and switches != ["--plan"]:
        switches = []  # a run whose reward tracks
    assert run(["config=configs/grpo_3b_one_gpu.yaml", option, *switches], "verl.trainer.main") == 1
    shown = capsys.readouterr()
    key = option.partition("=")[0] if "mix" not in option else "data.options.foo"
    assert shown.err.startswith(f"error: {key} is unknown; ") and says in shown.err and shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_file_of_the_tracker_has_one_name(monkeypatch, capsys):
    key = "worker.reward.tracker_options.sam2_checkpoint"
    told = []
    for value in ("worker.reward.sam2_checkpoint=null", "worker.reward.sam2_checkpoint=/no.pt", ""):
        if not value:
            monkeypatch.delenv("SAM2_CHECKPOINT")
        run(["config=configs/grpo_3b_one_gpu.yaml", value, "--plan"], "verl.trainer.main")
        shown = capsys.readouterr()
        told.append(
            next(
                line for line in f"{shown.err}\n{shown.out}".splitlines() if f"{key} is" in line or "/no.pt is" in line
            )
        )
    assert f"  {key} is not set: download weights" in told[0]
    assert f"  {key}=/no.pt is no file" in told[1]
    assert told[2].startswith(f"error: {key} is not set: export SAM2_CHECKPOINT=...")


def test_a_model_of_the_hub_is_not_downloaded(monkeypatch, capsys):
    monkeypatch.setenv("MODEL_PATH", "nobody/nothing-3b")
    asked = []

    def download(_, local_files_only=False, **__):
        from huggingface_hub.errors import LocalEntryNotFoundError

        asked.append(local_files_only)
        raise LocalEntryNotFoundError("not here")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert run(["config=configs/grpo_3b_one_gpu.yaml", "--plan"], "verl.trainer.main") == 3
    assert asked == [True]
    assert "nobody/nothing-3b is not downloaded yet: the run would get it from the hub" in capsys.readouterr().out


def test_a_gpu_that_is_too_small_is_named(monkeypatch, capsys):
    monkeypatch.setattr(show_plan, "_gpu_bytes", lambda: 48 * GIB)
    run(["config=configs/grpo_3b_one_gpu.yaml", "--plan"], "verl.trainer.main")
    assert "GiB of 48 GiB: DOES NOT FIT" in capsys.readouterr().out
    monkeypatch.setattr(show_plan, "_gpu_bytes", lambda: 140 * GIB)
    run(["config=configs/grpo_3b_one_gpu.yaml", "--plan"], "verl.trainer.main")
    assert "GiB of 140 GiB: fits" in capsys.readouterr().out
    for name, gpu in [("grpo_3b_48gb", 44.7), ("grpo_3b_24gb", 22.3)]:  # the GiB of a card of 48 GB and one of 24 GB
        monkeypatch.setattr(show_plan, "_gpu_bytes", lambda gpu=gpu: gpu * GIB)
        run([f"config=configs/{name}.yaml", "--plan"], "verl.trainer.main")
        assert ": fits" in capsys.readouterr().out


def time_of(capsys, *overrides):
    run(["config=configs/grpo_3b_one_gpu.yaml", *overrides, "trainer.device=cuda", "--plan"], "verl.trainer.main")
    text = capsys.readouterr().out
    lines = text[text.index("time: about ") :].splitlines()
    return float(lines[0].split()[2]), lines


def test_eight_gpus_are_estimated_from_two_whatever_shares_an_engine(capsys):
    eight = "trainer.n_gpus_per_node=8"
    each, lines = time_of(capsys, eight)
    shared, others = time_of(capsys, eight, "worker.rollout.tensor_parallel_size=2")
    assert each < shared  # as on two
    assert lines[1].strip() == "recomputation and offloading are not in it"
    assert lines[2].strip().startswith("8 GPUs, from 2: estimated from 10.3 s on 2 NVIDIA H200")
    assert others[2].strip().startswith("8 GPUs, from 2: estimated from 11.58 s on 2 NVIDIA H200")
    assert lines[3].strip() == "python -m benchmarks.grpo_step --gpus 2" and "vLLM 0.26" in lines[4]
    assert "from 2: " not in time_of(capsys, "trainer.n_gpus_per_node=2")[1][2]


def test_plan_of_the_launcher_scripts():
    command = ["bash", "training_scripts/run_toy_grpo.sh", "--plan"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    )
    assert done.returncode in (0, 3) and "tokens: " in done.stdout, done.stderr
