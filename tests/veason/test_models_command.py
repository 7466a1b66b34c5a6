"""The wording of the released weights is read out of a clone of the original repository, by parsing alone.

The stand-in below has the shape of the original's files (github.com/SitongGong/Veason-R1 at dde0d9b) and other words.
"""

import json

import pytest

from veason.errors import DataError
from veason.inference_settings import read_settings
from veason.models_command import main, read_published_settings
from veason.prompts import build_messages

DATA_SET = """
import a_package_that_is_not_installed

class ReVOSDataset(Dataset):
    def __init__(self, data_path: str, prompt_key="prompt", max_pixels=None, num_sampled_frames=7,
                 keyframe_resize=448, reference_image_resize=448, video_metas=None):
        self.rvos_sampled_frames = num_sampled_frames
        self.user_prompt = "<video> " + "\\n" + \\
                           "Here are {num} pictures." + "\\n" + \\
                           "Point at '{Question}' and answer as {{\\"a\\": 1}}."

    def __len__(self):
        raise SystemExit("run")
"""
EVALUATION = 'dataset = ReVOSDataset(system_prompt=r"You are a helpful assistant.", batch_size=1)\nopen("run", "w")\n'


@pytest.fixture
def clone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "clone"
    (root / "verl" / "utils").mkdir(parents=True)
    (root / "batch_eval_keyframe_sft_dataset_.py").write_text(DATA_SET)
    (root / "verl" / "utils" / "revos_keyframe_sft_dataset_mod.py").write_text(DATA_SET)
    (root / "multi_gpu_eval_keyframe_sft_mod_reason_vos.py").write_text(EVALUATION)
    return root


def test_the_wording_is_read(clone, tmp_path, capsys):
    assert main(["--repository", str(clone), f"output={tmp_path / 'veason.json'}"]) == 0
    assert "7 frames of 448 x 448 pixels" in capsys.readouterr().out
    settings = read_settings(tmp_path / "veason.json")
    assert settings.prompt_template == "Here are {count} pictures.\nPoint at '{expression}' and answer as {\"a\": 1}."
    assert (settings.sampled_frames, settings.keyframe_resize) == (7, 448)
    assert (settings.repetition_penalty, settings.answer_parser) == (1.05, "published")
    question = build_messages("The Dog.", [0, 3], settings.prompt_template)[1]["content"][-1]["text"]
    assert question == " \nHere are 2 pictures.\nPoint at 'the dog' and answer as {\"a\": 1}."
    assert not (tmp_path / "run").exists()  # nothing of the clone is run


def test_it_is_written_beside_the_weights(clone, tmp_path):
    (tmp_path / "weights").mkdir()
    assert main(["--repository", str(clone), "--output", str(tmp_path / "weights")]) == 0
    assert json.loads((tmp_path / "weights" / "veason.json").read_text())["sampled_frames"] == 7


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("batch_eval_keyframe_sft_dataset_.py", None, None, "is missing: give a clone of github.com/SitongGong/Veason"),
        ("multi_gpu_eval_keyframe_sft_mod_reason_vos.py", None, None, "is no clone of the original repository"),
        ("batch_eval_keyframe_sft_dataset_.py", "class", "class class", "cannot be parsed"),
        ("batch_eval_keyframe_sft_dataset_.py", "{num}", "{number}", r"unknown placeholder \{number\} in the prompt"),
        ("batch_eval_keyframe_sft_dataset_.py", "Point", "Look", "differ in their prompts"),
        ("batch_eval_keyframe_sft_dataset_.py", "<video> ", "<video>", "the prompt does not begin with"),
        ("batch_eval_keyframe_sft_dataset_.py", "num_sampled_frames=7", "n=7", "no default of num_sampled_frames"),
        ("batch_eval_keyframe_sft_dataset_.py", '"<video> "', "tag()", "no text is assigned to self.user_prompt"),
        ("multi_gpu_eval_keyframe_sft_mod_reason_vos.py", "helpful", "rude", "another system prompt"),
    ],
)
def test_another_form_is_named(clone, file, old, new, says):
    if old is None:
        (clone / file).unlink()
    else:
        (clone / file).write_text((clone / file).read_text().replace(old, new))
    with pytest.raises(DataError, match=says) as error:
        read_published_settings(clone)
    assert "\n" not in str(error.value)
