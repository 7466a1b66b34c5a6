"""A run's folder with a checkpoint, and an evaluation of it."""

import json
import shutil
from pathlib import Path

import pytest

from veason.files import folder_hash

ROOT = Path(__file__).parents[3]
TOY = ROOT / "weights" / "toy_policy"
CONFIG = {
    "data": {"name": "revos", "rollout_batch_size": 16, "train_files": "/home/somebody/ReVOS"},
    "worker": {
        "actor": {"optim": {"lr": 1e-6}, "use_kl_loss": True, "model": {"model_path": "Qwen/Qwen2.5-VL-3B-Instruct"}},
        "rollout": {"n": 8},
        "reward": {"compute_score": "video_match_keyframe_sft_sam_mod"},
    },
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one checkpoint: the toy policy's files, and those of a training beside them."""
    step = tmp_path / "run" / "global_step_40"
    weights = step / "actor" / "huggingface"
    shutil.copytree(TOY, weights)
    (step / "actor" / "rank_0.pt").write_bytes(b"optimizer")
    (step / "trainer.json").write_text(json.dumps({"step": 40, "config": CONFIG}))
    (tmp_path / "run" / "huggingface").symlink_to(Path("global_step_40", "actor", "huggingface"))
    return tmp_path / "run"


@pytest.fixture
def evaluation(tmp_path: Path, run: Path) -> Path:
    """The scored output of an evaluation of the run's weights."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    header = {
        "split": "valid",
        "sampled_frames": 8,
        "keyframe_resize": 560,
        "temperature": 0.0,
        "tracker": "sam2",
        "model_sha256": folder_hash(run / "huggingface"),
        "versions": {"vllm": "0.32.0"},
    }
    (folder / "predictions.jsonl").write_text(json.dumps({"header": header}) + "\n")
    table = {"Overall J&F": {"value": 61.26, "low": 60.0, "high": 62.0}, "R": {"value": None}}
    content = {"benchmark": "revos", "split": None, "table": table, "samples": [{}, {}, {}]}
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder
