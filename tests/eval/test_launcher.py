"""The published launcher: its flags and variables become arguments of eval.evaluate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eval.evaluation_options import EvaluateConfig, parse_overrides
from tests.official_folders import FOLDERS

ROOT = Path(__file__).parents[2]
NAME = "multi_gpu_eval_keyframe_sft_mod_reason_vos.sh"


def launch(tmp_path, *arguments, script=NAME, **variables):
    """Run the launcher with a Python that prints what it is given; returns the process and the parsed options."""
    echo = tmp_path / "python"
    echo.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"; echo "gpus $CUDA_VISIBLE_DEVICES"\n')
    echo.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(echo), **variables}
    done = subprocess.run(
        ["bash", ROOT / script, *arguments], env=environment, capture_output=True, text=True, cwd=tmp_path, check=True
    )
    module, name, *given, _ = done.stdout.splitlines()
    assert (module, name) == ("-m", "eval.evaluate")
    return done, parse_overrides(EvaluateConfig, given)


@pytest.mark.parametrize("script", [NAME, f"eval/{NAME}"])
def test_flags(tmp_path, script):
    flags = ["--reasoning_model_path", "a model", "--data_path=ReasonVOS", "--output_path", "out", "temperature=0.7"]
    done, config = launch(tmp_path, *flags, script=script, GPU_IDS="0 3", SAM2_CONFIG="sam2.yaml", SPLIT_NUM="2")
    assert (config.model_path, config.data_path, config.output_path) == ("a model", "ReasonVOS", "out")
    assert (config.benchmark, config.sam2_config, config.temperature) == ("reasonvos", "sam2.yaml", 0.7)
    assert done.stdout.splitlines()[-1] == "gpus 0,3" and "SPLIT_NUM have no effect" in done.stderr


def test_variables_in_place_of_flags(tmp_path):
    _, config = launch(tmp_path, REASONING_MODEL_PATH="a model", DATA_PATH="d", OUTPUT_PATH="o")
    assert (config.model_path, config.data_path, config.output_path) == ("a model", "d", "o")


@pytest.mark.timeout(600)
def test_the_published_command_on_the_official_folder(tmp_path):
    """On a machine without a GPU, with the shipped policy and tracker; nothing else is given."""
    FOLDERS["reasonvos"][0](tmp_path / "ReasonVOS")
    tracker = {
        "SAM2_CONFIG": "weights/toy_tracker/sam2_tiny.yaml",
        "SAM2_CHECKPOINT": "weights/toy_tracker/sam2_tiny.safetensors",
    }
    words = ["--reasoning_model_path", "weights/toy_policy", "--data_path", tmp_path / "ReasonVOS"]
    done = subprocess.run(
        ["bash", NAME, *words, "--output_path", tmp_path / "out"],
        env=os.environ | tracker | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (
        "| this run |" in done.stdout and "(paper)" not in done.stdout
    )  # a few expressions are not the official split
    assert len(json.loads((tmp_path / "out" / "metrics.json").read_text())["samples"]) == 4
