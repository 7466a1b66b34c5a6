"""A policy's checkpoint, given as a folder or by its name on the Hugging Face hub; imports no torch."""

from __future__ import annotations

import os
import re
from pathlib import Path

from veason.errors import DataError

USABLE_CHECKPOINTS = (
    "give a folder with config.json and *.safetensors, such as a training run's `huggingface`, the Veason-R1 weights "
    "that github.com/SitongGong/Veason-R1 names, or, not trained for this, Qwen/Qwen2.5-VL-3B-Instruct"
)
SHARDS = "model_world_size_*_rank_*.pt"  # FSDP shards of verl, EasyR1 and the published release
FILES = ("*.json", "*.txt", "*.jinja", "*.model", "*.safetensors")  # of a repository that are downloaded

PREFIX = "hf://"  # of a folder in a repository, hf://owner/name/folder: without it, it would be a path

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve_model(name: str | os.PathLike[str], weights: bool = True, download: bool = True) -> str:
    """The folder of a checkpoint.

    Args:
        name: a folder, or `owner/name` (or `hf://owner/name/folder`) on the hub, which is downloaded into the hub's
            cache once; offline (HF_HUB_OFFLINE=1, or no network) the cache is used.
        weights: whether *.safetensors are needed.
        download: get what is not in the hub's cache yet.

    Raises:
        DataError: there is no checkpoint, in one line that says what would be one.
    """
    folder = Path(name)
    plain = _HUB_NAME.fullmatch(str(name)) and not folder.exists() and not Path(folder.parts[0]).exists()
    if plain or str(name).startswith(PREFIX):
        folder = _download(str(name), download)
    check_checkpoint(folder, weights)
    return str(folder)


def check_checkpoint(path: str | Path, weights: bool = True) -> None:
    """Refuse a folder that is no checkpoint, in one line that says what would be one. Raises DataError."""
    folder = Path(path)
    shards = next((shards for place in (folder, folder.parent) for shards in sorted(place.glob(SHARDS))), None)
    if (folder / "config.json").is_file() and (not weights or any(folder.glob("*.safetensors"))):
        return
    if shards is not None:
        merge = f"python -m verl.merge_shards {shards.parent} --output FOLDER"
        raise DataError(f"no checkpoint at {folder}: {shards.parent} holds FSDP shards, `{merge}` merges them")
    raise DataError(f"no checkpoint at {folder}: {USABLE_CHECKPOINTS}")


def _download(name: str, allowed: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    owner, repository, *inside = name.removeprefix(PREFIX).split("/")
    patterns = ["/".join([*inside, pattern]) for pattern in FILES]
    try:
        root = snapshot_download(f"{owner}/{repository}", allow_patterns=patterns, local_files_only=not allowed)
    except LocalEntryNotFoundError as error:
        if not allowed:
            raise DataError(f"{name} is not downloaded yet: the run would get it from the hub") from error
        raise _not_found(name, error) from error
    except Exception as error:  # the hub's, the network's, the cache's: all are named to the user
        raise _not_found(name, error) from error
    return Path(root, *inside)


def _not_found(name: str, error: Exception) -> DataError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    lead = f"no checkpoint at {name}: neither a folder nor on the hub or in its cache"
    return DataError(f"{lead}; {USABLE_CHECKPOINTS} (the hub's own words: {reason})")
