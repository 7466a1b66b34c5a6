"""The one configuration: a YAML file and `key=value` words, merged over typed defaults and checked before any model is
loaded.

    config = load_config(["config=configs/toy/demo.yaml", "trainer.max_steps=3"])

A file may start from another (`base: other.yaml`, beside it). Paths come from words or from variables
(`${oc.env:REVOS_ROOT}`). Everything that is wrong with a configuration ends in a ConfigError of one line, which names
the key and what to write instead.
"""

from __future__ import annotations

import fnmatch
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl.config.checks import check_config
from verl.config.schema import FREE_FORM, Config, ConfigError, nearest

log = logging.getLogger(__name__)

# Keys of the published YAML and command lines, and of the EasyR1 releases it grew from, that no longer decide anything.
NO_EFFECT = {
    "data.prompt_key": "a data set builds its own prompt",
    "data.answer_key": "a data set keeps its own truth",
    "data.image_key": "a data set finds its own images",
    "data.other_train_files": "name a data set of your own in data.name",
    "data.reference_image_resize": "boxes and masks are at data.keyframe_resize",
    "data.sam2_mode": "worker.reward.compute_score decides how SAM 2 is used",
    "data.sam3_mode": "worker.reward.compute_score decides how SAM 2 is used",
    "data.return_raw_*": "prompts are built on the worker that needs them",
    "data.system_prompt*": "use data.prompt_template",
    "data.use_text_prompt": "use data.prompt_template",
    "data.gpus_to_use": "CUDA_VISIBLE_DEVICES decides",
    "algorithm.lam": "there is no critic",
    "algorithm.kl_penalty": "the KL term is in the loss: worker.actor.kl_loss_type",
    "algorithm.kl_type": "the KL term is in the loss with a fixed coefficient",
    "algorithm.kl_horizon": "the KL term is in the loss with a fixed coefficient",
    "algorithm.kl_target": "the KL term is in the loss with a fixed coefficient",
    "worker.hybrid_engine": "actor and rollout always share a worker",
    "worker.critic": "there is no critic",
    "worker.critic.*": "there is no critic",
    "worker.*.strategy": "sharding is FSDP2",
    "worker.*.padding_free": "nothing is padded",
    "worker.*.ulysses_sequence_parallel_size": "a group is one sequence on one GPU",
    "worker.*.fsdp.enable_cpu_offload": "use param_offload",
    "worker.*.fsdp.enable_rank0_init": "every rank reads its own shard",
    "worker.*.fsdp.use_orig_params": "FSDP2 always keeps the parameters",
    "worker.*.fsdp.mp_buffer_dtype": "buffers keep their dtype",
    "worker.ref.micro_batch_size_per_device_for_experience": "the actor's decides",
    "worker.rollout.name": "the engine is vLLM",
    "worker.rollout.load_format": "weights are handed over in memory",
    "worker.rollout.free_cache_engine": "worker.rollout.sleep decides",
    "worker.rollout.disable_log_stats": "the run's own metrics show them",
    "worker.rollout.disable_tqdm": "the run shows one bar of its own",
    "worker.rollout.do_sample": "temperature decides",
    "worker.rollout.limit_images": "the data set decides",
    "worker.rollout.val_override_config": "use worker.rollout.val_temperature and val_n",
    "worker.rollout.trust_remote_code": "worker.actor.model.trust_remote_code decides",
    "trainer.critic_warmup": "there is no critic",
    "trainer.del_local_ckpt_after_load": "a checkpoint that was loaded is kept",
}


def load_config(words: Sequence[str]) -> Config:
    """Merges `config=file.yaml` and `key=value` words over the defaults; later words win, and blank ones are ignored.

    Raises:
        ConfigError: an unreadable file, an unknown key, a wrong type, a variable that is not set, or an impossible
            combination.
    """
    overrides = [_split(word) for word in words if word.strip()]  # a comment after a line's `\` makes bash pass a blank
    files = [value for key, value in overrides if key == "config"]
    if len(files) > 1:
        raise ConfigError(f"config= is given {len(files)} times: {', '.join(files)}; name one file")
    layers = [("", _read_yaml(Path(name))) for name in files]
    layers += [(f"{key}={value}", _nest(key, value)) for key, value in overrides if key != "config"]
    schema = OmegaConf.structured(Config)
    known = sorted(_paths(schema))
    merged = schema
    for word, layer in layers:
        _drop_no_effect(layer, known)
        merged = _merge(merged, layer, known, word)
    return check_config(_resolve(merged))


def _split(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"cannot read {word!r}: write key=value, for example trainer.max_steps=10, or config=configs/toy/demo.yaml"
        )
    return key.lstrip("-"), value


def _nest(key: str, value: str) -> dict[str, Any]:
    try:
        tree = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}"]))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"cannot read the value of {key}={value}: {_one_line(error)}") from error
    return _none_words(tree)


def _read_yaml(path: Path) -> dict[str, Any]:
    """The file's tree over that of its `base`."""
    if not path.is_file():
        beside = [
            str(other)
            for folder in {path.parent, Path("configs")}
            if folder.is_dir()
            for other in sorted(folder.rglob("*.yaml"))
        ]
        raise ConfigError(f"config: no file {path}{nearest(str(path), beside)}")
    try:
        tree = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")), resolve=False)
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(f"config: {path} is not YAML: {_one_line(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"config: {path} holds no sections (data:, worker:, trainer:)")
    base = tree.pop("base", None)
    if base is None:
        return _none_words(tree)
    merged = OmegaConf.merge(OmegaConf.create(_read_yaml(path.parent / base)), OmegaConf.create(_none_words(tree)))
    return OmegaConf.to_container(merged, resolve=False)  # type: ignore[return-value]


def _none_words(tree: Any) -> Any:
    """The published recipe writes None where YAML has null."""
    if isinstance(tree, dict):
        return {str(key): _none_words(value) for key, value in tree.items()}
    return None if tree == "None" else tree


def _drop_no_effect(tree: dict[str, Any], known: Sequence[str], prefix: str = "") -> None:
    for key in list(tree):
        path = f"{prefix}{key}"
        reason = next(
            (why for pattern, why in NO_EFFECT.items() if path not in known and fnmatch.fnmatchcase(path, pattern)),
            None,
        )
        if reason is not None:
            log.warning("%s has no effect here: %s", path, reason)
            del tree[key]
        elif isinstance(tree[key], dict) and path not in FREE_FORM:
            _drop_no_effect(tree[key], known, f"{path}.")


def _merge(merged: DictConfig, layer: dict[str, Any], known: Sequence[str], word: str) -> DictConfig:
    for path in _given(layer):
        if path not in known and not path.startswith(tuple(f"{place}." for place in FREE_FORM)):
            raise ConfigError(f"unknown key {path}{nearest(path, known)}")
    try:
        return OmegaConf.merge(merged, OmegaConf.create(layer))  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or word}: {str(error).splitlines()[0]}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _paths(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Dotted names of all keys, sections included."""
    for key in node:
        path = f"{prefix}{key!s}"
        yield path
        child = node._get_node(key)
        if isinstance(child, DictConfig) and path not in FREE_FORM:
            yield from _paths(child, f"{path}.")


def _given(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _given(value, f"{prefix}{key}.")


def _resolve(merged: DictConfig) -> Config:
    """Fills in variables and gives plain dataclasses."""
    for path in _paths(merged):
        try:
            OmegaConf.select(merged, path, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raw = OmegaConf.to_container(OmegaConf.masked_copy(merged, path.split(".")[0]), resolve=False)
            for part in path.split("."):
                raw = raw[part]  # type: ignore[index,call-overload]
            names = [piece.split("}")[0].split(",")[0] for piece in str(raw).split("${oc.env:")[1:]]
            missing = [name for name in names if name not in os.environ]
            if not missing:
                raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
            raise ConfigError(f"{path} is not set: export {missing[0]}=... or add {path}=... to the command") from error
    return OmegaConf.to_object(merged)  # type: ignore[return-value]
