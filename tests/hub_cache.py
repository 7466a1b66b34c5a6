"""A cache of the Hugging Face hub on the disk, as a download leaves it, and no network."""

from __future__ import annotations

import shutil
from pathlib import Path

REVISION = "0123456789abcdef0123456789abcdef01234567"


def write_hub_cache(monkeypatch, cache: Path, name: str, checkpoint: Path, folder: str = "") -> Path:
    """Put a checkpoint into the cache under a hub name; returns its folder there. Later look-ups use this cache."""
    root = cache / f"models--{name.replace('/', '--')}"
    snapshot = root / "snapshots" / REVISION / folder
    shutil.copytree(checkpoint, snapshot)
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(REVISION)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return snapshot
