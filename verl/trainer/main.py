"""Trains a policy by GRPO. The composition root: here, and only here, the engine meets the task.

    python3 -m verl.trainer.main config=configs/toy/demo.yaml trainer.max_steps=3
    python3 -m verl.trainer.main config=configs/grpo_3b_one_gpu.yaml worker.actor.model.model_path=...

`data.name` and `worker.reward.compute_score` pick the task's parts by name or as package.module:name. Torch, Ray and
the task are imported where they are used, so that a wrong key is refused in a second.
"""

from __future__ import annotations

import importlib
import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from verl.config import Config, ConfigError, load_config, override
from verl.trainer.restarts import DIED, SUPERVISED, supervise

if TYPE_CHECKING:
    from verl.protocol import Scorer, Task
    from verl.trainer.loop import Loop
    from verl.trainer.prompt_data import Prompts


def compose(config: Config, generates: bool = True) -> Task:
    """Picks the data and the score that the configuration names.

    Args:
        generates: whether the workers generate and score.
    """
    from veason.data.training import build_training_data
    from verl.protocol import Task

    options = asdict(config.data)
    validation = {**options, "train_files": config.data.val_files, "meta_file": config.data.val_meta_file}
    return Task(
        data=partial(build_training_data, **options),
        validation=partial(build_training_data, **validation) if config.data.val_files else None,
        scorer=partial(_make_scorer, _scorer_options(config)) if generates else None,
        draw=_draw_rollouts if generates else None,
    )


def _scorer_options(config: Config) -> dict[str, Any]:
    """worker.reward without the key that the engine reads itself."""
    options = asdict(config.worker.reward)
    del options["on_scorer_error"]
    return options


def _make_scorer(options: dict[str, Any], device: str) -> Scorer:
    from grpo_reward.scorer import build_scorer

    return build_scorer(**options, device=device)


def _draw_rollouts(scorer: Any, example: Any, responses: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    from grpo_reward.pictures import draw_rollouts

    return draw_rollouts(scorer, example, responses)


def check_reward(config: Config) -> dict[str, str]:
    """Checks worker.reward before anything is loaded; returns the packages that it needs, and for what.

    Raises:
        ConfigError: no such rule or tracker, or files of the tracker that are not named or not there.
    """
    from grpo_reward.scorer import check_reward

    try:
        return check_reward(**_scorer_options(config))
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


def train(config: Config) -> None:
    """Runs GRPO as configured."""
    from verl.trainer.grpo import GRPO

    run_loop(config, GRPO, compose(config), {"vllm": "rollout"} | check_reward(config))


def run_loop(config: Config, loop: type[Loop], task: Task, packages: Mapping[str, str], held_out: float = 0.0) -> None:
    """Checks the machine, opens the data, starts the workers, runs the loop; messages of libraries go to files.

    Args:
        packages: import name of what must be installed -> what needs it.
        held_out: share of the training data kept for validation where there is no validation data.
    """
    from verl.process_output import driver_log, library_messages_to

    with library_messages_to(driver_log(config.trainer.save_checkpoint_path or "")):
        _run_loop(config, loop, task, packages, held_out)


def _run_loop(config: Config, loop: type[Loop], task: Task, packages: Mapping[str, str], held_out: float) -> None:
    from verl.trainer.machine import resolve_on_machine
    from verl.trainer.prompt_data import check_validation, open_prompts
    from verl.trainer.run_folder import RunFolder

    config = resolve_on_machine(config, packages)
    check_frames(config)
    prompts = open_prompts(config, task, held_out, loop.trains_on_targets)
    check_validation(config, prompts)
    with RunFolder(config.trainer.save_checkpoint_path or ""):
        _run_steps(config, loop, task, prompts)


def _run_steps(config: Config, loop: type[Loop], task: Task, prompts: Prompts) -> None:
    from verl.trainer.plan import make_plan
    from verl.trainer.run_log import RunLog
    from verl.trainer.stop import StopSignals
    from verl.workers.engine import RayEngine

    plan = make_plan(config, len(prompts.order))
    config = override(config, {"worker.actor.optim.training_steps": plan.updates})
    # where prompts differ between episodes, those of the whole run are counted
    counted = plan.steps * config.data.rollout_batch_size if prompts.lengths.seeded else 0
    longest = prompts.lengths.check(prompts.order.preview(max(len(prompts.order), counted)))
    prompts.val_lengths.check(prompts.validation)
    shown = f"{len(prompts.order)} prompts of up to {longest} tokens, {len(prompts.validation)} for validation"
    print(f"{shown}; {plan.steps} steps, {plan.start} of them done", flush=True)

    with (
        StopSignals() as stop,
        RunLog(config, plan, loop.__name__) as run_log,
        RayEngine(config, task, run_log.stages) as engine,
    ):
        run_log.begin(engine.device_name, len(engine.workers))
        loop(config, plan, engine, prompts, run_log).fit(stop)
    print(f"checkpoints and metrics.jsonl: {run_log.folder}", flush=True)
    if run_log.skipped:
        print(f"{len(run_log.skipped)} bad samples were skipped, see {run_log.folder / 'skipped.txt'}", flush=True)


def run(overrides: Sequence[str], program: str) -> int:
    """Loads the configuration and calls `train(config)` of the module `program`; returns the exit status.

    What a person can correct ends in one line on stderr; anything else is a defect and shows its traceback.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    prepare_environment()
    try:
        config = load_config(overrides)
    except ConfigError as error:
        return _refuse(error)
    if config.trainer.max_restarts > 0 and SUPERVISED not in os.environ:
        return supervise([sys.executable, "-m", program, *overrides], config.trainer.max_restarts)
    from veason.errors import DataError
    from verl.errors import TrainingError
    from verl.single_controller import ClusterError, WorkerError
    from verl.trainer.data_order import OrderChanged
    from verl.trainer.prompt_lengths import PromptTooLong, ResponseTooLong
    from verl.trainer.saved import CheckpointError
    from verl.trainer.stop import Stopped

    expected = (
        ConfigError,
        CheckpointError,
        DataError,
        ClusterError,
        OrderChanged,
        PromptTooLong,
        ResponseTooLong,
        TrainingError,
    )
    try:
        importlib.import_module(program).train(config)
    except WorkerError as error:
        _refuse(error)
        if not error.died:
            return 1
        resume = "trainer.resume=auto"
        again = shlex.join(overrides if resume in overrides else [*overrides, resume])
        print(f"resume by: python -m {program} {again}", file=sys.stderr)
        return DIED
    except expected as error:
        return _refuse(error)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("SIGINT: ended before the first step", file=sys.stderr)
        return 130
    return 0


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
