"""`--plan` of an evaluation."""

from __future__ import annotations

import pytest

from eval import evaluate, evaluation_plan
from veason.toy.world import make_world

FILES = {"config": "yaml", "checkpoint": "safetensors"}


@pytest.fixture
def world(tmp_path):
    make_world(str(tmp_path / "world"), train_videos=2, valid_videos=3, reasonvos_videos=1)
    return tmp_path / "world" / "ReVOS"


def plan(tmp_path, world, *more):
    options = [
        "benchmark=revos",
        f"data_path={world}",
        f"output_path={tmp_path / 'out'}",
        "model_path=weights/toy_policy",
    ]
    tracker = [
        f"sam2_{name}=weights/toy_tracker/sam2_tiny.{end}"
        for name, end in (("config", "yaml"), ("checkpoint", "safetensors"))
    ]
    return evaluate.main([*options, *tracker, "keyframe_resize=112", *more, "--plan"])


def test_what_would_be_done(tmp_path, world, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "run_workers", None)
    assert plan(tmp_path, world, "limit=5") == 0
    text = capsys.readouterr().out
    assert "samples: 5 of revos (valid), 1 videos" in text and "GB are free" in text
    words = {line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines() if line.startswith("  ")}
    assert words["limit=5"] == "command line" and words["batch_size=64"] == "default"
    assert not (tmp_path / "out").exists()


def test_the_time_on_gpus(tmp_path, world, monkeypatch, capsys):
    monkeypatch.setattr(evaluation_plan, "gpu_count", lambda: 2)
    assert plan(tmp_path, world) == 0
    assert "workers: 2, a GPU each" in (text := capsys.readouterr().out) and "time: about 0 min" in text


OWN_TRACKER = "tests.veason.scripted_parts:BoxTracker"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "sam2 (sam2_tiny): weights 0.01 GiB on the disk, frames of one video up to 3.8 GiB"),
        (["sam2_config=configs/sam2.1/sam2.1_hiera_l.yaml"], "sam2 (sam2.1_hiera_l): 1.4 GiB, frames"),
        (["sam2_config=configs/sam2.1/sam2.1_hiera_t.yaml"], "sam2 (sam2.1_hiera_t): weights 0.01 GiB"),
        (["tracker=sam3", "tracker_options.checkpoint=FOLDER/sam3"], "sam3 (sam3): weights 0.50 GiB on the disk"),
        (["tracker=transformers", "tracker_options.checkpoint=/none"], "transformers (none): weights not known"),
        ([f"tracker={OWN_TRACKER}"], f"{OWN_TRACKER}: not known, a tracker of your own"),
    ],
)
def test_the_memory_is_that_of_the_tracker_that_is_asked_for(tmp_path, world, capsys, options, says):
    (tmp_path / "sam3").mkdir()
    with (tmp_path / "sam3" / "model.safetensors").open("wb") as file:
        file.truncate(1 << 29)  # a sparse file
    plan(tmp_path, world, *(option.replace("FOLDER", str(tmp_path)) for option in options))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    (line,) = (line for line in lines if line.startswith("tracker "))
    assert line.startswith(f"tracker {says}")


def test_what_is_missing_is_listed(tmp_path, world, capsys):
    assert plan(tmp_path, world, "model_path=/nothing", "sam2_checkpoint=/no.pt", "data_path=/none") == 3
    missing = capsys.readouterr().out.split("would not start here:\n")[1].splitlines()
    assert [next(word for word in ("/nothing", "/no.pt", "/none") if word in line) for line in missing] == [
        "/nothing",
        "/no.pt",
        "/none",
    ]


def test_64_frames_need_room_in_the_prompt(tmp_path, capsys):
    make_world(str(tmp_path / "world"), train_videos=1, valid_videos=1, reasonvos_videos=1, frames=70)
    world = tmp_path / "world" / "ReVOS"
    assert plan(tmp_path, world, "sampled_frames=64", "max_prompt_length=2048") == 0
    assert plan(tmp_path, world, "sampled_frames=64", "max_prompt_length=1024") == 3
    text = capsys.readouterr().out
    assert "samples: " in text and "64 frames of 112 x 112 pixels are 1024 tokens, before any text" in text


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("benchmark=revoss", "did you mean revos"),
        ("tracker=samm2", "did you mean sam2"),
        ("limt=3", "did you mean limit"),
        ("tracker_options.max_objekts=3", "did you mean max_objects? options: sam2_config, sam2_checkpoint, dtype"),
    ],
)
def test_what_no_machine_can_run_is_refused(tmp_path, world, capsys, option, says):
    assert plan(tmp_path, world, option) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
