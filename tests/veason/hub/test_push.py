"""`veason push`: the card, what is sent, and what is refused, without a network."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml

from veason.cli import main

BASE = ["--base_model", "Qwen/Qwen2.5-VL-3B-Instruct", "--license", "qwen-research"]


def push(*words: str | Path) -> int:
    return main(["push", *map(str, words)])


def card_of(shown: str) -> tuple[dict, str]:
    """The metadata and the body of the card that a dry run prints."""
    _, _, card = shown.partition("README.md:\n\n")
    _, metadata, body = card.split("---\n", 2)
    return yaml.safe_load(metadata), body


def test_a_dry_run_shows_card_and_files(run, evaluation, capsys):
    assert push(run, "somebody/veason-3b", *BASE, "--evaluation", evaluation, "--dry_run") == 0
    shown = capsys.readouterr().out
    listed = [line.split()[0] for line in shown.split("README.md:")[0].splitlines()[1:] if line]
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(listed)
    assert not any(name.endswith((".pt", "trainer.json", "README.md")) for name in listed)
    metadata, body = card_of(shown)
    assert metadata["base_model"] == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert (metadata["license"], metadata["license_name"]) == ("other", "qwen-research")
    (result,) = metadata["model-index"][0]["results"]
    assert result["dataset"]["type"] == "revos" and result["metrics"][0]["value"] == 61.26
    assert "40 steps." in body and "| `worker.rollout.n` | 8 |" in body
    assert "| Overall J&F | 61.3 |" in body and "revos, valid, 3 expressions (sampled_frames 8" in body
    assert 'veason predict clip.mp4 "the dog that is chased" --model veason-3b' in body
    assert "/home/somebody" not in shown  # paths of a machine are not published


def test_the_base_model_is_that_of_the_training(run, capsys):
    assert push(run / "global_step_40", "somebody/veason-3b", "--license", "mit", "--dry_run") == 0
    metadata, body = card_of(capsys.readouterr().out)
    assert metadata["base_model"] == "Qwen/Qwen2.5-VL-3B-Instruct" and metadata["license"] == "mit"
    assert "license_name" not in metadata and "Not evaluated." in body


@pytest.fixture
def hub(monkeypatch):
    """A Hub that records the calls."""
    calls = []

    class Api:
        def create_repo(self, repo_id, **options):
            calls.append(("create_repo", repo_id, options))

        def create_commit(self, repo_id, operations, **options):
            calls.append(("create_commit", repo_id, operations, options))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return calls


def test_one_commit_has_the_checkpoint_and_its_card(run, hub, capsys):
    assert push(run, "somebody/veason-3b", *BASE, "--private") == 0
    assert capsys.readouterr().out == "https://huggingface.co/somebody/veason-3b\n"
    created, (_, repo_id, operations, options) = hub
    assert created == ("create_repo", repo_id, {"private": True, "repo_type": "model", "exist_ok": True})
    sent = {operation.path_in_repo: operation for operation in operations}
    assert sent["README.md"].path_or_fileobj.startswith(b"---\nbase_model: Qwen")
    weights = Path(sent["model.safetensors"].path_or_fileobj)
    assert weights.read_bytes() == (run / "huggingface" / "model.safetensors").read_bytes()
    assert options == {"commit_message": "Upload", "repo_type": "model"}


def test_a_card_of_ones_own(run, hub, tmp_path):
    (tmp_path / "card.md").write_text("# Mine\n")
    assert push(run, "somebody/veason-3b", *BASE, "--card", tmp_path / "card.md") == 0
    assert {operation.path_in_repo: operation for operation in hub[1][2]}["README.md"].path_or_fileobj == b"# Mine\n"


def test_a_data_set_has_a_card_of_its_own(tmp_path, capsys):
    frames = tmp_path / "set" / "JPEGImages" / "a"
    frames.mkdir(parents=True)
    (frames / "0.jpg").write_bytes(b"x")
    expressions = {"0": {"exp": "the dog", "type_id": 0}, "1": {"exp": "the one that waits", "type_id": 1}}
    videos = {"videos": {"a": {"frames": ["0", "1"], "expressions": expressions}}}
    (tmp_path / "set" / "meta_expressions_train_.json").write_text(json.dumps(videos))
    (tmp_path / "set" / "mask_dict.json").write_text("{}")
    (tmp_path / "set" / "notes.txt").write_text("private")
    assert push(tmp_path / "set", "somebody/clips", "--license", "CC-BY-4.0", "--dry_run") == 0
    shown = capsys.readouterr().out
    metadata, body = card_of(shown)
    assert metadata["license"] == "cc-by-4.0"
    assert "| train | 1 | 2 | 2 | 1 reasoning, 1 referring |" in body
    listed = [line.split()[0] for line in shown.split("README.md:")[0].splitlines()[1:] if line]
    assert listed == ["JPEGImages/a/0.jpg", "mask_dict.json", "meta_expressions_train_.json"]


def break_weights(run: Path) -> None:
    file = run / "huggingface" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["RUN", "veason-3b", *BASE], "repo_id 'veason-3b' is not owner/name"),
        (["RUN", "a/b"], "the following arguments are required: --license"),
        (["nowhere", "a/b", *BASE], "nowhere is no folder"),
        (["EVALUATION", "a/b", *BASE], "no checkpoint at"),
        (["RUN/huggingface", "a/b", "--license", "mit", "--base_model", "RUN"], "--base_model is needed"),
        (["RUN", "a/b", *BASE, "--evaluation", "RUN"], "predictions.jsonl is missing: name an output_path"),
        (["RUN", "a/b", *BASE, "--card", "nowhere.md"], "--card: nowhere.md: No such file or directory"),
        (["RUN", "a/b", *BASE, "--licence", "mit"], "--licence is no option; did you mean --license?"),
    ],
)
def test_what_cannot_be_sent_is_named_in_one_line(run, evaluation, hub, capsys, words, line):
    words = [word.replace("RUN", str(run)).replace("EVALUATION", str(evaluation)) for word in words]
    assert push(*words) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("veason push: ") and line in message
    assert hub == []


def test_weights_that_are_cut_short_are_refused(run, capsys):
    break_weights(run)
    assert push(run, "a/b", *BASE, "--dry_run") == 2
    assert "is cut short" in capsys.readouterr().err


def test_an_evaluation_of_other_weights_is_refused(run, evaluation, capsys):
    header = json.loads((evaluation / "predictions.jsonl").read_text())
    header["header"]["model_sha256"] = "0" * 64
    (evaluation / "predictions.jsonl").write_text(json.dumps(header) + "\n")
    assert push(run, "a/b", *BASE, "--evaluation", evaluation, "--dry_run") == 2
    assert "is an evaluation of other weights than" in capsys.readouterr().err


def test_without_a_network_the_command_says_so(run, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert push(run, "a/b", *BASE) == 2
    assert capsys.readouterr().err == (
        "veason push: HF_HUB_OFFLINE is set: unset it to upload, or look first with --dry_run\n"
    )


def test_the_hubs_own_message_is_shown(run, monkeypatch, capsys):
    refusal = Mock(side_effect=OSError("403 Forbidden: you may not write to a/b\nmore"))
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refusal)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert push(run, "a/b", *BASE) == 2
    assert capsys.readouterr().err == "veason push: a/b: 403 Forbidden: you may not write to a/b\n"
