"""End to end on the CPU with every real part: Ray, vLLM with a tiny policy, SAM 2's classes with a tiny tracker."""

import json
import os

import numpy as np
import pytest
import ray

from eval import evaluate
from eval.evaluation_folder import read_run
from eval.evaluation_options import EvaluateConfig
from eval.evaluation_worker import EvaluationWorker
from veason.answers import format_answer
from veason.errors import DataError
from veason.inference.segmenter import Segmenter
from veason.toy import tiny_policy, tiny_tracker
from veason.toy.world import make_world
from veason.tracking.sam2.tracker import Sam2Tracker


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_policy.write_policy(folder / "policy")
    tiny_tracker.write_tracker(folder / "tracker")
    return folder / "policy", folder / "tracker" / "sam2_tiny.yaml", folder / "tracker" / "sam2_tiny.pt"


@pytest.fixture(scope="module")
def local_ray(tmp_path_factory):
    paths = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    environment = {"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}}
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        _temp_dir=tmp_path_factory.mktemp("r").as_posix()[:60],
        runtime_env=environment,
    )
    yield
    ray.shutdown()


@pytest.mark.usefixtures("local_ray")
def test_one_command_from_64_frames_to_the_table(tmp_path, checkpoints, capsys):
    policy, tracker, weights = checkpoints
    make_world(tmp_path / "world", train_videos=1, valid_videos=1, reasonvos_videos=1, frames=70)
    words = {
        "benchmark": "revos",
        "data_path": tmp_path / "world" / "ReVOS",
        "output_path": tmp_path / "run",
        "model_path": policy,
    }
    words |= {
        "sam2_config": tracker,
        "sam2_checkpoint": weights,
        "max_response_length": 16,
        "keyframe_resize": 112,
        "limit": 3,
        "workers": 1,
        "sampled_frames": 64,
    }
    line = [f"{key}={value}" for key, value in words.items()]
    assert evaluate.main([*line, "max_prompt_length=1024"]) == 2
    assert "64 frames of 112 x 112 pixels are 1024 tokens, before any text" in capsys.readouterr().err
    line.append("max_prompt_length=2048")
    assert evaluate.main(line) == 0
    printed = capsys.readouterr().out
    assert "empty masks: 3 no_answer" in printed  # its weights are random
    assert "| this run |" in printed and "3 expressions, no prediction is missing" in printed
    header, records = read_run(tmp_path / "run")
    assert all(len(record.shown) == len(set(record.shown)) == 64 < record.frames for record in records)
    assert len(records) == header["samples"] == 3 and header["split"] == "valid"
    assert {"temperature", "seed", "prompt", "model_sha256", "sam2_sha256", "versions"} <= set(header)
    assert len(json.loads((tmp_path / "run" / "metrics.json").read_text())["samples"]) == 3
    assert evaluate.main([*line, "temperature=0.5"]) == 2  # not the run that lies there
    assert evaluate.main(line) == 0  # nothing left to do
    assert "3 done before" in capsys.readouterr().out


class OneAnswer:
    def generate(self, questions):
        return [
            format_answer("", 3 + number, [[50, 100, 300, 400], [10, 10, 60, 60]]) for number, _ in enumerate(questions)
        ]


def test_real_tracker_gives_every_frame_once(toy_world, tmp_path, checkpoints):
    """Short videos share their features, long ones are streamed: the same masks."""
    policy, tracker, weights = checkpoints
    masks = {}
    for frames in (64, 2):
        config = EvaluateConfig(str(policy), str(toy_world / "ReasonVOS"), str(tmp_path / str(frames)))
        segmenter = Segmenter(OneAnswer(), Sam2Tracker.from_files(tracker, weights, "cpu", max_frames=frames))
        worker = EvaluationWorker(config, 0, segmenter)
        worker.run(range(2))
        masks[frames] = {
            path.relative_to(tmp_path / str(frames)): path.read_bytes()
            for path in tmp_path.glob(f"{frames}/Annotations/**/*.png")
        }
        assert len(masks[frames]) == sum(len(sample.frames) for sample in worker.benchmark.samples[:2])
    assert masks[64].keys() == masks[2].keys()
    assert (
        np.mean([masks[64][name] == masks[2][name] for name in masks[2]]) > 0.9
    )  # fp32 sums in another order may flip a pixel


def test_what_is_missing_is_said_before_anything_is_loaded(toy_world, tmp_path, checkpoints):
    config = EvaluateConfig("nowhere", str(toy_world / "ReasonVOS"), str(tmp_path / "run"))
    with pytest.raises(DataError, match=r"no checkpoint at nowhere: .*Qwen2.5-VL-3B-Instruct"):
        evaluate.evaluate(config)
    config = EvaluateConfig(
        str(checkpoints[0]), str(toy_world / "ReasonVOS"), str(tmp_path / "run"), sam2_checkpoint="nowhere.pt"
    )
    with pytest.raises(DataError, match=r"sam2_checkpoint=nowhere\.pt is no file"):
        evaluate.evaluate(config)
    with pytest.raises(DataError, match=r"sam2_checkpoint is not set"):
        evaluate.evaluate(
            EvaluateConfig(
                str(checkpoints[0]), str(toy_world / "ReasonVOS"), str(tmp_path / "run"), sam2_checkpoint=None
            )
        )
    assert not (tmp_path / "run").exists()
