"""The options of an evaluation, and how they are read from the command line, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from veason.answer_parsers import ANSWER_PARSERS
from veason.checkpoints import resolve_model
from veason.data.selection import ON_MISSING
from veason.frames import TIMESTAMP_MODES, check_frame_tokens
from veason.inference_settings import complete_settings
from veason.model_info import read_model_info
from veason.registry import suggest
from veason.tracking import takes_text
from verl.config import ConfigError, help_text, read_key_groups, wants_help

T = TypeVar("T")
SWITCHES = "--help    this list"

MIN_BATCH = 4  # samples; a policy is hardly faster at one than at four
CHECKPOINT_SETTINGS = (
    "sampled_frames",
    "keyframe_resize",
    "timestamp_mode",
    "repetition_penalty",
    "answer_parser",
    "prompt_template",
)


@dataclass
class EvaluateConfig:
    """One run of a policy over one benchmark."""

    # -- what is evaluated
    # the policy's checkpoint: a folder, or a name on the Hugging Face hub; none where the tracker takes text
    model_path: str | None = field(default=None, metadata={"alias": "reasoning_model_path"})
    data_path: str = MISSING  # the benchmark's root folder
    output_path: str = MISSING  # masks and predictions.jsonl; a run that was stopped is continued there
    benchmark: str = "reasonvos"  # a name of veason.data.BENCHMARKS, or package.module:Class
    split: str | None = None  # null: the benchmark's main one
    limit: int | None = None  # only the first so many samples
    exclude: str | None = None  # text file of samples or videos to leave out, as `veason audit` writes it
    on_missing: str = "fail"  # samples that are missing or cannot be used: fail, or skip (left out, named and counted)
    settings: str | None = None  # a veason.json; null: the one beside the checkpoint, if there is one
    # -- tracker
    tracker: str = "sam2"  # or sam3, transformers, package.module:name; sam3_text needs no policy
    tracker_options: dict[str, Any] = field(default_factory=dict)  # of the tracker
    sam2_config: str = "configs/sam2.1/sam2.1_hiera_l.yaml"  # a YAML file, or one that the sam2 package ships
    sam2_checkpoint: str | None = "${oc.env:SAM2_CHECKPOINT,null}"  # weights of SAM 2; "random" for a test without
    # -- prompt and answer
    # The next six: null takes them from veason.json, or else 8, 560, our wording, absolute, 1.0 and strict
    sampled_frames: int | None = None  # evenly spaced frames of a video that the policy sees
    keyframe_resize: int | None = None  # image resolution: their height and width in pixels
    prompt_template: str | None = None  # question with {expression}, as text or as a path to a text file
    # absolute: a frame's timestamp is its index in the video; relative: its position in the prompt
    timestamp_mode: str | None = field(default=None, metadata={"alias": "frame_index"})
    repetition_penalty: float | None = None  # above 1: tokens that were written before become less likely
    answer_parser: str | None = None  # strict; published, as the published evaluation; points
    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0  # nucleus sampling; 1 is off
    max_prompt_length: int = 7100  # tokens; a longer prompt is refused by name
    max_response_length: int = 1024  # tokens
    seed: int = 0  # of sampling
    # -- execution
    workers: int | None = None  # processes; null: one per GPU, or one on a machine without
    batch_size: int = 64  # samples that a worker's policy answers at once
    max_cached_frames: int = 256  # a video of up to as many is encoded once for all its expressions, 16 MB a frame
    gpu_memory_utilization: float = 0.5  # the policy engine's share; the tracker has the rest
    kv_cache_gib: float | None = None  # the engine's cache, fixed where others share the GPU; null: measured
    enforce_eager: bool | None = None  # no CUDA graphs: a small policy starts sooner; null: on the CPU alone
    dtype: str = "auto"  # of the policy: bfloat16 on a GPU, float32 on the CPU
    # print the table of metrics at the end, where the split has ground truth
    compute_metrics: bool = field(default=True, metadata={"alias": "score"})
    idx: int | None = None  # of the published script; without effect: all workers share one queue of samples
    num_parts: int | None = None  # as idx

    def __post_init__(self) -> None:
        check_limit(self.limit)
        check_choice("on_missing", self.on_missing, ON_MISSING)
        for key, valid in (("answer_parser", ANSWER_PARSERS), ("timestamp_mode", TIMESTAMP_MODES)):
            if (value := getattr(self, key)) is not None:
                check_choice(key, value, valid)

    @property
    def all_tracker_options(self) -> dict[str, Any]:
        """`tracker_options` with the published keys of sam2."""
        return {"sam2_config": self.sam2_config, "sam2_checkpoint": self.sam2_checkpoint} | self.tracker_options


def drop_policy_options(config: EvaluateConfig) -> tuple[EvaluateConfig, list[str]]:
    """The options for a tracker that takes text: there is no policy, and nothing of one is read or recorded."""
    lines = []
    if config.model_path is not None:
        lines.append(f"model_path has no effect: tracker={config.tracker} is given the expressions, without a policy")
    unused: dict[str, Any] = dict.fromkeys(("model_path", "settings", *CHECKPOINT_SETTINGS))
    return replace(config, **unused), lines


def apply_checkpoint_settings(config: EvaluateConfig, download: bool = True) -> tuple[EvaluateConfig, list[str]]:
    """The options with the checkpoint's folder and its settings (`veason.json`) in place of what is not given.

    Returns:
        The options, and lines for the person who gave them: what differs from the settings, and what has no effect.

    Raises:
        ConfigError: there is no model_path, and the tracker needs a policy.
        DataError: no such tracker, no checkpoint, or settings that cannot be read.
    """
    if takes_text(config.tracker):
        return drop_policy_options(config)
    if config.model_path is None:
        raise ConfigError("missing: model_path=...")
    folder = resolve_model(config.model_path, download=download)
    given = {key: getattr(config, key) for key in CHECKPOINT_SETTINGS}
    used, lines = complete_settings(given, config.settings or folder)
    if config.idx is not None or config.num_parts is not None:
        lines.append("idx and num_parts have no effect: all workers of a run share one queue of samples")
    if config.batch_size < MIN_BATCH:
        lines.append(f"batch_size={config.batch_size} changes no answer, it is only slower than 64 samples at once")
    return replace(config, **{key: getattr(used, key) for key in CHECKPOINT_SETTINGS}), lines


def check_frames(config: EvaluateConfig, longest: int) -> None:
    """Refuse more frames than a prompt can hold; `longest` is the number of frames of the longest video."""
    if config.model_path and config.sampled_frames is not None and config.keyframe_resize is not None:
        multiple, shown = read_model_info(config.model_path).pixel_multiple, min(config.sampled_frames, longest)
        check_frame_tokens(shown, config.keyframe_resize, multiple, config.max_prompt_length)


def check_choice(key: str, value: str, valid: Iterable[str]) -> None:
    """Raises a ConfigError that lists what `key` can be."""
    if value not in (valid := list(valid)):
        raise ConfigError(f"{key}={value}{suggest(value, valid)}")


def check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit}: at least 1 sample, or null for all")


def print_help_if_asked(
    schema: type, description: str | None, arguments: Sequence[str], switches: str = SWITCHES
) -> bool:
    """Print what --help asks for, if it does; returns whether it did."""
    if not wants_help(arguments):
        return False
    print(help_text(description or "", read_key_groups(schema, title="keys"), arguments, switches))
    return True


def parse_overrides(schema: type[T], arguments: Sequence[str], positional: Sequence[str] = ()) -> T:
    """Merge command-line arguments over the defaults of a dataclass.

    Args:
        arguments: `key=value`, `--key value` or `--key=value`; a key of a dictionary is `field.key=value`.
        positional: fields that arguments without a key fill in order; a path may hold "=" (outputs/lr=1e-6).

    Raises:
        ConfigError: an unknown key (the nearest one is named), a wrong type, or a key without which nothing can run.
    """
    config = OmegaConf.structured(schema)
    for key, value in _pairs(schema, arguments, positional):
        try:
            if "." in key:  # an untyped entry of a dictionary, read as YAML
                config.merge_with(OmegaConf.from_dotlist([f"{key}={value}"]))
            else:  # the field's type parses the text
                OmegaConf.update(config, key, None if value in ("null", "None") else value)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    missing = [item.name for item in fields(schema) if OmegaConf.is_missing(config, item.name)]  # type: ignore[arg-type]
    if missing:
        raise ConfigError(f"missing: {' '.join(f'{key}=...' for key in missing)}")
    return OmegaConf.to_object(config)  # type: ignore[return-value]


def given_keys(schema: type, arguments: Sequence[str]) -> set[str]:
    """The fields that a command line sets."""
    return {key.partition(".")[0] for key, _ in _pairs(schema, arguments, ())}


def _pairs(schema: type, arguments: Sequence[str], positional: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(key, value) of every argument."""
    known = {item.name: item.name for item in fields(schema)}
    aliases = {item.metadata["alias"]: item.name for item in fields(schema) if "alias" in item.metadata}
    names = known | aliases
    remaining, unnamed = iter(arguments), iter(positional)
    for argument in remaining:
        flag = argument.startswith("--")
        key, equals, value = argument.removeprefix("--").partition("=")
        head, dot, rest = key.partition(".")
        if head in names and (flag or equals):
            if not equals and (value := next(remaining, "")) == "":
                raise ConfigError(f"{argument} needs a value")
            yield names[head] + dot + rest, value
        elif not flag and (name := next(unnamed, None)):
            yield name, argument
        elif flag or equals:
            raise ConfigError(f"unknown key {key}{suggest(head, known)}")
        else:
            raise ConfigError(f"cannot parse {argument!r}: write key=value; the keys are {', '.join(known)}")
