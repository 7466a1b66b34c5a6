"""Trains a policy by GRPO.

    python3 -m verl.trainer.main config=configs/toy/demo.yaml trainer.max_steps=3
    python3 -m verl.trainer.main config=configs/grpo_3b_one_gpu.yaml worker.actor.model.model_path=...

Torch, Ray and the task are imported where they are used, so that a wrong key is refused in a second.
"""

from __future__ import annotations

import ast
import importlib.util
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl.config import Config, ConfigError, help_text, load_config, override, read_key_groups, wants_help
from verl.trainer.build_task import (
    build_task,
    check_data,
    check_frame_size,
    check_reward,
    checkpoint_settings,
    use_checkpoint_coordinate_range,
    use_checkpoint_prompt_template,
    use_points_prompt_template,
)
from verl.trainer.restarts import EXIT_WORKERS_DIED, RESTARTS_HANDLED, run_with_restarts

if TYPE_CHECKING:
    from verl.protocol import Task
    from verl.trainer.prompt_data import PromptData
    from verl.trainer.training_loop import TrainingLoop

SWITCHES = """\
config=FILE    a YAML file, over which the other key=value are merged
--plan         show the configuration, steps, tokens, memory, time and disk, and exit
--help         this list
"""
PLAN = "--plan"
PLAN_LIKE = re.compile(r"-*(plan|dry[-_]?run)(=.*)?")  # what else is typed for it


def train(config: Config) -> None:
    """Runs GRPO as configured."""
    from verl.trainer.grpo import GRPO

    run_loop(config, GRPO, {"vllm": "rollout"} | check_reward(config))


def run_loop(
    config: Config,
    loop: type[TrainingLoop],
    packages: Mapping[str, str],
    needs_rollout: bool = True,
    val_ratio: float = 0.0,
) -> None:
    """Checks the machine, opens the data, starts the workers, runs the loop; messages of libraries go to files.

    Args:
        packages: import name of what must be installed -> what needs it.
        needs_rollout: whether the workers generate and score.
        val_ratio: share of the training data kept for validation where there is no validation data.
    """
    from verl.process_output import driver_log_path, redirect_library_messages

    with redirect_library_messages(driver_log_path(config.trainer.save_checkpoint_path or "")):
        _run_loop(config, loop, packages, needs_rollout, val_ratio)


def _run_loop(
    config: Config, loop: type[TrainingLoop], packages: Mapping[str, str], needs_rollout: bool, val_ratio: float
) -> None:
    from verl.models.hub_download import MODEL_PATH_KEY, TOKENIZER_PATH_KEY
    from verl.trainer.machine_checks import resolve_on_machine
    from verl.trainer.prompt_data import check_validation, open_prompts
    from verl.trainer.run_lock import RunLock

    check_data(config)
    given = config.worker.actor.model  # with a hub name, which each host looks up in its own cache
    config = use_points_prompt_template(resolve_on_machine(config, packages), loop.is_supervised)
    config = use_checkpoint_coordinate_range(use_checkpoint_prompt_template(config), may_change=loop.is_supervised)
    check_frame_size(config)
    task = replace(
        build_task(config, needs_rollout),
        checkpoint_files={"veason.json": checkpoint_settings(config, loop.is_supervised)},
    )
    prompts = open_prompts(config, task, val_ratio, loop.is_supervised)
    check_validation(config, prompts)
    for line in getattr(prompts.lengths.data, "startup_messages", ()):
        print(line, flush=True)
    names = {MODEL_PATH_KEY: given.model_path, TOKENIZER_PATH_KEY: given.tokenizer_path}
    with RunLock(config.trainer.save_checkpoint_path or ""):
        _run_steps(config, loop, task, prompts, names)


def _run_steps(
    config: Config, loop: type[TrainingLoop], task: Task, prompts: PromptData, names: Mapping[str, str | None]
) -> None:
    """Plans and runs the steps.

    Args:
        names: of model and tokenizer as they were given, a key each; the workers look them up on their own hosts.
    """
    from verl.trainer.run_log import RunLog
    from verl.trainer.run_plan import make_run_plan
    from verl.trainer.stop_signals import StopSignals
    from verl.workers.ray_backend import RayBackend

    plan = make_run_plan(config, len(prompts.sampler))
    config = override(config, {"worker.actor.optim.training_steps": plan.updates})
    # where prompts differ between episodes, those of the whole run are counted
    counted = plan.steps * config.data.rollout_batch_size if prompts.lengths.depends_on_seed else 0
    longest = prompts.lengths.longest(prompts.sampler.preview(max(len(prompts.sampler), counted)))
    prompts.val_lengths.longest(prompts.validation)
    shown = f"{len(prompts.sampler)} prompts of up to {longest} tokens, {len(prompts.validation)} for validation"
    print(f"{shown}; {plan.steps} steps, {plan.start_step} of them done", flush=True)

    there = override(config, names)
    with (
        StopSignals() as stop,
        RunLog(config, plan, loop.__name__) as run_log,
        RayBackend(there, task, run_log.show_progress) as backend,
    ):
        run_log.begin(backend.device_name, len(backend.workers))
        loop(config, plan, backend, prompts, run_log).fit(stop)
    print(f"checkpoints and metrics.jsonl: {run_log.folder}", flush=True)
    if run_log.skipped_samples:
        print(
            f"{len(run_log.skipped_samples)} bad samples were skipped, see {run_log.folder / 'skipped.txt'}", flush=True
        )


def print_plan(config: Config, sources: Mapping[str, str], program: str, expected: tuple[type[Exception], ...]) -> int:
    """Prints what the program would do, without starting it; returns the exit status of `show_plan`.

    Args:
        sources: see `load_config`.
        expected: errors of what is missing on this machine.

    Raises:
        ConfigError: the data, the rule or the tracker is unknown, or does not take an option.
    """
    from grpo_reward.rules import find_rule
    from veason.registry import load_by_name
    from veason.tracking import TRACKERS
    from verl.config.derived_values import sft_config
    from verl.trainer.machine_checks import check_packages, resolve_device, resolve_model
    from verl.trainer.show_plan import PlanInputs, has_config, show_plan

    fine_tuning = program == "verl.trainer.sft"
    config = sft_config(config) if fine_tuning else config
    check_data(config)
    needs_rollout, reward = not fine_tuning or config.sft.val_generations > 0, config.worker.reward
    checks: list[Callable[[Config], Any]] = [
        resolve_device,
        partial(resolve_model, download=False),
        lambda config: check_frame_size(config) if has_config(config) else None,
    ]
    if needs_rollout:
        find_rule(reward.compute_score, **reward.options).with_weights(reward.weights)
        load_by_name(reward.tracker, TRACKERS, "worker.reward.tracker")
        checks += [lambda _: check_packages({"vllm": "rollout"}), lambda config: check_packages(check_reward(config))]
    val_ratio = config.sft.val_ratio if fine_tuning else 0.0
    if Path(config.worker.actor.model.model_path or "").is_dir():
        # its wording decides the length of prompts
        config = use_checkpoint_prompt_template(use_points_prompt_template(config, fine_tuning))
    task = build_task(config, needs_rollout)
    return show_plan(
        PlanInputs(program, config, task, checks, needs_rollout, val_ratio, fine_tuning, expected), sources
    )


def run(overrides: Sequence[str], program: str) -> int:
    """Loads the configuration and calls `train(config)` of the module `program`; returns the exit status.

    What a person can correct ends in one line on stderr; anything else is a defect and shows its traceback.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if wants_help(overrides):
        print(help_text(_description(program), read_key_groups(Config), overrides, SWITCHES))
        return 0
    prepare_environment()
    sources: dict[str, str] = {}
    if wrong := [word for word in overrides if word != PLAN and PLAN_LIKE.fullmatch(word)]:
        return _refuse(ConfigError(f"unknown option {wrong[0]}; did you mean {PLAN}? It takes no value"))
    try:
        config = load_config([word for word in overrides if word != PLAN], sources)
    except ConfigError as error:
        return _refuse(error)
    if config.trainer.max_restarts > 0 and RESTARTS_HANDLED not in os.environ:
        return run_with_restarts([sys.executable, "-m", program, *overrides], config.trainer.max_restarts)
    from veason.errors import DataError
    from verl.errors import TrainingError
    from verl.single_controller import ClusterError, WorkerError
    from verl.trainer.checkpoint_folders import CheckpointError
    from verl.trainer.data_sampler import DataMismatchError
    from verl.trainer.prompt_lengths import PromptTooLong, ResponseTooLong
    from verl.trainer.stop_signals import StoppedBySignal

    # what a person can correct
    expected: tuple[type[Exception], ...] = ConfigError, CheckpointError, DataError, ClusterError
    expected += DataMismatchError, PromptTooLong, ResponseTooLong, TrainingError
    try:
        if PLAN in overrides:
            return print_plan(config, sources, program, expected)
        importlib.import_module(program).train(config)
    except WorkerError as error:
        _refuse(error)
        if not error.died:
            return 1
        resume = "trainer.resume_mode=auto"
        again = shlex.join(overrides if resume in overrides else [*overrides, resume])
        print(f"resume by: python -m {program} {again}", file=sys.stderr)
        return EXIT_WORKERS_DIED
    except expected as error:
        return _refuse(error)
    except StoppedBySignal as stop:
        print(stop, file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("SIGINT: ended before the first step", file=sys.stderr)
        return 130
    return 0


def _description(program: str) -> str:
    """The docstring of a module that is not imported for it."""
    spec = importlib.util.find_spec(program)
    assert spec is not None and spec.origin is not None
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""


def _refuse(error: Exception) -> int:
    print(getattr(error, "trace", ""), end="", file=sys.stderr)  # of a worker's defect, over the line that names it
    print(f"error: {error}", file=sys.stderr)
    return 1


def prepare_environment() -> None:
    """Drops a variable that the published commands export; workers inherit it."""
    if os.environ.get("VLLM_ATTENTION_BACKEND") == "XFORMERS":
        del os.environ["VLLM_ATTENTION_BACKEND"]
        why = "this vLLM has no xFormers backend and chooses one itself"
        print(f"VLLM_ATTENTION_BACKEND=XFORMERS is dropped: {why}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], "verl.trainer.main"))  # by its name: workers must find what they unpickle
