"""One configuration: a YAML file and `key=value` overrides, merged over typed defaults and checked before any model is
loaded.

    config = load_config(["config=configs/toy/demo.yaml", "trainer.max_steps=3"])

`--key=value` and `--key value` are the same. A file may start from another (`base: other.yaml`, relative to it). Paths
come from overrides or from variables (`${oc.env:REVOS_ROOT}`). Everything that is wrong with a configuration ends in a
ConfigError of one line, which names the key and what to write instead.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl.config.checks import check_config
from verl.config.derived_values import derive_values
from verl.config.published_keys import NO_EFFECT, OFF_ONLY, RENAMED
from verl.config.schema import Config, ConfigError, value_of
from verl.registry import suggest

log = logging.getLogger(__name__)


def load_config(overrides: Sequence[str], sources: dict[str, str] | None = None) -> Config:
    """Merges a YAML file and overrides over the defaults; later ones win.

    Args:
        overrides: of the command line, `config=file.yaml` among them.
        sources: gets, for each key that is not at its default, where its value comes from.

    Raises:
        ConfigError: an unreadable file, an unknown key, a wrong type, a variable that is not set, or an impossible
            combination.
    """
    pairs = _read_overrides(overrides)
    files = [value for key, value in pairs if key == "config"]
    if len(files) > 1:
        raise ConfigError(f"config= is given {len(files)} times: {', '.join(files)}; name one file")
    layers = [layer for name in files for layer in _read_yaml(Path(name))]
    layers += [(f"{key}={value}", _nest(key, value)) for key, value in pairs if key != "config"]
    traced: dict[str, str] = {}
    merged = OmegaConf.structured(Config)
    _allow_writing(merged)
    keys = dict(_keys(merged))
    for source, layer in layers:
        tree = _translated(layer, keys)
        _refuse_unknown(tree, keys)
        try:
            merged = OmegaConf.merge(merged, OmegaConf.create(tree))
        except OmegaConfBaseException as error:
            key, reason = error.full_key or source, str(error).splitlines()[0]
            if "not a ListConfig" in reason:
                given = OmegaConf.select(OmegaConf.create(tree), key)
                raise ConfigError(f"{key} is a list: write {key}=[{given}]") from error
            raise ConfigError(f"{key}: {reason}") from error
        traced |= {key: _origin(source, value) for key, value in _leaves(tree, keys)}
    resolved = _resolved(merged)
    config = derive_values(resolved)
    if sources is not None:
        changed = {key for key in value_keys() if value_of(config, key) != value_of(resolved, key)}
        sources |= traced | {key: f"{traced[key]}, resolved" if key in traced else "derived" for key in changed}
    check_config(config)
    return config


def value_keys() -> list[str]:
    """Dotted names of all keys that hold a value, in the order of the sections."""
    keys = [key for key, _ in _keys(OmegaConf.structured(Config))]
    return [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]


def _leaves(tree: Mapping[str, Any], keys: Mapping[str, bool], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys that a layer sets, with their values; a dictionary with keys of the user's own is one value."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and not keys.get(key):
            yield from _leaves(value, keys, f"{key}.")
        else:
            yield key, value


def _origin(source: str, value: Any) -> str:
    """A layer's name: its file, or the command line; with the variable that a value reads."""
    variables = dict.fromkeys(re.findall(r"oc\.env:(\w+)", str(value)))
    place = "command line" if "=" in source else source
    return f"{place}, ${', $'.join(variables)}" if variables else place


def _read_overrides(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Keys and values, in order. Blank ones are ignored: bash passes one for a comment after a backslash."""
    found, rest = [], (text for text in overrides if text.strip())
    for text in rest:
        key, equals, value = text.partition("=")
        if not equals and key.startswith("--"):
            value = next(rest, "")
            equals = value and "="
        if not equals or not key.lstrip("-"):
            example = "write key=value, for example trainer.max_steps=10, or config=configs/toy/demo.yaml"
            raise ConfigError(f"cannot read {text!r}: {example}")
        found.append((key.lstrip("-"), value))
    return found


def _nest(key: str, value: str) -> dict[str, Any]:
    """The tree of one override. A text is taken as it is; anything else is read as YAML."""
    if _is_text(key):
        tree: Any = None if value in ("", "null", "None") else value
        for name in reversed(key.split(".")):
            tree = {name: tree}
        return tree
    try:
        tree = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}"]))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"cannot read the value of {key}={value}: {_one_line(error)}") from error
    return _with_null(tree)


def _is_text(key: str) -> bool:
    """Whether a dotted key of the configuration is a text, or a text or null."""
    section: Any = Config
    for name in key.split("."):
        section = get_type_hints(section).get(name) if is_dataclass(section) else None
    return section in (str, str | None)


def _read_yaml(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(file, tree) of a file, behind those of its `base`."""
    if not path.is_file():
        folders = [folder for folder in {path.parent, Path("configs")} if folder.is_dir()]
        others = [str(other) for folder in folders for other in sorted(folder.rglob("*.yaml"))]
        raise ConfigError(f"config: no file {path}{suggest(str(path), others)}")
    try:
        tree = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")), resolve=False)
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(f"config: {path} is not YAML: {_one_line(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"config: {path} holds no sections (data:, worker:, trainer:)")
    base = tree.pop("base", None)
    below = _read_yaml(path.parent / base) if base is not None else []
    return [*below, (os.path.normpath(path), _with_null(tree))]


def _with_null(tree: Any) -> Any:
    """null for None, which the published recipe writes."""
    if isinstance(tree, dict):
        return {str(key): _with_null(value) for key, value in tree.items()}
    return None if tree == "None" else tree


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _allow_writing(node: DictConfig) -> None:
    """Lets layers be merged over the frozen dataclasses."""
    OmegaConf.set_readonly(node, False)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            _allow_writing(child)


def _keys(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Dotted names of all keys, sections included, and whether each is a dictionary with keys of the user's own."""
    for name in node:
        key, child = f"{prefix}{name!s}", node._get_node(name)
        free = isinstance(child, DictConfig) and OmegaConf.get_type(child) is dict
        yield key, free
        if isinstance(child, DictConfig) and not free:
            yield from _keys(child, f"{key}.")


def _translated(layer: dict[str, Any], keys: Mapping[str, bool], prefix: str = "") -> dict[str, Any]:
    """The layer with published keys under their present names, and without those that have no effect."""
    tree: dict[str, Any] = {}
    for name, value in layer.items():
        key = f"{prefix}{name}"
        if key in RENAMED:
            head, _, leaf = RENAMED[key].removeprefix(prefix).partition(".")
            tree[head] = {**tree.get(head, {}), leaf: value} if leaf else value
        elif (switch := _matching(key, OFF_ONLY)) is not None:
            if value not in (False, None):
                raise ConfigError(f"{key}={value}: set {prefix.removesuffix('fsdp.')}{switch} instead")
        elif key not in keys and (reason := _matching(key, NO_EFFECT)) is not None:
            log.warning("%s has no effect here: %s", key, reason)
        elif isinstance(value, dict) and not keys.get(key):
            tree[name] = _translated(value, keys, f"{key}.")
        elif isinstance(value, dict):
            if key == "data.mix":  # its members have the keys of `data`
                value = {
                    label: _translated(own, keys, "data.") if isinstance(own, dict) else own
                    for label, own in value.items()
                }
            tree[name] = {**tree.get(name, {}), **value}
        else:
            tree[name] = value
    return tree


def _matching(key: str, table: Mapping[str, str]) -> str | None:
    """What a table of published keys, in which * stands for anything, says of a key."""
    return next((entry for pattern, entry in table.items() if fnmatch.fnmatchcase(key, pattern)), None)


def _refuse_unknown(tree: dict[str, Any], keys: Mapping[str, bool], prefix: str = "") -> None:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key not in keys:
            raise ConfigError(f"unknown key {key}{suggest(key, [*keys, *RENAMED])}")
        if isinstance(value, dict) and not keys[key]:
            _refuse_unknown(value, keys, f"{key}.")


def _resolved(merged: DictConfig) -> Config:
    """The frozen dataclasses, variables filled in."""
    try:
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key, missing = error.full_key, re.search(r"Environment variable '([^']+)' not found", str(error))
        if missing is None:
            raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
        raise ConfigError(f"{key} is not set: export {missing[1]}=... or add {key}=... to the command") from error
