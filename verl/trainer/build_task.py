"""The composition root: here, and only here, `verl` meets the task, its data, reward and model settings.

`data.name` and `worker.reward.compute_score` pick the task's parts by name or as package.module:name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from verl.config import Config, ConfigError, OptionError, override

if TYPE_CHECKING:
    from verl.protocol import Scorer, Task


def build_task(config: Config, needs_rollout: bool = True) -> Task:
    """Picks the data and the score that the configuration names.

    Args:
        needs_rollout: whether the workers generate and score.
    """
    from veason.data.training import build_training_data
    from verl.protocol import Task

    options = asdict(config.data)
    validation = {**options, "train_files": config.data.val_files, "meta_file": config.data.val_meta_file, "mix": {}}
    return Task(
        data=partial(build_training_data, **options),
        validation=partial(build_training_data, **validation) if config.data.val_files else None,
        scorer=partial(_make_scorer, _scorer_options(config)) if needs_rollout else None,
        draw_pictures=_draw_rollouts if needs_rollout else None,
    )


def _scorer_options(config: Config) -> dict[str, Any]:
    """worker.reward without the key that the worker reads itself."""
    options = asdict(config.worker.reward)
    del options["on_scorer_error"]
    return options


def _make_scorer(options: dict[str, Any], device: str) -> Scorer:
    from grpo_reward.scorer import build_scorer

    return build_scorer(**options, device=device)


def _draw_rollouts(scorer: Any, example: Any, responses: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    from grpo_reward.draw_rollouts import draw_rollouts

    return draw_rollouts(scorer, example, responses)


def check_reward(config: Config) -> dict[str, str]:
    """Checks worker.reward before anything is loaded; returns the packages that it needs, and for what.

    Raises:
        ConfigError: no such rule or tracker, or files of the tracker that are not named or not there. OptionError: an
            option that the tracker does not take.
    """
    from grpo_reward.scorer import check_reward
    from veason import errors

    try:
        return check_reward(**_scorer_options(config))
    except errors.OptionError as error:
        raise OptionError(str(error)) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error


def check_data(config: Config) -> None:
    """Checks the names and options of data and validation data; no file is looked for.

    Raises:
        OptionError: there is no such data, or it does not take an option.
    """
    from veason.data.training import check_training_options
    from veason.errors import DataError

    try:
        check_training_options(**asdict(config.data))
    except DataError as error:
        raise OptionError(str(error)) from error


def check_frame_size(config: Config) -> None:
    """Raises ConfigError for frames of a side that the policy cannot take."""
    from veason.model_info import read_model_info

    side = config.data.keyframe_resize
    multiple = read_model_info(config.worker.actor.model.model_path or "").pixel_multiple
    if side % multiple:
        near = max(multiple, round(side / multiple) * multiple)
        unit = f"{multiple}, the side of the policy's visual tokens in pixels"
        raise ConfigError(f"data.keyframe_resize={side} is not a multiple of {unit}; nearest: {near}")


def use_checkpoint_prompt_template(config: Config) -> Config:
    """A copy that asks in the wording of the checkpoint's veason.json where data.prompt_template is not set; says in
    one line what else differs from it.
    """
    from veason.inference_settings import read_settings
    from veason.prompts import load_template

    data, settings = config.data, read_settings(config.worker.actor.model.model_path or "")
    if settings is None:
        return config
    template = None if data.prompt_template is None else load_template(data.prompt_template)
    if not data.reasoning:  # the ablation asks in a wording of its own
        template = template or load_template(None, reasoning=False)
    given = {
        "prompt_template": template,
        "keyframe_resize": data.keyframe_resize,
        "timestamp_mode": data.timestamp_mode,
    }
    for line in settings.differences(**given):
        print(f"data.{line}", flush=True)
    return override(config, {"data.prompt_template": settings.prompt_template}) if template is None else config


def use_points_prompt_template(config: Config, fine_tuning: bool) -> Config:
    """A copy that asks for points where the rule reads them and `data.prompt_template` is not set.

    Args:
        fine_tuning: targets are learned, whose answers give boxes; no rule decides.

    Raises:
        ConfigError: the checkpoint answers in another format than the rule or the targets, or without reasoning.
    """
    from veason.answer_parsers import POINTS
    from veason.inference_settings import read_settings
    from veason.prompts import POINTS_TEMPLATE

    data, path = config.data, config.worker.actor.model.model_path or ""
    if data.prompt_template is not None:
        return config
    settings = read_settings(path)
    answers = settings is not None and settings.answer_parser == POINTS
    wanted = _reads_points(config, fine_tuning)
    if answers and not wanted:
        what = (
            "the targets give boxes" if fine_tuning else "worker.reward.compute_score reads boxes (veason_points not)"
        )
        raise ConfigError(f"{path}/veason.json: the checkpoint answers with points; {what}: set data.prompt_template")
    if not wanted or answers:
        return config
    if not data.reasoning:
        raise ConfigError("data.reasoning=false: answers with points have reasoning; set data.prompt_template")
    return override(config, {"data.prompt_template": POINTS_TEMPLATE})


def _reads_points(config: Config, fine_tuning: bool) -> bool:
    from grpo_reward.rules import find_rule
    from veason.answer_parsers import POINTS

    reward = config.worker.reward
    return not fine_tuning and find_rule(reward.compute_score, **reward.options).answer_parser == POINTS


def use_checkpoint_coordinate_range(config: Config, may_change: bool) -> Config:
    """A copy whose `data.coordinate_range` is the checkpoint's where it is not set.

    Args:
        may_change: whether a training may give boxes in another range than the one before it; fine-tuning may.

    Raises:
        ConfigError: it is set, and an earlier training has taught the checkpoint another one.
    """
    from veason.model_info import read_model_info

    path, given = config.worker.actor.model.model_path or "", config.data.coordinate_range
    info = read_model_info(path)
    if given is None:
        return override(config, {"data.coordinate_range": info.coordinate_range})
    if info.trained and not may_change and given != (info.coordinate_range or config.data.keyframe_resize):
        own = "pixels of the frames" if info.coordinate_range is None else f"the range 0 to {info.coordinate_range}"
        raise ConfigError(
            f"data.coordinate_range={given}, but {path}/veason.json says that its boxes are in {own}; leave it out"
        )
    return config


def checkpoint_settings(config: Config, fine_tuning: bool = False) -> dict[str, Any]:
    """The content of veason.json for the checkpoints of this run."""
    from veason.answer_parsers import POINTS
    from veason.inference_settings import read_settings, settings_of_training
    from veason.prompts import load_template

    path, reward = config.worker.actor.model.model_path or "", config.worker.reward
    data, tracker = config.data, {"name": reward.tracker, **reward.tracker_options}
    return settings_of_training(
        read_settings(path),
        load_template(data.prompt_template, data.reasoning),
        data.keyframe_resize,
        data.timestamp_mode,
        data.coordinate_range,
        tracker,
        POINTS if _reads_points(config, fine_tuning) else None,
    ).to_json()
