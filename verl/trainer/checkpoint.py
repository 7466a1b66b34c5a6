"""Checkpoints on disk: `<run>/global_step_N`, written to the side and renamed, so that a folder of that name is always whole.

global_step_N/actor/huggingface/   weights (safetensors), config, tokenizer and processor: what from_pretrained and vLLM read
global_step_N/actor/...            optimizer, scheduler, random state of every rank
global_step_N/trainer.json         step, place in the data, the configuration
latest                             the name of the newest folder
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from verl.protocol import Engine

_NAME = re.compile(r"global_step_(\d+)")


class CheckpointError(RuntimeError):
    """A checkpoint that is not there or cannot be written; the message says what to do."""


def save_checkpoint(engine: Engine, root: str | Path, step: int, state: dict[str, Any], limit: int = -1) -> Path:
    """Saves engine and loop as `root`/global_step_`step`, then removes the oldest beyond `limit` (-1 keeps all).

    Args:
        state: the loop's own state, JSON.

    Raises:
        CheckpointError: the folder cannot be written; what was saved before is untouched.
    """
    root = Path(root)
    final, partial = root / f"global_step_{step}", root / f".global_step_{step}.partial"
    try:
        for left in root.glob(".global_step_*.partial"):  # by a run that was ended while it saved
            shutil.rmtree(left)
        partial.mkdir(parents=True)
        engine.save(str(partial))
        _write(partial / "trainer.json", json.dumps({"step": step} | state, indent=1))
        shutil.rmtree(final, ignore_errors=True)  # only where a resumed run saves the same step again
        os.replace(partial, final)
        _write(root / "latest", final.name)
        _link(root / "huggingface", Path(final.name, "actor", "huggingface"))
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint {final}: {error}; the checkpoints before it are whole") from error
    for _, old in sorted(saved_checkpoints(root).items())[: -limit if limit > 0 else 0]:
        shutil.rmtree(old)
    return final


def saved_checkpoints(root: str | Path) -> dict[int, Path]:
    """The whole checkpoints of a run, by step."""
    root = Path(root)
    found = {int(match[1]): path for path in root.glob("global_step_*") if (match := _NAME.fullmatch(path.name))} if root.is_dir() else {}
    return {step: path for step, path in found.items() if (path / "trainer.json").is_file()}


def find_checkpoint(where: str | None, root: str | Path) -> Path | None:
    """The folder that `trainer.load_checkpoint_path` means; None starts afresh.

    Args:
        where: None, a global_step_N folder, a run's folder (its newest), or "latest" (of `root`, or None if it holds none yet).
        root: this run's own folder.

    Raises:
        CheckpointError: nothing is there; or `where` is None while `root` holds checkpoints that the run would overwrite.
    """
    own = saved_checkpoints(root)
    if where is None:
        if own:
            raise CheckpointError(
                f"{root} holds checkpoints up to step {max(own)}: set trainer.load_checkpoint_path=latest to go on from there, "
                "or another trainer.save_checkpoint_path"
            )
        return None
    if where == "latest":
        return own[max(own)] if own else None
    path = Path(where)
    if (path / "trainer.json").is_file():
        return path
    inside = saved_checkpoints(path)
    if inside:
        return inside[max(inside)]
    reason = "holds no whole checkpoint" if path.is_dir() else "does not exist"
    near = f"; {root} holds {', '.join(p.name for _, p in sorted(own.items()))}" if own else ""
    raise CheckpointError(f"trainer.load_checkpoint_path={where} {reason}: name a global_step_N folder{near}")


def load_checkpoint(engine: Engine, path: Path) -> dict[str, Any]:
    """Puts the engine back, and returns the loop's state with its `step`."""
    engine.load(str(path))
    return json.loads((path / "trainer.json").read_text(encoding="utf-8"))


def _write(path: Path, text: str) -> None:
    """Writes a small file whole or not at all."""
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def _link(link: Path, target: Path) -> None:
    """Points a relative link elsewhere in one step."""
    aside = link.with_name(f".{link.name}.partial")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target)
    os.replace(aside, link)
