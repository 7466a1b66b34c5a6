"""The option `tracker` of evaluation and prediction: the named tracker is built, a wrong one refused."""

import json
from types import SimpleNamespace

import pytest
from safetensors.torch import save_file

from eval import evaluate, evaluation_worker
from eval.evaluation_options import EvaluateConfig
from tests.veason.scripted_parts import BoxTracker
from veason.inference.model_options import ModelOptions
from veason.predict import command as predict

BOX_TRACKER = "tests.veason.scripted_parts:BoxTracker"


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    vision = {"patch_size": 14, "spatial_merge_size": 2}
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl", "vision_config": vision}))
    save_file({}, folder / "model.safetensors")
    (folder / "tokenizer.json").touch()
    (folder / "preprocessor_config.json").touch()
    return folder


def test_the_evaluation_builds_the_tracker_that_it_is_given(monkeypatch):
    monkeypatch.setattr(evaluation_worker, "VLLMPolicy", lambda *_, **__: SimpleNamespace())
    config = EvaluateConfig("model", "data", "out", tracker=BOX_TRACKER, max_cached_frames=12)
    tracker = evaluation_worker.build_segmenter(config).tracker
    assert isinstance(tracker, BoxTracker) and tracker.max_frames == 12


def test_the_prediction_builds_the_tracker_that_it_is_given():
    options = predict.read_options(["video=a.mp4", "--expression", "x=y", "--out=o", f"tracker={BOX_TRACKER}"])
    assert (options.video, options.expression, options.out) == (["a.mp4"], ["x=y"], "o")
    assert isinstance(predict.read_model_options(options).load_tracker(), BoxTracker)


def test_a_wrong_tracker_is_refused_before_anything_is_loaded(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "run_workers", lambda *_: pytest.fail("started"))
    monkeypatch.setattr(ModelOptions, "load_policy", lambda *_: pytest.fail("loaded"))
    arguments = [f"model_path={model}", f"data_path={tmp_path}", f"output_path={tmp_path / 'run'}"]
    for tracker, says in (
        (["tracker=samm2"], "tracker: 'samm2' is unknown; did you mean sam2?"),
        ([f"tracker={BOX_TRACKER}", "tracker_options.speed=2"], "tracker_options.speed is unknown"),
    ):
        assert evaluate.main([*arguments, *tracker]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and says in line
    flags = ["--video", "a.mp4", "--expression", "x", "--out", str(tmp_path / "out"), "--model", str(model)]
    assert predict.main([*flags, "--tracker", BOX_TRACKER, "--tracker_options", "speed=2"]) == 2
    assert "tracker_options.speed is unknown" in capsys.readouterr().err
