"""Whether a checkpoint folder is whole: every file that loading would ask for, and every tensor within its file."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from veason.errors import DataError

TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model")  # one of them is enough
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
MAX_HEADER = 100 << 20  # bytes; the limit of the safetensors library


def check_whole(folder: str | Path) -> None:
    """Refuse a checkpoint that a download or a full disk has left incomplete.

    Raises:
        DataError: names the file.
    """
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
