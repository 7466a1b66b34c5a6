"""Wrong videos, options and models: `veason predict` says each in one line, before any model is loaded."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.veason.videos import brighter, moving, write_folder, write_video
from veason.inference.model_options import ModelOptions
from veason.predict import command as predict
from veason.toy_assets import TOY_POLICY, TOY_TRACKER, toy_tracker_options

TOY_WEIGHTS = toy_tracker_options()["checkpoint"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Videos, checkpoints and weights, good and bad."""
    root = tmp_path_factory.mktemp("files")
    write_video(root / "good.mp4", moving(6))
    write_video(root / "changes.mjpeg", [*brighter(2, 56, 90)], codec="mjpeg", pixels="yuvj420p")
    larger = write_video(root / "larger.mjpeg", [*brighter(2, 64, 96)], codec="mjpeg", pixels="yuvj420p").read_bytes()
    (root / "changes.mjpeg").write_bytes((root / "changes.mjpeg").read_bytes() + larger)
    (root / "cut.mp4").write_bytes((root / "good.mp4").read_bytes()[:1500])
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("no video")
    write_folder(root / "frames", 4)
    for name in ("mixed", "damaged", "grown"):
        write_folder(root / name, 4)
    Image.new("RGB", (91, 56)).save(root / "mixed" / "002.jpg")
    (root / "damaged" / "001.jpg").write_bytes((root / "frames" / "001.jpg").read_bytes()[:600])
    (root / "grown" / "003.jpg").write_text("no picture")
    (root / "none").mkdir()
    (root / "hidden").mkdir()
    shutil.copy(root / "frames" / "000.jpg", root / "hidden" / "._000.jpg")
    (root / "empty.txt").write_text("# nothing\n\n")
    (root / "bad.jsonl").write_text('{"video": "good.mp4", "expressions": ["x"]}\nno json\n')
    (root / "keys.jsonl").write_text('{"clip": "good.mp4"}\n')
    (root / "kinds.jsonl").write_text('{"video": "good.mp4", "expressions": [1, 2]}\n')
    (root / "mute.jsonl").write_text('{"video": "good.mp4"}\n')
    (root / "gone.txt").write_text("gone.mp4\n")
    (root / "binary.txt").write_bytes(b"\xff\xfe\x00\x80")
    for name in ("no_weights", "broken", "other_model", "cut_weights", "no_tokenizer", "no_processor", "bad_index"):
        shutil.copytree(TOY_POLICY, root / name)
    (root / "no_weights" / "model.safetensors").unlink()
    (root / "broken" / "config.json").write_text("{")
    config = json.loads((TOY_POLICY / "config.json").read_text())
    (root / "other_model" / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    (root / "other_model" / "veason.json").unlink()  # which says in what its boxes are
    weights = (TOY_POLICY / "model.safetensors").read_bytes()
    (root / "cut_weights" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    (root / "no_tokenizer" / "tokenizer.json").unlink()
    (root / "no_processor" / "processor_config.json").unlink()
    (root / "bad_index" / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001.safetensors"}}')
    (root / "empty.pt").touch()
    (root / "text.pt").write_text("no weights")
    torch.save({"model": {"a": torch.zeros(2)}}, root / "other.pt")
    (root / "sam2.yaml").write_text("a: [1")
    (root / "keys.yaml").write_text("trainer: {}\n")
    (root / "file").touch()
    return root


GOOD = ["{good.mp4}", "the bar"]
MODEL = [*GOOD, "--model"]
SAM2 = [*MODEL, str(TOY_POLICY), "--sam2"]

WRONG = {
    # the video
    "missing": (["{none.mp4}", "x"], "video is missing: {none.mp4}"),
    "an empty path": (["", "x"], "the path of the video is empty"),
    "text": (["{text.mp4}", "x"], "{text.mp4} cannot be read as a video"),
    "no bytes": (["{empty.mp4}", "x"], "{empty.mp4} cannot be read as a video"),
    "cut short": (["{cut.mp4}", "x"], "{cut.mp4} cannot be read as a video"),
    "a size that changes": (["{changes.mjpeg}", "x"], "the size of the frames changes from (56, 90) to (64, 96)"),
    "an empty folder": (["{none}", "x"], "no pictures (.jpg"),
    "hidden files alone": (["{hidden}", "x"], "no pictures (.jpg"),
    "frames of two sizes": (["{mixed}", "x"], "000.jpg and {mixed}/002.jpg have 90 x 56 and 91 x 56 pixels"),
    "a frame cut short": (["{damaged}", "x"], "frame cannot be read: {damaged}/001.jpg"),
    "a frame that is text": (["{grown}", "x"], "frame cannot be read: {grown}/003.jpg"),
    "the second video": (["{good.mp4}", "x", "--video", "{gone.mp4}"], "video is missing: {gone.mp4}"),
    # expressions
    "no expression": (["{good.mp4}"], "no expression is given for {good.mp4}: say what to find"),
    "an empty expression": (["{good.mp4}", ""], "the expression '' for {good.mp4} is empty"),
    "a full stop": (["{good.mp4}", "x", " . "], "the expression ' . ' for {good.mp4} is empty"),
    # a list of clips
    "no list": (["--clips", "{none.txt}"], "--clips {none.txt} is missing"),
    "an empty list": (["--clips", "{empty.txt}"], "--clips {empty.txt} names no clip"),
    "a line that is no JSON": (["--clips", "{bad.jsonl}"], '{bad.jsonl} line 2 is not like {"video": "clip.mp4"'),
    "a line without a video": (["--clips", "{keys.jsonl}"], "{keys.jsonl} line 1 is not like"),
    "a line of numbers": (["--clips", "{kinds.jsonl}"], "{kinds.jsonl} line 1: video is a path and expressions are"),
    "a list without expressions": (["--clips", "{mute.jsonl}"], "no expression is given for {good.mp4} in"),
    "a list of missing files": (["--clips", "{gone.txt}", "--expression", "x"], "{gone.txt}: there is no video"),
    "a list that is no text": (["--clips", "{binary.txt}", "--expression", "x"], "--clips {binary.txt} cannot be read"),
    "a list and a video": ([*GOOD, "--clips", "{gone.txt}"], "--clips and a video are both given"),
    # options
    "an unknown option": (
        [*GOOD, "--sampled-frames", "3"],
        "--sampled-frames is no option; did you mean --sampled_frames?",
    ),
    "a value is missing": ([*GOOD, "--fps"], "--fps: expected one argument"),
    "fps that is no number": ([*GOOD, "--fps", "fast"], "--fps: invalid float value: 'fast'"),
    "fps 0": ([*GOOD, "--fps", "0"], "--fps 0.0 is not above 0 and at most 1000"),
    "fps below 0": ([*GOOD, "--fps=-2"], "--fps -2.0 is not above 0 and at most 1000"),
    "fps nan": ([*GOOD, "--fps", "nan"], "--fps nan is not above 0 and at most 1000"),
    "no frames shown": ([*GOOD, "--sampled_frames", "0"], "sampled_frames=0 is outside 1 to 256"),
    "too many frames shown": ([*GOOD, "--sampled_frames", "1000"], "sampled_frames=1000 is outside 1 to 256"),
    "half a frame": ([*GOOD, "--sampled_frames", "2.5"], "--sampled_frames: invalid int value: '2.5'"),
    "size 0": ([*GOOD, "--size", "0"], "size=0 is outside 1 to 4096"),
    "a size between": ([*GOOD, "--size", "500"], "frames of 500 x 500 pixels would reach the policy as 504 x 504"),
    "no tokens": ([*GOOD, "--max_tokens", "0"], "max_tokens=0 is outside 1 to 32768"),
    "temperature below 0": ([*GOOD, "--temperature=-1"], "temperature=-1.0 is outside 0 to 10"),
    "temperature nan": ([*GOOD, "--temperature", "nan"], "temperature=nan is no number"),
    "no template": ([*GOOD, "--prompt_template", "{none.txt}"], "neither a text with {expression} nor a file"),
    "a template without its place": ([*GOOD, "--prompt_template", "{empty.txt}"], "{empty.txt} has no {expression}"),
    "a file as the folder": ([*GOOD, "--out", "{file}"], "--out {file}: this is a file, not a folder"),
    "below a file": ([*GOOD, "--out", "{file}/out"], "--out {file}/out: {file} is a file, not a folder"),
    # the policy
    "no model": ([*MODEL, "{none}"], "no checkpoint at {none}: give a folder with config.json"),
    "a model that is a hub's name": (
        [*MODEL, "Qwen/None"],
        "no checkpoint at Qwen/None: neither a folder nor on the hub",
    ),
    "an empty model": ([*MODEL, ""], "model is empty: give a folder"),
    "no weights": ([*MODEL, "{no_weights}"], "no checkpoint at {no_weights}"),
    "a broken configuration": ([*MODEL, "{broken}"], "{broken}/config.json is no configuration"),
    "another kind of model": ([*MODEL, "{other_model}"], "model_type 'llama' is not known"),
    "weights cut short": ([*MODEL, "{cut_weights}"], "{cut_weights}/model.safetensors is cut short: 6670412 bytes of"),
    "no tokenizer": ([*MODEL, "{no_tokenizer}"], "has no tokenizer: tokenizer.json or"),
    "no image processor": ([*MODEL, "{no_processor}"], "has no image processor: preprocessor_config.json or"),
    "a part of the weights": ([*MODEL, "{bad_index}"], "{bad_index}/model-00001.safetensors is missing"),
    # the tracker
    "an unknown tracker": ([*GOOD, "--tracker", "sam22"], "tracker: 'sam22' is unknown; did you mean sam2?"),
    "a tracker that is no module": ([*GOOD, "--tracker", "no.module:Tracker"], "no.module:Tracker cannot be imported"),
    "options without a value": ([*GOOD, "--tracker_options", "dtype"], "--tracker_options dtype is not KEY=VALUE"),
    "an unknown option of it": ([*GOOD, "--tracker_options", "max_object=3"], "did you mean max_objects?"),
    "SAM 2 is not given": ([*MODEL, str(TOY_POLICY)], "sam2 is not given: fit is sam2.1_hiera_large.pt"),
    "no SAM 2 weights": ([*SAM2, "{none.pt}"], "--sam2 {none.pt} is no file"),
    "empty SAM 2 weights": ([*SAM2, "{empty.pt}"], "sam2_checkpoint={empty.pt} holds no weights"),
    "SAM 2 weights that are text": ([*SAM2, "{text.pt}"], "sam2_checkpoint={text.pt} holds no weights"),
    "weights of nothing known": ([*SAM2, "{other.pt}"], "fits no model file of the sam2 package"),
    "another SAM 2": (
        [*SAM2, TOY_WEIGHTS, "--sam2_config", "configs/sam2.1/sam2.1_hiera_t.yaml"],
        f"sam2_checkpoint={TOY_WEIGHTS} does not fit sam2_config=configs/sam2.1/sam2.1_hiera_t.yaml",
    ),
    "no SAM 2 model file": (
        [*SAM2, TOY_WEIGHTS, "--sam2_config", "sam9.yaml"],
        "sam2_config=sam9.yaml is no SAM 2 model",
    ),
    "a broken model file": (
        [*SAM2, TOY_WEIGHTS, "--sam2_config", "{sam2.yaml}"],
        "{sam2.yaml} describes no SAM 2 model",
    ),
    "a YAML of something else": (
        [*SAM2, TOY_WEIGHTS, "--sam2_config", "{keys.yaml}"],
        "{keys.yaml} describes no SAM 2",
    ),
    "SAM 2 for another tracker": (
        [*GOOD, "--tracker", "tests.veason.scripted_parts:BoxTracker", "--sam2", TOY_WEIGHTS],
        "--sam2 and --sam2_config are options of the tracker sam2",
    ),
}


def fill(text, root):
    """{name} of a file as its path."""
    for path in [*root.iterdir(), *(root / name for name in ("none.mp4", "gone.mp4", "none.txt", "none.pt"))]:
        text = text.replace(f"{{{path.name}}}", str(path))
    return text


@pytest.fixture
def no_models(monkeypatch):
    for name in ("load_policy", "load_tracker"):
        monkeypatch.setattr(ModelOptions, name, lambda _: pytest.fail("a model is loaded"))


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize("kind", WRONG)
def test_it_is_said_in_one_line(kind, files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, message = WRONG[kind]
    words = [fill(word, files) for word in words]
    words += [] if "--out" in words else ["--out", str(tmp_path / "out")]
    assert predict.main(words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("decoding: ")]
    assert len(lines) == 1 and lines[0].startswith("veason predict: ") and fill(message, files) in lines[0], lines
    assert not list(tmp_path.rglob("result.json"))


def test_there_are_at_least_forty():
    assert len(WRONG) >= 40


@pytest.mark.usefixtures("no_models")
def test_a_full_disk_is_noticed(files, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=30 << 20))
    assert predict.main([str(files / "good.mp4"), "x", "--out", str(tmp_path)]) == 2
    assert "30 MB are free, and about 50 MB are needed" in capsys.readouterr().err


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize("call", ["Path.mkdir", "tempfile.TemporaryFile"])
def test_a_folder_without_rights_is_noticed(files, tmp_path, capsys, monkeypatch, call):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "out")

    monkeypatch.setattr(f"veason.predict.clips.{call}", refuse)
    assert predict.main([str(files / "good.mp4"), "x", "--out", str(tmp_path / "out")]) == 2
    assert "cannot be written: Permission denied" in capsys.readouterr().err


def test_what_is_right_is_not_refused(files, tmp_path, monkeypatch):
    """The same files reach the models when they are in order."""
    reached = []

    def stop(self):
        reached.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(ModelOptions, "load_policy", stop)
    out = str(tmp_path / "out")
    for words in (
        ["{good.mp4}", "x"],
        ["{frames}", "x", "y"],
        ["--video", "{frames}", "--expression", "x", "--size", "140"],
        [
            "{good.mp4}",
            "x",
            "--model",
            str(TOY_POLICY),
            "--sam2",
            TOY_WEIGHTS,
            "--sam2_config",
            str(TOY_TRACKER / "sam2_tiny.yaml"),
        ],
    ):
        with pytest.raises(KeyboardInterrupt):
            predict.main([*(fill(word, files) for word in words), "--out", out])
    assert [each.size for each in reached] == [112, 112, 140, 112]
    assert np.all([each.is_toy for each in reached])


def test_words_without_quotes_are_several_expressions(capsys):
    assert predict.read_options(["clip.mp4", "the", "bike"]).expression == ["the", "bike"]
    assert "2 expressions: 'the', 'bike'; quote one of several words" in capsys.readouterr().err
    predict.read_options(["clip.mp4", "the bike", "dog"])
    assert not capsys.readouterr().err
