"""Checkpoints on disk: `<run>/global_step_N`, written to the side and renamed, so that a folder of that name is always
whole.

global_step_N/actor/huggingface/   weights (safetensors), config, tokenizer and processor: what from_pretrained and vLLM
read global_step_N/actor/...            optimizer, scheduler, random state of every rank global_step_N/trainer.json
step, place in the data, the configuration latest                             the name of the folder that was written
last huggingface                        link to its weights; not there where it has none of the whole model (LoRA
without merging)
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

    Later steps, of a run that this one branched from, are neither counted nor removed.

    Args:
        state: the loop's own state, JSON.

    Raises:
        CheckpointError: the folder cannot be written; what was saved before is untouched.
    """
    root = Path(root)
    final, partial, replaced = (
        root / f"global_step_{step}",
        root / f".global_step_{step}.partial",
        root / f".global_step_{step}.replaced",
    )
    try:
        _restore(root)
        for left in [
            *root.glob(".global_step_*.partial"),
            *root.glob(".global_step_*.replaced"),
        ]:  # by a run that was ended while it saved
            shutil.rmtree(left)
        partial.mkdir(parents=True)
        engine.save(str(partial))
        _write(partial / "trainer.json", json.dumps({"step": step} | state, indent=1))
        if final.exists():  # a resumed run saves the same step again
            os.replace(final, replaced)
        os.replace(partial, final)
        _write(root / "latest", final.name)
        _link_weights(root, final)
        if replaced.exists():
            shutil.rmtree(replaced)
    except OSError as error:
        raise CheckpointError(
            f"cannot write the checkpoint {final}: {error}; the checkpoints before it are whole"
        ) from error
    done = [number for number in sorted(saved_checkpoints(root)) if number <= step]
    for number in done[: -limit if limit > 0 else 0]:
        removed = (
            root / f".global_step_{number}.partial"
        )  # under this name it is no checkpoint, however much of it is left
        os.replace(root / f"global_step_{number}", removed)
        shutil.rmtree(removed)
    return final


def saved_checkpoints(root: str | Path) -> dict[int, Path]:
    """The whole checkpoints of a run, by step."""
    root = Path(root)
    found = (
        {int(match[1]): path for path in root.glob("global_step_*") if (match := _NAME.fullmatch(path.name))}
        if root.is_dir()
        else {}
    )
    return {step: path for step, path in found.items() if (path / "trainer.json").is_file()}


def find_checkpoint(where: str | None, root: str | Path) -> Path | None:
    """The folder that `trainer.load_checkpoint_path` means; None starts afresh.

    Args:
        where: None, a global_step_N folder, a run's folder (its latest), or "latest" (of `root`, or None if it holds
            none yet).
        root: this run's own folder.

    Raises:
        CheckpointError: nothing is there; or `where` is None while `root` holds checkpoints that the run would
            overwrite.
    """
    _restore(Path(root))
    own = saved_checkpoints(root)
    if where is None:
        if own:
            raise CheckpointError(
                f"{root} holds checkpoints up to step {max(own)}: set trainer.load_checkpoint_path=latest to go on "
                "from there, "
                "or another trainer.save_checkpoint_path"
            )
        return None
    if where == "latest":
        return _latest(Path(root), own) if own else None
    path = Path(where).resolve()  # a worker has another current folder
    if (path / "trainer.json").is_file():
        return path
    inside = saved_checkpoints(path)
    if inside:
        return _latest(path, inside)
    reason = "holds no whole checkpoint" if path.is_dir() else "does not exist"
    near = f"; {root} holds {', '.join(p.name for _, p in sorted(own.items()))}" if own else ""
    raise CheckpointError(f"trainer.load_checkpoint_path={where} {reason}: name a global_step_N folder{near}")


def load_checkpoint(engine: Engine, path: Path) -> dict[str, Any]:
    """Puts the engine back, and returns the loop's state with its `step`."""
    engine.load(str(path))
    return read_state(path)


def read_state(path: Path) -> dict[str, Any]:
    """The loop's state that a checkpoint keeps, with its `step`."""
    return json.loads((path / "trainer.json").read_text(encoding="utf-8"))


def _latest(root: Path, saved: dict[int, Path]) -> Path:
    """The checkpoint that the file `latest` names (after a branch not the highest step); without such a file the
    highest.
    """
    pointer = root / "latest"
    if not pointer.is_file():
        return saved[max(saved)]
    name = pointer.read_text(encoding="utf-8").strip()
    for path in saved.values():
        if path.name == name:
            return path
    there = ", ".join(path.name for _, path in sorted(saved.items()))
    raise CheckpointError(
        f"{pointer} names {name}, which is no whole checkpoint: name the folder to go on from, one of {there}"
    )


def _restore(root: Path) -> None:
    """Puts a checkpoint back that a run had set aside to replace it, where the run was ended before the new one took
    its place.
    """
    for aside in root.glob(".global_step_*.replaced"):
        final = root / aside.name[1:].removesuffix(".replaced")
        if not final.exists():
            os.replace(aside, final)


def _write(path: Path, text: str) -> None:
    """Writes a small file whole or not at all."""
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def _link_weights(root: Path, checkpoint: Path) -> None:
    """Points `root`/huggingface at the checkpoint's weights in one step; where it has none, an older link goes too."""
    link, aside = root / "huggingface", root / ".huggingface.partial"
    if not any((checkpoint / "actor" / "huggingface").glob("*.safetensors")):
        link.unlink(missing_ok=True)
        return
    aside.unlink(missing_ok=True)
    aside.symlink_to(Path(checkpoint.name, "actor", "huggingface"))
    os.replace(aside, link)
