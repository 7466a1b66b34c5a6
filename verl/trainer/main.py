"""Trains a policy by GRPO. The composition root: here, and only here, the engine meets the task.

    python3 -m verl.trainer.main config=configs/toy/demo.yaml trainer.max_steps=3
    python3 -m verl.trainer.main config=configs/grpo_3b_one_gpu.yaml worker.actor.model.model_path=...

`data.name` and `worker.reward.compute_score` pick the task's parts by name or as package.module:name. Torch, Ray and
the task are imported where they are used, so that a wrong key is refused in a second.
"""

from __future__ import annotations

import ast
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl.config import Config, ConfigError, help_text, load_config, override, read_groups, wants_help

if TYPE_CHECKING:
    from verl.protocol import Scorer, Task
    from verl.trainer.loop import Loop

# Otherwise each worker writes pages at its start; exported before the run, these keep what they are set to.
SWITCHES = """\
config=FILE    a YAML file, over which the other key=value are merged
--plan         show the configuration, steps, tokens, memory, time and disk, and exit
--help         this list
"""
PLAN = "--plan"
QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}


def compose(config: Config, generates: bool = True) -> Task:
    """Picks the data and the score that the configuration names.

    Args:
        generates: whether the workers generate and score.
    """
    from veason.data.training import build_training_data
    from verl.protocol import Task

    options = asdict(config.data)
    validation = {**options, "train_files": config.data.val_files, "meta_file": config.data.val_meta_file, "mix": {}}
    return Task(
        data=partial(build_training_data, **options),
        validation=partial(build_training_data, **validation) if config.data.val_files else None,
        scorer=partial(_make_scorer, asdict(config.worker.reward)) if generates else None,
    )


def _make_scorer(options: dict[str, Any], device: str) -> Scorer:
    from grpo_reward.scorer import build_scorer

    return build_scorer(**options, device=device)


def check_reward(config: Config) -> dict[str, str]:
    """Checks worker.reward before anything is loaded; returns the packages that it needs, and for what.

    Raises:
        ConfigError: no such rule or tracker, or files of the tracker that are not named or not there.
    """
    from grpo_reward.scorer import check_reward

    try:
        return check_reward(**asdict(config.worker.reward))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def check_frames(config: Config) -> None:
    """Raises ConfigError for frames of a side that the policy cannot take."""
    from veason.model_info import read_model_info

    side = config.data.keyframe_resize
    multiple = read_model_info(config.worker.actor.model.model_path or "").pixel_multiple
    if side % multiple:
        near = max(multiple, round(side / multiple) * multiple)
        unit = f"{multiple}, the side of the policy's visual tokens in pixels"
        raise ConfigError(f"data.keyframe_resize={side} is not a multiple of {unit}; nearest: {near}")


def adopt_settings(config: Config) -> Config:
    """A copy that asks in the wording of the checkpoint's veason.json where data.prompt_template is not set; says in
    one line what else differs from it.
    """
    from veason.prompts import load_template
    from veason.settings import read_settings

    data, settings = config.data, read_settings(config.worker.actor.model.model_path or "")
    if settings is None:
        return config
    template = None if data.prompt_template is None else load_template(data.prompt_template)
    if not data.reasoning:  # the ablation asks in a wording of its own
        template = template or load_template(None, reasoning=False)
    given = {"prompt_template": template, "keyframe_resize": data.keyframe_resize, "frame_index": data.frame_index}
    for line in settings.differences(**given):
        print(f"data.{line}", flush=True)
    return override(config, {"data.prompt_template": settings.prompt_template}) if template is None else config


def settings_to_write(config: Config) -> dict[str, Any]:
    """The content of veason.json for the checkpoints of this run."""
    from veason.model_info import read_model_info
    from veason.prompts import load_template
    from veason.settings import read_settings, settings_of_training

    path, reward = config.worker.actor.model.model_path or "", config.worker.reward
    data, tracker = config.data, {"name": reward.tracker, **reward.tracker_options}
    return settings_of_training(
        read_settings(path),
        load_template(data.prompt_template, data.reasoning),
        data.keyframe_resize,
        data.frame_index,
        read_model_info(path).box_side,
        tracker,
    ).to_json()


def train(config: Config) -> None:
    """Runs GRPO as configured."""
    from verl.trainer.grpo import GRPO

    run_loop(config, GRPO, {"vllm": "rollout"} | check_reward(config))


def run_loop(
    config: Config, loop: type[Loop], packages: Mapping[str, str], generates: bool = True, held_out: float = 0.0
) -> None:
    """Checks the machine, opens the data, starts the workers, runs the loop.

    Args:
        packages: import name of what must be installed -> what needs it.
        generates: whether the workers generate and score.
        held_out: share of the training data kept for validation where there is no validation data.
    """
    from verl.models.hub import MODEL_PATH, TOKENIZER_PATH
    from verl.trainer.machine import resolve_on_machine
    from verl.trainer.plan import make_plan
    from verl.trainer.prompt_data import check_validation, open_prompts
    from verl.trainer.run_log import RunLog
    from verl.workers.engine import RayEngine

    given = config.worker.actor.model  # with a hub name, which each host looks up in its own cache
    config = adopt_settings(resolve_on_machine(config, packages))
    check_frames(config)
    task = replace(compose(config, generates), checkpoint_files={"veason.json": settings_to_write(config)})
    prompts = open_prompts(config, task, held_out, loop.trains_on_targets)
    check_validation(config, prompts)
    for line in getattr(prompts.lengths.data, "notes", ()):
        print(line, flush=True)
    plan = make_plan(config, len(prompts.order))
    config = override(config, {"worker.actor.optim.training_steps": plan.updates})
    # where prompts differ between episodes, those of the whole run are counted
    counted = plan.steps * config.data.rollout_batch_size if prompts.lengths.seeded else 0
    longest = prompts.lengths.check(prompts.order.preview(max(len(prompts.order), counted)))
    prompts.val_lengths.check(prompts.validation)
    shown = f"{len(prompts.order)} prompts of up to {longest} tokens, {len(prompts.validation)} for validation"
    print(f"{shown}; {plan.steps} steps, {plan.start} of them done", flush=True)

    names = {MODEL_PATH: given.model_path, TOKENIZER_PATH: given.tokenizer_path}
    with RunLog(config, plan) as run_log, RayEngine(override(config, names), task) as engine:
        loop(config, plan, engine, prompts, run_log).fit()
    print(f"checkpoints and metrics.jsonl: {run_log.folder}", flush=True)
    if run_log.skipped:
        print(f"{len(run_log.skipped)} bad samples were skipped, see {run_log.folder / 'skipped.txt'}", flush=True)


def plan(config: Config, sources: Mapping[str, str], program: str, expected: tuple[type[Exception], ...]) -> int:
    """Prints what the program would do, without starting it; returns the exit status of `show_plan`.

    Args:
        sources: see `load_config`.
        expected: errors of what is missing on this machine.

    Raises:
        ConfigError: the rule or the tracker is unknown.
    """
    from grpo_reward.rules import find_rule
    from veason.resolve import resolve
    from veason.tracking import TRACKERS
    from verl.config.derive import fine_tuning_config
    from verl.trainer.machine import check_packages, resolve_device, resolve_model
    from verl.trainer.show_plan import Program, has_config, show_plan

    fine_tuning = program == "verl.trainer.sft"
    config = fine_tuning_config(config) if fine_tuning else config
    generates, reward = not fine_tuning or config.sft.generate > 0, config.worker.reward
    checks: list[Callable[[Config], Any]] = [
        resolve_device,
        partial(resolve_model, download=False),
        lambda config: check_frames(config) if has_config(config) else None,
    ]
    if generates:
        find_rule(reward.compute_score, **reward.options).with_weights(reward.weights)
        resolve(reward.tracker, TRACKERS, "worker.reward.tracker")
        checks += [lambda _: check_packages({"vllm": "rollout"}), lambda config: check_packages(check_reward(config))]
    held_out = config.sft.val_ratio if fine_tuning else 0.0
    if Path(config.worker.actor.model.model_path or "").is_dir():
        config = adopt_settings(config)  # its wording decides the length of prompts
    task = compose(config, generates)
    return show_plan(Program(program, config, task, checks, generates, held_out, fine_tuning, expected), sources)


def run(overrides: Sequence[str], program: str) -> int:
    """Loads the configuration and calls `train(config)` of the module `program`; returns the exit status.

    What a person can correct ends in one line on stderr; anything else is a defect and shows its traceback.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if wants_help(overrides):
        print(help_text(_description(program), read_groups(Config), overrides, SWITCHES))
        return 0
    prepare_environment()
    sources: dict[str, str] = {}
    try:
        config = load_config([word for word in overrides if word != PLAN], sources)
    except ConfigError as error:
        return _refuse(error)
    from veason.errors import DataError
    from verl.single_controller import WorkerError
    from verl.trainer.checkpoint import CheckpointError
    from verl.trainer.data_order import OrderChanged
    from verl.trainer.prompt_lengths import PromptTooLong, ResponseTooLong

    expected = ConfigError, CheckpointError, DataError, OrderChanged, PromptTooLong, ResponseTooLong, WorkerError
    try:
        if PLAN in overrides:
            return plan(config, sources, program, expected)
        importlib.import_module(program).train(config)
    except expected as error:
        return _refuse(error)
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
    """Drops a variable that the published commands export, and quietens what is loaded; workers inherit it."""
    if os.environ.get("VLLM_ATTENTION_BACKEND") == "XFORMERS":
        del os.environ["VLLM_ATTENTION_BACKEND"]
        why = "this vLLM has no xFormers backend and chooses one itself"
        print(f"VLLM_ATTENTION_BACKEND=XFORMERS is dropped: {why}", file=sys.stderr)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], "verl.trainer.main"))  # by its name: workers must find what they unpickle
