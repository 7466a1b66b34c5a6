"""The options of an evaluation, and how they are read from the command line, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from veason.resolve import nearest
from verl.config import ConfigError

T = TypeVar("T")


@dataclass
class EvaluateConfig:
    """One run of a policy over one benchmark."""

    # the policy's checkpoint folder
    model_path: str = field(default=MISSING, metadata={"published": "reasoning_model_path"})
    data_path: str = MISSING  # the benchmark's root folder
    output_path: str = MISSING  # masks and predictions.jsonl; a run that was stopped is continued there
    benchmark: str = "reasonvos"  # a name of veason.data.BENCHMARKS, or package.module:Class
    split: str | None = None  # null: the benchmark's main one
    limit: int | None = None  # only the first so many samples
    tracker: str = "sam2"  # or package.module:name
    tracker_options: dict[str, Any] = field(default_factory=dict)  # of the tracker
    sam2_config: str = "configs/sam2.1/sam2.1_hiera_l.yaml"  # a YAML file, or one that the sam2 package ships
    sam2_checkpoint: str | None = "${oc.env:SAM2_CHECKPOINT,null}"  # weights of SAM 2; "random" for a test without
    sampled_frames: int = 8  # frames that the policy sees
    keyframe_resize: int = 560  # their side in pixels
    prompt_template: str | None = None  # question with {expression}, as text or as a path to a text file
    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_prompt_length: int = 7100  # tokens; a longer prompt is refused by name
    max_response_length: int = 1024  # tokens
    seed: int = 0
    workers: int | None = None  # processes; null: one per GPU, or one on a machine without
    batch_size: int = 64  # samples that a worker's policy answers at once
    tracker_frames: int = 256  # a video of up to so many frames is encoded once for all its expressions, 16 MB a frame
    gpu_memory_utilization: float = 0.5  # the policy engine's share; the tracker has the rest
    kv_cache_gib: float | None = None  # the engine's cache, fixed where others share the GPU; null: measured
    enforce_eager: bool | None = None  # no CUDA graphs: a small policy starts sooner; null: on the CPU alone
    dtype: str = "auto"  # of the policy: bfloat16 on a GPU, float32 on the CPU
    score: bool = True  # print the table at the end, where the split has truth

    def __post_init__(self) -> None:
        check_limit(self.limit)

    @property
    def all_tracker_options(self) -> dict[str, Any]:
        """`tracker_options` with the published keys of sam2."""
        return {"sam2_config": self.sam2_config, "sam2_checkpoint": self.sam2_checkpoint} | self.tracker_options


def check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit}: at least 1 sample, or null for all")


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


def _pairs(schema: type, arguments: Sequence[str], positional: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(key, value) of every argument."""
    known = {item.name: item.name for item in fields(schema)}
    published = {item.metadata["published"]: item.name for item in fields(schema) if "published" in item.metadata}
    names = known | published
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
            raise ConfigError(f"unknown key {key}{nearest(head, known)}")
        else:
            raise ConfigError(f"cannot parse {argument!r}: write key=value; the keys are {', '.join(known)}")
