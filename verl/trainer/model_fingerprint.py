"""Fingerprint of the weights that a run starts from: checkpoints hold neither the reference model nor a LoRA base."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from verl.config import Config
from verl.models.hub_download import local_model_folder
from verl.trainer.checkpoint_folders import CheckpointError

PIECES, PIECE_BYTES = 64, 1 << 16  # of a weight file: enough to tell two states of a training apart


def fingerprint_model(model_path: str | None) -> dict[str, Any]:
    """The folder, links resolved, and size and CRC-32 of evenly spaced pieces of each weight file, JSON.

    `files` is empty where the model is not on this machine.
    """
    try:
        folder = Path(local_model_folder(model_path or "", download=False)).resolve()
    except OSError:  # a hub name that is not in the cache
        return {"folder": model_path, "files": {}}
    weights = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]) if model_path else []
    return {"folder": str(folder), "files": {path.name: _fingerprint_file(path) for path in weights}}


def _fingerprint_file(path: Path) -> list[int]:
    size, crc32 = path.stat().st_size, 0
    step = max(PIECE_BYTES, size // PIECES)
    with path.open("rb") as file:
        for start in range(0, size, step):
            file.seek(start)
            crc32 = zlib.crc32(file.read(PIECE_BYTES), crc32)
    return [size, crc32]


def check_model_fingerprint(config: Config, saved: dict[str, Any] | None, found: dict[str, Any]) -> None:
    """Refuses to resume with other frozen weights: the reference model of the KL term, or the base of an adapter.

    Args:
        saved: what `fingerprint_model` gave when the run was started; empty or None in a checkpoint that does not say.
        found: what it gives now.

    Raises:
        CheckpointError: a weight file differs.
    """
    actor = config.worker.actor
    if not saved or not saved["files"] or not found["files"]:  # one of them is not known
        return
    if not (actor.with_ref or actor.model.lora_rank):
        return
    names = sorted(saved["files"].keys() | found["files"].keys())
    other = next((name for name in names if saved["files"].get(name) != found["files"].get(name)), None)
    if other is not None:
        role = "base of the adapter" if actor.model.lora_rank else "reference model"
        raise CheckpointError(
            f"worker.actor.model.model_path={actor.model.model_path} is not the {role} that the run was started with: "
            f"{other} differs; the run was started from {saved['folder']}"
        )
