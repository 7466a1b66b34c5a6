"""veason.json beside a checkpoint, checkpoints by folder and by hub name."""

import json
from pathlib import Path

import pytest

from eval.evaluation_options import EvaluateConfig, apply_checkpoint_settings
from tests.hub_cache import write_hub_cache
from veason.checkpoints import resolve_model
from veason.errors import DataError
from veason.inference_settings import InferenceSettings, parse_settings, read_settings, settings_of_training
from veason.predict import command as predict
from veason.toy_assets import toy_tracker_options
from verl.models.hub_download import is_hub_name, local_model_folder

TOY = Path(__file__).parents[2] / "weights" / "toy_policy"


def test_the_shipped_policy_says_how_it_is_asked():
    settings = read_settings(TOY)
    assert (settings.prompt_template, settings.keyframe_resize, settings.sampled_frames) == (
        'Find "{expression}".',
        112,
        5,
    )


def test_a_checkpoint_without_settings_has_none(tmp_path):
    assert read_settings(tmp_path) is None
    with pytest.raises(DataError, match=r"settings file is missing: .*none\.json"):
        read_settings(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds no JSON object"),
        ('{"sise": 3}', "unknown key sise"),
        ('{"prompt_templat": "x"}', "unknown key prompt_templat; did you mean prompt_template"),
        ('{"prompt_template": "Find it."}', r"prompt_template has no \{expression\}"),
        ('{"keyframe_resize": "560"}', "keyframe_resize is '560'"),
        ('{"keyframe_resize": true}', "keyframe_resize is True"),
        ('{"sampled_frames": 0}', "sampled_frames is 0; it has to be above 0"),
        ('{"answer_parser": "lenient"}', "answer_parser is 'lenient'"),
    ],
)
def test_broken_settings_are_named(tmp_path, content, says):
    (tmp_path / "veason.json").write_text(content)
    with pytest.raises(DataError, match=says) as error:
        read_settings(tmp_path)
    assert str(tmp_path / "veason.json") in str(error.value) and "\n" not in str(error.value)


def test_the_earlier_name_of_a_key_is_read(tmp_path):
    (tmp_path / "veason.json").write_text('{"frame_index": "relative"}')
    assert read_settings(tmp_path).timestamp_mode == "relative"


def test_a_training_keeps_what_it_does_not_decide():
    earlier = InferenceSettings(sampled_frames=5, repetition_penalty=1.05, source="elsewhere")
    options = {"name": "sam2", "sam2_config": "configs/sam2.1/sam2.1_hiera_l.yaml", "sam2_checkpoint": "/weights/l.pt"}
    written = settings_of_training(earlier, "Find {expression}.", 448, "relative", 1000, options)
    assert (written.sampled_frames, written.repetition_penalty) == (5, 1.05)
    assert (written.prompt_template, written.keyframe_resize, written.coordinate_range) == (
        "Find {expression}.",
        448,
        1000,
    )
    assert written.timestamp_mode == "relative"
    assert written.tracker == {**options, "sam2_checkpoint": "l.pt"}  # a path of this machine says nothing elsewhere
    assert parse_settings(json.loads(json.dumps(written.to_json())), "x") == written


def test_the_evaluation_asks_as_the_checkpoint_says():
    config, lines = apply_checkpoint_settings(EvaluateConfig(str(TOY), "data", "out"))
    assert (config.keyframe_resize, config.sampled_frames, config.prompt_template) == (112, 5, 'Find "{expression}".')
    assert (config.repetition_penalty, config.answer_parser, lines) == (1.0, "strict", [])
    given = EvaluateConfig(str(TOY), "data", "out", keyframe_resize=56, sampled_frames=5, answer_parser="published")
    config, lines = apply_checkpoint_settings(given)
    assert (config.keyframe_resize, config.answer_parser) == (56, "published")
    assert lines == [
        "keyframe_resize=56, the checkpoint's veason.json says 112",
        "answer_parser='published', the checkpoint's veason.json says 'strict'",
    ]


def test_settings_of_another_file(tmp_path):
    (tmp_path / "own.json").write_text('{"prompt_template": "Which {expression}?"}')
    config, _ = apply_checkpoint_settings(EvaluateConfig(str(TOY), "data", "out", settings=str(tmp_path / "own.json")))
    assert (config.prompt_template, config.keyframe_resize) == ("Which {expression}?", 560)


def test_the_arguments_of_the_published_script_are_answered_in_one_line():
    _, lines = apply_checkpoint_settings(EvaluateConfig(str(TOY), "data", "out", idx=0, num_parts=2, batch_size=1))
    assert lines[0].startswith("idx and num_parts have no effect") and lines[1].startswith("batch_size=1 changes no")


def test_the_prediction_asks_as_the_checkpoint_says(capsys):
    words = ["--video", "v.mp4", "--expression", "x", "--model", str(TOY), "--out", "out"]
    tracker = toy_tracker_options()
    words += ["--sam2", tracker["checkpoint"], "--sam2_config", tracker["config"]]
    found = predict.read_model_options(predict.read_options([*words, "--size", "56"]))
    assert (found.size, found.sampled_frames, found.prompt_template) == (56, 5, 'Find "{expression}".')
    assert (found.timestamp_mode, found.answer_parser, found.repetition_penalty) == ("absolute", "strict", 1.0)
    assert capsys.readouterr().err == "veason predict: keyframe_resize=56, the checkpoint's veason.json says 112\n"


def test_a_name_of_the_hub_is_looked_up_in_its_cache(tmp_path, monkeypatch):
    snapshot = write_hub_cache(monkeypatch, tmp_path / "cache", "owner/policy", TOY)
    assert resolve_model("owner/policy") == local_model_folder("owner/policy") == str(snapshot)
    config, lines = apply_checkpoint_settings(EvaluateConfig("owner/policy", "data", "out"))
    assert (config.model_path, config.keyframe_resize, lines) == ("owner/policy", 112, [])  # each host looks it up
    inside = write_hub_cache(monkeypatch, tmp_path / "cache", "owner/several", TOY, "3b")
    assert resolve_model("hf://owner/several/3b") == local_model_folder("hf://owner/several/3b") == str(inside)


def test_what_is_no_checkpoint_is_named(tmp_path, monkeypatch):
    write_hub_cache(monkeypatch, tmp_path / "cache", "owner/policy", TOY)
    with pytest.raises(DataError, match="no checkpoint at owner/none: neither a folder nor on the hub or in its cache"):
        resolve_model("owner/none")
    with pytest.raises(DataError, match=r"no checkpoint at .*nowhere: give a folder with config\.json"):
        resolve_model(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(DataError, match="no checkpoint at runs/none: give a folder"):  # a typing error, not a hub name
        resolve_model("runs/none")
    (tmp_path / "actor" / "huggingface").mkdir(parents=True)
    (tmp_path / "actor" / "model_world_size_2_rank_0.pt").write_bytes(b"")
    for place in ("actor", "actor/huggingface"):
        with pytest.raises(DataError, match=r"actor holds FSDP shards, `python -m verl\.merge_shards actor --output"):
            resolve_model(place)


def test_names_of_the_hub():
    assert is_hub_name("Qwen/Qwen2.5-VL-3B-Instruct") and is_hub_name("hf://owner/name/folder")
    for path in ("policy", "/owner/name", "./owner/name", "../owner/name", "weights/none", "owner/", "~/x"):
        assert not is_hub_name(path)
