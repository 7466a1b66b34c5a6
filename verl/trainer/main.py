"""Trains a policy by GRPO. The composition root: here, and only here, the engine meets the task.

    python3 -m verl.trainer.main config=configs/toy/demo.yaml trainer.max_steps=3
    python3 -m verl.trainer.main config=configs/video_seg_zero_3b_keyframe_sam_sft_mod.yaml worker.actor.model.model_path=...

`data.name` and `worker.reward.compute_score` pick the task's parts by name or as package.module:name. Torch, Ray and
the task are imported where they are used, so that a wrong key is refused in a second.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from verl.config import Config, ConfigError, load_config

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from verl.protocol import Scorer, TrainingData
    from verl.trainer.loop import Loop, Prompts

# Otherwise each worker writes pages at its start; exported before the run, these keep what they are set to.
QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}
SAM2 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_large.pt"


@dataclass(frozen=True)
class Task:
    """The task's parts as picklable factories: driver and workers each make their own.

    Attributes:
        data: opens the training data.
        validation: opens the validation data; None where there is none.
        scorer: makes the scorer on a device.
    """

    data: Callable[[], TrainingData]
    validation: Callable[[], TrainingData] | None
    scorer: Callable[[str], Scorer]


def compose(config: Config) -> Task:
    """Picks the data and the score that the configuration names."""
    from veason.data.training import build_training_data

    options = asdict(config.data)
    validation = {**options, "train_files": config.data.val_files, "meta_file": config.data.val_meta_file}
    return Task(
        data=partial(build_training_data, **options),
        validation=partial(build_training_data, **validation) if config.data.val_files else None,
        scorer=partial(_make_scorer, asdict(config.worker.reward)),
    )


def _make_scorer(options: dict[str, Any], device: str) -> Scorer:
    from grpo_reward.scorer import build_scorer

    return build_scorer(**options, device=device)


def train(config: Config) -> None:
    """Runs GRPO as configured."""
    from verl.trainer.grpo import GRPO

    run_loop(config, GRPO, compose(config), {"vllm": "rollout"} | check_reward(config))


def check_reward(config: Config) -> dict[str, str]:
    """Finds the rule and what it tracks with, before anything is loaded; gives the packages that it needs.

    Raises:
        ConfigError: no such rule, or SAM 2's files are not named or not there.
    """
    from grpo_reward.rules import find_rule
    from veason.tracking.sam2.loading import RANDOM

    reward = config.worker.reward
    try:
        rule = find_rule(reward.compute_score, **reward.options)
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error
    if rule.boxes is None:
        return {}
    need = f"worker.reward.compute_score={reward.compute_score} tracks masks"
    if not reward.sam2_config:
        raise ConfigError(f"worker.reward.sam2_config is not set, and {need}")
    if not reward.sam2_checkpoint:
        raise ConfigError(
            f"worker.reward.sam2_checkpoint is not set, and {need}: download weights from {SAM2} and add "
            f"worker.reward.sam2_checkpoint=... to the command ({RANDOM} tracks with random weights, for a test)"
        )
    if reward.sam2_checkpoint != RANDOM and not os.path.isfile(reward.sam2_checkpoint):
        raise ConfigError(
            f"no SAM 2 weights at worker.reward.sam2_checkpoint={reward.sam2_checkpoint}, and {need}: download them "
            f"from {SAM2}"
        )
    return {"sam2": need}


def run_loop(
    config: Config, loop: type[Loop], task: Task, packages: dict[str, str], rollouts: bool = True, held_out: float = 0.0
) -> None:
    """Checks the machine, opens the data, starts the workers, runs the loop.

    Args:
        packages: import name of what must be installed -> what needs it.
        rollouts: whether the workers generate and score.
        held_out: share of the training data kept for validation where there is no validation data.
    """
    from verl.trainer.plan import check_machine, make_plan
    from verl.trainer.run_log import RunLog
    from verl.workers.engine import RayEngine

    check_machine(config, packages)
    prompts = open_prompts(config, task, held_out, loop.learns_responses)
    check_validation(config, prompts)
    plan = make_plan(config, len(prompts.order))
    asked = (
        plan.steps * config.data.rollout_batch_size if prompts.lengths.seeded else 0
    )  # else the first episode has them all
    longest = prompts.lengths.check(prompts.order.preview(max(len(prompts.order), asked)))
    prompts.val_lengths.check(prompts.validation)
    shown = f"{len(prompts.order)} prompts of up to {longest} tokens, {len(prompts.validation)} for validation"
    print(f"{shown}; {plan.steps} steps, {plan.start} of them done", flush=True)

    trainer = config.trainer
    with (
        RunLog(
            trainer.save_checkpoint_path or "", trainer.logger, trainer.project_name, trainer.experiment_name, plan
        ) as run_log,
        RayEngine(config, task.data, task.scorer if rollouts else None, task.validation) as engine,
    ):
        loop(config, plan, engine, prompts, run_log).fit()
    print(f"checkpoints and metrics.jsonl: {trainer.save_checkpoint_path}", flush=True)
    if run_log.left_out:
        print(f"{len(run_log.left_out)} bad samples were skipped, see {run_log.folder / 'skipped.txt'}", flush=True)


def check_validation(config: Config, prompts: Prompts) -> None:
    """Refuses a validation that is asked for where there is nothing to validate with.

    Raises:
        ConfigError
    """
    trainer = config.trainer
    if prompts.validation:
        return
    for key in ("val_only", "val_before_train"):
        if getattr(trainer, key):
            raise ConfigError(
                f"trainer.{key}=true needs data.val_files (or data.val_files=${{data.train_files}} with "
                "data.val_meta_file)"
            )
    if trainer.test_freq > 0:
        log.warning("trainer.test_freq=%d has no effect: data.val_files is not set", trainer.test_freq)


def open_prompts(config: Config, task: Task, held_out: float = 0.0, responses: bool = False) -> Prompts:
    """The order of the training prompts, and the validation prompts; with `responses`, none of the data's own is too
    long.
    """
    from verl.trainer.data_order import DataOrder, split, validation_requests
    from verl.trainer.loop import Prompts
    from verl.trainer.prompt_lengths import PromptLengths
    from verl.workers.prompts import PromptBuilder

    options, data = config.data, task.data()
    model = config.worker.actor.model
    builder = PromptBuilder(model.tokenizer_path or "", options.min_pixels, options.max_pixels)
    lengths = PromptLengths(data, builder.length, options.max_prompt_length)
    if responses:
        lengths.check_responses(
            range(len(data)), lambda text: len(builder.response_ids(text)), options.max_response_length
        )
    if task.validation is not None:
        validation_data = task.validation()
        trained, validated = list(range(len(data))), list(range(len(validation_data)))
        val_lengths = PromptLengths(validation_data, builder.length, options.max_prompt_length)
    else:
        trained, validated = split(len(data), held_out, options.seed)
        val_lengths = lengths
    return Prompts(
        order=DataOrder(trained, options.seed, options.shuffle),
        lengths=lengths,
        validation=validation_requests(validated, options.seed, options.val_max_samples),
        val_lengths=val_lengths,
    )


def run(words: Sequence[str], program: str) -> int:
    """Loads the configuration and calls `train(config)` of the module `program`; gives the exit status.

    What a person can mend ends in one line on stderr; anything else is a defect and shows its traceback.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    prepare_environment()
    try:
        config = load_config(words)
    except ConfigError as error:
        return _refuse(error)
    from veason.errors import DataError
    from verl.single_controller import WorkerError
    from verl.trainer.checkpoint import CheckpointError
    from verl.trainer.data_order import OrderChanged
    from verl.trainer.prompt_lengths import PromptTooLong, ResponseTooLong

    try:
        importlib.import_module(program).train(config)
    except (
        ConfigError,
        CheckpointError,
        DataError,
        OrderChanged,
        PromptTooLong,
        ResponseTooLong,
        WorkerError,
    ) as error:
        return _refuse(error)
    return 0


def _refuse(error: Exception) -> int:
    print(getattr(error, "trace", ""), end="", file=sys.stderr)  # of a worker's defect, over the line that names it
    print(f"error: {error}", file=sys.stderr)
    return 1


def prepare_environment() -> None:
    """Drops a variable that the published commands export, and quietens what is loaded; workers inherit it."""
    if os.environ.get("VLLM_ATTENTION_BACKEND") == "XFORMERS":
        del os.environ["VLLM_ATTENTION_BACKEND"]
        print(
            "VLLM_ATTENTION_BACKEND=XFORMERS is dropped: this vLLM has no xFormers backend and chooses one itself",
            file=sys.stderr,
        )
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], "verl.trainer.main"))  # by its name: workers must find what they unpickle
