"""The published launcher: its flags and variables become words of eval.evaluate."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAME = "multi_gpu_eval_keyframe_sft_mod_reason_vos.sh"


def launch(tmp_path, *words, script=NAME, **variables):
    """Run the launcher with a Python that prints what it is given."""
    echo = tmp_path / "python"
    echo.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"; echo "gpus $CUDA_VISIBLE_DEVICES"\n')
    echo.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(echo), **variables}
    return subprocess.run(
        ["bash", ROOT / script, *words], env=environment, capture_output=True, text=True, cwd=tmp_path
    )


@pytest.mark.parametrize("script", [NAME, f"eval/{NAME}"])
def test_flags(tmp_path, script):
    flags = ["--reasoning_model_path", "a model", "--data_path=ReasonVOS", "--output_path", "out", "temperature=0.7"]
    done = launch(tmp_path, *flags, script=script, GPU_IDS="0 3", SAM2_CHECKPOINT="sam2.pt", SPLIT_NUM="2")
    assert done.returncode == 0, done.stderr
    words = [
        "-m",
        "eval.evaluate",
        "benchmark=reasonvos",
        "model_path=a model",
        "data_path=ReasonVOS",
        "output_path=out",
    ]
    assert done.stdout.splitlines() == [*words, "sam2_checkpoint=sam2.pt", "temperature=0.7", "gpus 0,3"]
    assert "SPLIT_NUM have no effect" in done.stderr


def test_variables_in_place_of_flags(tmp_path):
    done = launch(tmp_path, REASONING_MODEL_PATH="m", DATA_PATH="d", OUTPUT_PATH="o")
    assert "model_path=m" in done.stdout and done.returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--data_path", "d"],
            "missing: --reasoning_model_path (or REASONING_MODEL_PATH) --output_path (or OUTPUT_PATH)",
        ),
        (["--data_path"], "--data_path needs a value"),
        (["--model", "m"], "unknown argument --model"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, words, message):
    done = launch(tmp_path, *words)
    assert done.returncode == 2 and message in done.stderr
