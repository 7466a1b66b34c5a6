"""The prompts of a run: what is trained on, in which order, and what is validated with."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from verl.config import Config, ConfigError
from verl.models.families import load_family
from verl.protocol import GroupRequest, Task, TrainingData, missing_methods
from verl.trainer.data_sampler import DataSampler, train_val_split, validation_requests
from verl.trainer.prompt_lengths import PromptLengths
from verl.workers.prompt_builder import PromptBuilder

log = logging.getLogger(__name__)


@dataclass
class PromptData:
    """The prompts of a run.

    Attributes:
        sampler: draws the training prompts.
        lengths: their tokens, for balancing.
        validation: the prompts of a validation; empty: there is none.
        val_lengths: their tokens.
    """

    sampler: DataSampler
    lengths: PromptLengths
    validation: list[GroupRequest]
    val_lengths: PromptLengths


def open_prompts(config: Config, task: Task, val_ratio: float = 0.0, is_supervised: bool = False) -> PromptData:
    """Opens the data on the driver.

    Args:
        val_ratio: share of the training data kept for validation where there is no validation data.
        is_supervised: the data's own responses are trained on; none may be too long.

    Raises:
        ConfigError: what `data.name` names is no data set. ResponseTooLong.
    """
    options, model = config.data, config.worker.actor.model
    data = _checked(task.data(), options.name)
    family = load_family(model.model_path, **model.override_config)
    bounds = options.min_pixels, options.max_pixels
    builder = PromptBuilder(model.tokenizer_path or model.model_path or "", *bounds, family=family)
    lengths = PromptLengths(data, builder.length, options.max_prompt_length)
    if is_supervised:
        limit = options.max_response_length
        lengths.check_responses(range(len(data)), lambda text: len(builder.response_ids(text)), limit)
    names = [data.sample_id(index) for index in range(len(data))]
    trained, validated = train_val_split(names, 0.0 if task.validation else val_ratio, options.seed)
    val_lengths = lengths
    if task.validation is not None:
        validation = _checked(task.validation(), options.name)
        validated = list(range(len(validation)))
        val_lengths = PromptLengths(validation, builder.length, options.max_prompt_length)
    return PromptData(
        sampler=DataSampler(trained, options.seed, options.shuffle),
        lengths=lengths,
        validation=validation_requests(validated, options.seed, options.val_max_samples),
        val_lengths=val_lengths,
    )


def _checked(data: TrainingData, name: str) -> TrainingData:
    if missing := missing_methods(data):
        kind = type(data).__name__
        lacking = f"data.name={name} gives a {kind}, which has no {', '.join(missing)}"
        raise ConfigError(f"{lacking}: a data set has the methods of verl.protocol.TrainingData")
    return data


def check_validation(config: Config, prompts: PromptData) -> None:
    """Raises ConfigError where a validation is asked for and there is nothing to validate with."""
    trainer = config.trainer
    if prompts.validation:
        return
    for key in ("val_only", "val_before_train"):
        if getattr(trainer, key):
            same = "data.val_files=${data.train_files} with data.val_meta_file"
            raise ConfigError(f"trainer.{key}=true needs data.val_files (or {same})")
    if trainer.test_freq > 0:
        log.warning("trainer.test_freq=%d has no effect: data.val_files is not set", trainer.test_freq)
