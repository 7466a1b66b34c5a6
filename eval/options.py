"""What an evaluation can be told: `key=value` words over these defaults, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl.config import ConfigError, nearest

T = TypeVar("T")


@dataclass
class EvaluateConfig:
    """One run of a policy over one benchmark."""

    model_path: str = MISSING  # the policy's checkpoint folder
    data_path: str = MISSING  # the benchmark's root folder
    output_path: str = MISSING  # masks and predictions.jsonl; a run that was stopped goes on there
    benchmark: str = "reasonvos"  # revos, reasonvos, mevis, vicas, refytvos, refdavis17, or package.module:Class
    split: str | None = None  # null: the benchmark's usual one
    limit: int | None = None  # only the first so many samples
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
    workers: int | None = None  # processes; null: one a GPU, or one on a machine without
    batch_size: int = 64  # samples that a worker's policy is asked about at once
    tracker_frames: int = (
        256  # frames whose features the tracker holds, 16 MB each; expressions about a shorter video share them
    )
    gpu_memory_utilization: float = 0.5  # the policy engine's share; the tracker has the rest
    kv_cache_gib: float | None = (
        None  # the engine's cache, fixed where others share the GPU; null: what its share leaves, measured
    )
    enforce_eager: bool | None = None  # no CUDA graphs: a small policy starts sooner; null: on the CPU alone
    dtype: str = "auto"  # of the policy: bfloat16 on a GPU, float32 on the CPU
    score: bool = True  # print the table at the end, where the split has truth

    def __post_init__(self) -> None:
        check_limit(self.limit)


def check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit}: at least 1 sample, or null for all")


def name_places(schema: type, words: Sequence[str], places: Sequence[str]) -> list[str]:
    """Words for `read_words`: one whose left side is no field is the next of `places`, since a path may hold "="
    (outputs/lr=1e-6).

    Raises:
        ConfigError: more such words than places.
    """
    known = {item.name for item in fields(schema)}
    keyed = [word for word in words if "=" in word and word.lstrip("-").partition("=")[0] in known]
    bare = [word for word in words if word not in keyed]
    if len(bare) > len(places):
        raise ConfigError(
            f"too many words without a key, which are {' and '.join(places)}: {' '.join(bare)}; the keys are "
            f"{', '.join(known)}"
        )
    return [*(f"{key}={value}" for key, value in zip(places, bare)), *keyed]


def read_words(schema: type[T], words: Sequence[str]) -> T:
    """Merge `key=value` words over the defaults of a dataclass.

    Raises:
        ConfigError: an unknown key (the nearest one is named), a wrong type, or a key without which nothing can run.
    """
    known = [item.name for item in fields(schema)]  # type: ignore[arg-type]
    config = OmegaConf.structured(schema)
    for word in words:
        key, equals, value = word.lstrip("-").partition("=")
        if not equals:
            raise ConfigError(f"cannot read {word!r}: write key=value; the keys are {', '.join(known)}")
        if key not in known:
            raise ConfigError(f"unknown key {key}{nearest(key, known)}")
        try:
            OmegaConf.update(
                config, key, None if value in ("null", "None") else value
            )  # the field's type reads the text
        except OmegaConfBaseException as error:
            raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    missing = [key for key in known if OmegaConf.is_missing(config, key)]
    if missing:
        raise ConfigError(f"missing: {' '.join(f'{key}=...' for key in missing)}")
    return OmegaConf.to_object(config)  # type: ignore[return-value]
