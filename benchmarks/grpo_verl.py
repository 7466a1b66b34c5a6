r"""verl's GRPO trainer on the job of `benchmarks.grpo_step`, in a process of its own.

    pip install --target SITE verl==0.9.1 transformers==5.9.0 tensordict==0.10.0 trl==0.27.0 TransferQueue==0.1.11 \
        torchdata==0.11.0 pylatexenc
    python -m benchmarks.grpo_verl --site SITE --steps 1     # verl alone; prints the seconds of its phases

verl 0.9.1 wants older transformers and tensordict than this project, and its package has the name of ours: SITE is a
folder that comes first on the path of its process alone. Made as quick as verl offers on one GPU: FSDP2 over fp32
master weights, vLLM asleep while weights are trained, chunked logits (`use_fused_kernels`), the reference model in
bf16, one update a step. Without FlashAttention 2, which `use_remove_padding` calls, sequences are padded to the longest
of their micro-batch; here that is a word. The reward is a number at no cost. The first step warms up. Further
arguments, key=value, are verl's own.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.grpo_job import POLICY_GIB, TIMESTAMPS, BenchData, GRPOJob, make_job, scratch_folder, write_policy
from veason.command_line import HelpFormatter, parse_arguments
from veason.data.examples import TrainingExample
from verl.single_controller.cluster import NETWORK, network_environment

REQUIREMENTS = (
    "verl==0.9.1",
    "transformers==5.9.0",
    "tensordict==0.10.0",
    "trl==0.27.0",  # verl/models/transformers/monkey_patch.py takes a class from it that newer ones lack
    "TransferQueue==0.1.11",
    "torchdata==0.11.0",
    "pylatexenc",
)
INSTALL = "pip install --target SITE " + " ".join(REQUIREMENTS)
PHASES = ("gen", "old_log_prob", "ref", "adv", "update_actor", "update_weights")  # of verl's timing_s metrics
SEQUENCES = {"update": 8, "log_probs": 16}  # of a micro-batch
PROMPT_TOKENS = 3072  # at most; with 6 frames of 560 x 560 a prompt has about 2,650
END_SECONDS = 20  # for Ray to end its processes
REWARD = '''"""A number at no cost, which differs inside a group."""


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    return float(len(solution_str) % 7)
'''


@dataclass(frozen=True)
class VerlRun:
    """What a run of verl needs.

    Attributes:
        folder: for data, logs and whatever verl writes; policy: checkpoint folder.
        attention: of transformers, for the training passes.
        gpu_memory: the share of the GPU that vLLM may take.
    """

    folder: Path
    policy: Path
    job: GRPOJob
    steps: int
    attention: str
    gpu_memory: float = 0.4


def installed_version(site: Path | None) -> str:
    """verl's version in a site directory; SystemExit says how to get it where there is none."""
    found = [] if site is None else list(importlib.metadata.distributions(name="verl", path=[str(site)]))
    if not found:
        where = "no site directory is named" if site is None else f"there is no verl in {site}"
        raise SystemExit(f"verl: {where}; {INSTALL}, and name SITE")
    return found[0].version


def fastest_attention(site: Path) -> str:
    """The fastest implementation that verl's process can use without FlashAttention 2's removed padding."""
    paths = [str(site), *sys.path]
    found = next(iter(importlib.metadata.distributions(name="flash-attn-4", path=paths)), None)
    return "sdpa" if found is None else "flash_attention_4"


def to_row(example: TrainingExample, index: int, folder: Path, longer: bool) -> dict[str, Any]:
    """A prompt as verl's RLHFDataset reads it, a word `longer`; its images become JPEG files in `folder`."""
    prompt = []
    for turn in example.messages:
        parts = ["<image>" if part["type"] == "image" else part["text"] for part in turn["content"]]
        prompt.append({"role": turn["role"], "content": "".join(parts)})
    if longer:
        prompt[-1]["content"] += " Look."
    images = [str(folder / f"{index}_{number}.jpg") for number in range(len(example.images))]
    for image, file in zip(example.images, images):
        image.save(file, quality=95)
    reward_model = {"style": "rule", "ground_truth": ""}
    row = {"data_source": "noise", "prompt": prompt, "images": images, "reward_model": reward_model}
    return row | {"extra_info": {"index": index}}


def write_inputs(run: VerlRun) -> None:
    """The data, enough for the first step and those that are timed, and the file of the reward.

    The first prompt of a step has a word more: verl 0.9.1 takes mRoPE positions [4, L] of sequences that all have one
    length for ragged along the 4 (verl/utils/tensordict_utils.py, maybe_fix_3d_position_ids), and fails.
    """
    (images := run.folder / "images").mkdir(parents=True, exist_ok=True)
    data = BenchData(run.job.side)
    count = run.job.prompts
    rows = [to_row(data.example(n, 0), n, images, n % count == 0) for n in range(count * (1 + run.steps))]
    (run.folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run.folder / "reward.py").write_text(REWARD)


def verl_options(run: VerlRun) -> dict[str, Any]:
    """verl's configuration of the job, by key (0.9.1, verl/trainer/config/ppo_trainer.yaml)."""
    job, data = run.job, run.folder / "data.jsonl"
    sequences = job.prompts * job.rollouts
    worker = "actor_rollout_ref"
    return {
        "data.train_files": data,
        "data.val_files": data,
        "data.train_batch_size": job.prompts,
        "data.max_prompt_length": PROMPT_TOKENS,
        "data.max_response_length": job.tokens,
        "data.shuffle": False,
        "data.dataloader_num_workers": 2,
        "algorithm.adv_estimator": "grpo",
        f"{worker}.model.path": run.policy,
        f"+{worker}.model.override_config.attn_implementation": run.attention,
        f"{worker}.model.use_remove_padding": False,
        f"{worker}.model.use_fused_kernels": True,
        f"{worker}.model.enable_gradient_checkpointing": True,
        f"{worker}.actor.strategy": "fsdp2",
        f"{worker}.actor.fsdp_config.reshard_after_forward": False,
        f"{worker}.actor.optim.lr": 1e-6,
        f"{worker}.actor.ppo_mini_batch_size": job.prompts,
        f"{worker}.actor.ppo_micro_batch_size_per_gpu": min(SEQUENCES["update"], sequences),
        f"{worker}.actor.use_kl_loss": True,
        f"{worker}.actor.kl_loss_coef": 5e-3,
        f"{worker}.actor.kl_loss_type": "low_var_kl",
        f"{worker}.actor.entropy_coeff": 1e-3,
        f"{worker}.ref.log_prob_micro_batch_size_per_gpu": min(SEQUENCES["log_probs"], sequences),
        f"{worker}.ref.fsdp_config.model_dtype": "bfloat16",
        f"{worker}.rollout.log_prob_micro_batch_size_per_gpu": min(SEQUENCES["log_probs"], sequences),
        f"{worker}.rollout.name": "vllm",
        f"{worker}.rollout.n": job.rollouts,
        f"{worker}.rollout.ignore_eos": True,
        f"{worker}.rollout.tensor_model_parallel_size": 1,
        f"{worker}.rollout.gpu_memory_utilization": run.gpu_memory,
        f"{worker}.rollout.max_model_len": PROMPT_TOKENS + job.tokens,
        f"{worker}.rollout.max_num_seqs": sequences,
        f"+{worker}.rollout.limit_images": len(TIMESTAMPS),
        "reward.custom_reward_function.path": run.folder / "reward.py",
        "reward.num_workers": 1,
        "trainer.n_gpus_per_node": 1,
        "trainer.total_training_steps": 1 + run.steps,
        "trainer.logger": "[console,file]",
        "trainer.val_before_train": False,
        "trainer.resume_mode": "disable",
        "trainer.default_local_dir": run.folder / "checkpoints",
        "ray_kwargs.ray_init.num_cpus": max(32, os.cpu_count() or 1),  # logical: verl starts about 25 actors
        "+ray_kwargs.ray_init.include_dashboard": False,
        "hydra.run.dir": run.folder / "hydra",
    }


def command(run: VerlRun, further: Sequence[str] = ()) -> list[str]:
    """The command line of verl's trainer; `further` overrides, key=value, replace those of the job."""
    options = {key.lstrip("+"): (key, str(value)) for key, value in verl_options(run).items()}
    for override in further:
        key, _, value = override.partition("=")
        name = key.lstrip("+")
        options[name] = (options[name][0] if name in options else key, value)
    return [sys.executable, "-m", "verl.trainer.main_ppo", *(f"{key}={value}" for key, value in options.values())]


def environment(run: VerlRun, site: Path) -> dict[str, str]:
    """Variables of verl's process and of what it starts: its packages first, everything on this host, no network."""
    paths = [str(site), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    found = {
        "PYTHONPATH": os.pathsep.join(paths),
        "VERL_FILE_LOGGER_PATH": str(run.folder / "metrics.jsonl"),
        "HF_HOME": str(run.folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        NETWORK: "0",
    }
    return dict(os.environ) | network_environment("127.0.0.1") | found


def read_steps(file: Path) -> list[dict[str, float]]:
    """The metrics of each step, from the lines of verl's file logger; a line that is being written is left out."""
    if not file.exists():
        return []
    lines = file.read_text().splitlines(keepends=True)
    return [json.loads(line)["data"] for line in lines if line.endswith("\n")]


def mean_seconds(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """{"timing_s/step", "timing_s/<phase>"}: means over the steps that have them."""
    found = {}
    for name in (f"timing_s/{phase}" for phase in ("step", *PHASES)):
        if values := [step[name] for step in steps if name in step]:
            found[name] = sum(values) / len(values)
    return found


def measure(run: VerlRun, site: Path, limit: int, further: Sequence[str] = ()) -> tuple[dict[str, float], str]:
    """Runs verl's trainer in a process of its own and ends it after `limit` seconds.

    Returns:
        Seconds of the timed steps and of their phases, or nothing where none ended; and what was run, or why it failed.
    """
    version = installed_version(site)
    write_inputs(run)
    metrics, log = run.folder / "metrics.jsonl", run.folder / "verl.log"
    metrics.unlink(missing_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            command(run, further),
            stdout=output,
            stderr=output,
            cwd=run.folder,  # not the repository, whose package has the name of verl's
            env=environment(run, site),
            start_new_session=True,
        )
        start, ended = time.time(), False
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            ended = True
            stop(process)
    steps = read_steps(metrics)
    lengths = ", ".join(f"{step['response_length/mean']:.0f}" for step in steps if "response_length/mean" in step)
    took = ", ".join(f"{step['timing_s/step']:.1f} s" for step in steps)
    about = f"verl {version}, attention {run.attention}; steps of {took or '-'}; responses of {lengths or '-'} tokens"
    if ended:
        about += f"; ended after {limit} s"
    elif process.returncode != 0 or len(steps) < 1 + run.steps:
        about += f"; it failed after {time.time() - start:.0f} s:\n{log.read_text()[-6000:]}"
    return mean_seconds(steps[1:]), about


def stop(process: subprocess.Popen[Any]) -> None:
    """Ends a process and its group: Ray ends its own in good time, else they are killed."""
    for end in (signal.SIGTERM, signal.SIGKILL):
        os.killpg(process.pid, end)
        try:
            process.wait(END_SECONDS)
            return
        except subprocess.TimeoutExpired:
            continue


def print_phases(metrics: Mapping[str, float], job: GRPOJob) -> None:
    print(f"\nverl, {job.prompts} prompts x {job.rollouts} responses of {job.tokens} tokens\n| phase | seconds |")
    print("| --- | ---: |")
    for name, value in metrics.items():
        print(f"| {name.removeprefix('timing_s/')} | {value:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--site", type=Path, required=True, help="site directory that holds verl")
    parser.add_argument("--size", default="3b", choices=POLICY_GIB, help="of the policy")
    parser.add_argument("--prompts", type=int, help="of a step; default: the job's")
    parser.add_argument("--steps", type=int, default=1, help="timed, after one that warms up")
    parser.add_argument("--seconds", type=int, default=400, help="after which verl's process is ended")
    parser.add_argument("--attention", help="of transformers; default: the fastest that is installed")
    parser.add_argument("--log", type=Path, help="file that gets verl's output")
    parser.add_argument("overrides", nargs="*", help="key=value, of verl's configuration")
    args = parse_arguments(parser)
    installed_version(args.site)
    job = make_job(args.size)
    job = replace(job, prompts=args.prompts or job.prompts)
    with scratch_folder(job.size) as name:
        write_policy(policy := Path(name) / "policy", job.size)
        attention = args.attention or fastest_attention(args.site)
        run = VerlRun(Path(name) / "verl", policy, job, args.steps, attention)
        metrics, about = measure(run, args.site, args.seconds, args.overrides)
        if args.log and (run.folder / "verl.log").exists():
            shutil.copy(run.folder / "verl.log", args.log)
    print(about)
    print_phases(metrics, job)
    sys.exit(not metrics)


if __name__ == "__main__":
    main()
