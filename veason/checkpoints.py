"""A policy's checkpoint, given as a folder or by its name on the Hugging Face hub: found, and checked to be whole.

Imports no torch.
"""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path

from veason.errors import DataError

USABLE_CHECKPOINTS = (
    "give a folder with config.json and *.safetensors, such as a training run's `huggingface`, the Veason-R1 weights "
    "that github.com/SitongGong/Veason-R1 names, or, not trained for this, Qwen/Qwen2.5-VL-3B-Instruct"
)
SHARDS = "model_world_size_*_rank_*.pt"  # FSDP shards of verl, EasyR1 and the published release
CHECKPOINT_FILES = ("*.json", "*.txt", "*.jinja", "*.model", "*.safetensors")  # of a repository that are downloaded

HUB_PREFIX = "hf://"  # of a folder in a repository, hf://owner/name/folder: without it, it would be a path

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model")  # one of them is enough
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
MAX_HEADER = 100 << 20  # bytes; the limit of the safetensors library


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
    if plain or str(name).startswith(HUB_PREFIX):
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

    owner, repository, *inside = name.removeprefix(HUB_PREFIX).split("/")
    patterns = ["/".join([*inside, pattern]) for pattern in CHECKPOINT_FILES]
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


def check_complete(folder: str | Path) -> None:
    """Refuse a checkpoint that a download has left incomplete. Raises DataError, which names the file."""
    folder = Path(folder)
    for names, what in ((TOKENIZERS, "tokenizer"), (PROCESSORS, "image processor")):
        if not any((folder / name).is_file() for name in names):
            raise DataError(f"the checkpoint {folder} has no {what}: {' or '.join(names)} is missing")
    index = folder / "model.safetensors.index.json"
    weights = sorted(folder.glob("*.safetensors"))
    if index.is_file():
        try:
            weights = sorted(
                {folder / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{index} is no index of weights ({type(error).__name__})") from error
    for file in weights:
        check_safetensors(file)


def check_safetensors(file: str | Path) -> None:
    """Refuse a file that is no safetensors file, or shorter than its header says. Raises DataError."""
    file = Path(file)
    if not file.is_file():
        raise DataError(f"{file} is missing")
    size = file.stat().st_size
    try:
        with open(file, "rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > min(size, MAX_HEADER):
                raise ValueError("its header is longer than the file")
            header = json.loads(opened.read(length))
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is no safetensors file ({error})") from error
    if size < 8 + length + end:
        raise DataError(f"{file} is cut short: {size} bytes of {8 + length + end}; copy or download it again")
