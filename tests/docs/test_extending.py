"""Every example of docs/extending.md is short, complete and works as the page says."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

import verl.models
from eval import metrics
from eval.evaluation_folder import EvaluationFolder
from eval.evaluation_options import EvaluateConfig, parse_overrides
from eval.evaluation_worker import EvaluationWorker
from grpo_reward.scorer import build_scorer
from veason.answers import format_answer
from veason.audit.command import main as audit_main
from veason.data.examples import GroundTruth, TrainingExample
from veason.data.training import build_training_data
from veason.inference.segmenter import Segmenter
from veason.toy.tiny_policy import write_policy
from veason.tracking import build_tracker
from veason.tracking.tracker_prompts import BoxPrompt
from verl.algorithms.advantages import ADVANTAGE_ESTIMATORS, compute_advantages
from verl.algorithms.losses import POLICY_LOSSES
from verl.config import load_config
from verl.config.worker_sections import ActorConfig
from verl.models.families import load_family
from verl.models.packing import TokenizedGroup, pack_groups
from verl.models.policy_model import PolicyModel
from verl.registry import load_by_name
from verl.trainer.run_log import RunLog
from verl.trainer.run_plan import RunPlan
from verl.workers.micro_batches import StoredGroup
from verl.workers.objective import GlobalTokenCounts, policy_objective

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))  # file -> source
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```bash[^\n]*\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
MAX_LINES = 20


def commands(module: str) -> list[list[str]]:
    """The arguments of the page's commands of a module."""
    return [command[3:] for command in COMMANDS if command[:3] == ["python", "-m", module]]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The examples as files in a folder that Python imports from."""
    for name, source in EXAMPLES.items():
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "project")
    monkeypatch.setattr(verl.models, "__path__", [*verl.models.__path__, str(tmp_path / "project/verl/models")])
    yield tmp_path / "project"
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_project" or name.endswith(".my_vl")]:
        del sys.modules[name]


def test_every_block_of_python_is_an_example_of_at_most_20_lines() -> None:
    assert PAGE.count("```python") == len(EXAMPLES) == 9
    lines = {name: sum(bool(line.strip()) for line in source.splitlines()) for name, source in EXAMPLES.items()}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}


@pytest.mark.parametrize("arguments", commands("verl.trainer.main"), ids=lambda arguments: arguments[-1])
def test_every_training_command_is_a_valid_configuration(arguments: list[str], monkeypatch) -> None:
    for name in ("REVOS_ROOT", "SAM2_CHECKPOINT", "MODEL_PATH"):
        monkeypatch.setenv(name, "unused")
    config = load_config(arguments)
    build_scorer_options = {"tracker": "my_project.trackers:StandStill", "tracker_options": {}}
    reward = config.worker.reward
    if reward.compute_score.startswith("my_project"):
        options = {"weights": reward.weights, "options": reward.options, **build_scorer_options}
        assert "brevity" in build_scorer(reward.compute_score, **options).rule.parts
    if reward.tracker.startswith("my_project"):
        options = {key: value for key, value in reward.tracker_options.items() if not key.startswith("sam2_")}
        assert build_tracker(reward.tracker, **options).margin == 2


@pytest.mark.parametrize("arguments", commands("eval.evaluate"), ids=lambda arguments: arguments[0])
def test_every_evaluation_command_is_valid(arguments: list[str]) -> None:
    config = parse_overrides(EvaluateConfig, arguments)
    assert "my_project" in config.benchmark + config.tracker


def example() -> TrainingExample:
    masks = np.zeros((3, 56, 56), np.uint8)
    masks[:, 10:30, 10:30] = 1
    ground_truth = GroundTruth([0, 4, 8], [[[10.0, 10, 29, 29]]] * 3, masks)
    return TrainingExample("a/0", [], [Image.new("RGB", (56, 56))] * 3, ground_truth, expression="the square")


ANSWER = format_answer("It is there.", 4, [[10, 10, 29, 29]])


@pytest.mark.parametrize(
    ("rule", "options", "total"),
    [
        ("my_project.rewards:RULE", {"weights": {"brevity": 0.5}}, 5.5),
        ("my_project.rules:make_rule", {"options": {"brevity_weight": 0.1}}, 4.1),
    ],
)
def test_a_reward_part_and_a_rule(rule: str, options: dict[str, Any], total: float) -> None:
    scorer = build_scorer(rule, tracker="my_project.trackers:StandStill", **options)
    short, long = scorer.score(example(), [ANSWER, ANSWER.replace("It is", "It is " + "here and " * 60)])
    assert short.total == pytest.approx(total) and short.parts["brevity"] == 1 and long.parts["brevity"] == 0


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two videos in the layout of the example."""
    root = tmp_path / "videos"
    for number, video in enumerate(("day", "night")):
        for frame in range(6):
            for kind, picture in (("frames", "jpg"), ("masks", "png")):
                path = root / kind / video / f"{frame:02d}.{picture}"
                path.parent.mkdir(parents=True, exist_ok=True)
                image = np.zeros((40, 60), np.uint8)
                image[5:25, 10 + 10 * number : 40] = 200
                Image.fromarray(image).save(path)
    (root / "list.json").write_text(json.dumps([["day", "The square."], ["night", "The other."]]))
    return root


class FixedPolicy:
    """Answers every question with the box of the first video, in the frames of 560 x 560."""

    def generate(self, questions: list[Any]) -> list[str]:
        return [format_answer("Seen.", 2, [[93, 70, 373, 350]]) for _ in questions]


def test_a_data_set_and_columns_of_its_own(videos: Path, tmp_path: Path, capsys) -> None:
    assert audit_main([str(videos), "--benchmark", "my_project.videos:MyVideos", "--output", str(tmp_path / "a")]) == 0
    data = build_training_data("my_project.videos:MyVideos", videos, keyframe_resize=56)
    assert data.sample_id(1) == "night/1" and data.example(1, 0).ground_truth.masks.any(axis=(1, 2)).all()
    path = "my_project.reported:ReportedVideos"
    config = EvaluateConfig("none", str(videos), str(tmp_path / "run"), benchmark=path)
    tracker = build_tracker("my_project.trackers:StandStill")
    folder, worker = (
        EvaluationFolder(config.output_path),
        EvaluationWorker(config, 0, Segmenter(FixedPolicy(), tracker)),
    )
    folder.begin({"benchmark": "my_project.videos:MyVideos", "split": "all", "limit": None})
    worker.run(range(2))
    folder.finish(["day/0", "night/1"])
    (arguments,) = commands("eval.metrics")
    assert arguments[2] == f"benchmark={path}"
    assert metrics.main([str(tmp_path / "run"), str(videos), arguments[2], "processes=1"]) == 0
    table = capsys.readouterr().out
    assert "| Method | J | F | J&F | J&F at night |" in table and "| SAM 2 with given boxes | 71.2 |" in table
    values = json.loads((tmp_path / "run" / "metrics.json").read_text())["table"]
    assert values["J&F at night"]["value"] < values["J&F"]["value"] and "begin with night" in table


def test_a_tracker() -> None:
    tracker = build_tracker("my_project.trackers:StandStill", margin=2)
    (masks,) = tracker.track_group(np.zeros((3, 20, 20, 3), np.uint8), [BoxPrompt(1, np.array([[5.0, 5, 9, 9]]))])
    assert masks.shape == (3, 20, 20) and masks.all(0).sum() == 81 and masks[0, 3:12, 3:12].all()


def test_a_model_family(tmp_path: Path) -> None:
    """By the model_type of a checkpoint, which transformers has to know too."""
    folder = tmp_path / "checkpoint"
    write_policy(folder)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "model_type": "my_vl"}))
    config_class = type("MyConfig", (Qwen2_5_VLConfig,), {"model_type": "my_vl"})
    model_class = type("MyModel", (Qwen2_5_VLForConditionalGeneration,), {"config_class": config_class})
    AutoConfig.register("my_vl", config_class)
    AutoModelForImageTextToText.register(config_class, model_class)
    family = load_family(folder)
    assert family.image_token == "<image>" and family.flops().per_patch == 0 < family.flops().per_token
    policy = PolicyModel.from_config(family.config)
    group = TokenizedGroup(torch.arange(5), [torch.arange(3)])
    log_probs = policy(pack_groups([group], policy.family)).log_probs
    assert type(policy.family).__name__ == "MyVL" and log_probs.shape == (3,) and bool(log_probs.isfinite().all())


def test_an_advantage_estimator() -> None:
    mask = torch.tensor([[1.0, 1, 0], [1, 1, 1], [1, 0, 0]])
    rewards = torch.tensor([[0.0, 2, 0], [0, 0, 5], [3, 0, 0]])
    index = torch.tensor([0, 0, 0])
    assert "rank" not in ADVANTAGE_ESTIMATORS
    advantages, _ = compute_advantages("my_project.estimators:rank", rewards, mask, {"index": index})
    assert advantages.tolist() == [[-1, -1, 0], [1, 1, 1], [0, 0, 0]]


def test_a_policy_loss() -> None:
    """Through the objective of the update: its gradient is that of CISPO."""
    log_probs = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    old = torch.tensor([-1.0, -1.0, -4.0])
    ids = [torch.tensor([1, 2]), torch.tensor([3])]
    stored = StoredGroup(
        TokenizedGroup(torch.tensor([0]), ids), list(old.split([2, 1])), old_log_probs=list(old.split([2, 1]))
    )
    batch = SimpleNamespace(lengths=(2, 1), split=lambda values: list(values.split([2, 1])))
    scores = SimpleNamespace(log_probs=log_probs, entropy=None)
    path = "my_project.losses:cispo"
    config = ActorConfig(policy_loss=path, use_kl_loss=False, loss_agg_mode="token-mean", clip_ratio=0.2)
    advantages = [[np.array([1.0, 2.0], np.float32), np.array([3.0], np.float32)]]
    assert path not in POLICY_LOSSES and callable(load_by_name(path, POLICY_LOSSES, "policy loss"))
    loss, logged = policy_objective(scores, batch, [stored], advantages, GlobalTokenCounts(3, 2), config, 4)
    loss.backward()
    expected = [-1.0 / 3, -0.8 * 2 / 3, -1.2 * 3 / 3]  # ratios 1, 0.37 and 2.7 are clipped to 1, 0.8 and 1.2
    assert log_probs.grad.tolist() == pytest.approx(expected)
    assert logged["actor/pg_clipfrac"].item() == pytest.approx(2 / 3)


def test_a_logger(tmp_path: Path) -> None:
    config = load_config(
        ["trainer.logger=[my_project.loggers:CsvLogger]", f"trainer.save_checkpoint_path={tmp_path / 'run'}"]
    )
    plan = RunPlan(
        steps=2, updates_per_step=1, passes_per_group={}, checkpoint=None, start_step=0, test_freq=-1, save_freq=-1
    )
    with RunLog(config, plan) as log:
        log.metrics(1, {"reward/mean": 2.5})
        log.metrics(2, {"reward/mean": 3.0})
    assert (tmp_path / "run" / "rewards.csv").read_text().split() == ["1,2.5", "2,3.0"]
