"""Checkpoints on disk: `<run>/global_step_N`, written aside and renamed, so that a folder of that name is always whole.

global_step_N/actor/huggingface/   weights (safetensors), config, tokenizer and processor, for transformers and vLLM
global_step_N/actor/...            optimizer, scheduler, random state of every rank
global_step_N/trainer.json         step, position in the data, configuration
latest                             the name of the folder that was written last
huggingface                        link to its weights, where it has the whole model's (LoRA: if lora_merge)
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from verl.files import write_text
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
    final = root / f"global_step_{step}"
    partial, replaced = root / f".{final.name}.partial", root / f".{final.name}.replaced"
    try:
        _restore(root)
        for kind in ("partial", "replaced"):  # left by a run that was ended while it saved
            for folder in root.glob(f".global_step_*.{kind}"):
                shutil.rmtree(folder)
        partial.mkdir(parents=True)
        engine.save(str(partial))
        write_text(partial / "trainer.json", json.dumps({"step": step} | state, indent=1))
        if final.exists():  # a resumed run saves the same step again
            os.replace(final, replaced)
        os.replace(partial, final)
        write_text(root / "latest", final.name)
        _link_weights(root, final)
        if replaced.exists():
            shutil.rmtree(replaced)
    except OSError as error:
        whole = "the checkpoints before it are whole"
        raise CheckpointError(f"cannot write the checkpoint {final}: {error}; {whole}") from error
    saved = [number for number in sorted(saved_checkpoints(root)) if number <= step]
    for number in saved[: -limit if limit > 0 else 0]:
        # under this name it is no checkpoint, however much of it is left
        removed = root / f".global_step_{number}.partial"
        os.replace(root / f"global_step_{number}", removed)
        shutil.rmtree(removed)
    return final


def saved_checkpoints(root: str | Path) -> dict[int, Path]:
    """The whole checkpoints of a run, by step."""
    folders = ((_NAME.fullmatch(path.name), path) for path in Path(root).glob("global_step_*"))
    return {int(match[1]): path for match, path in folders if match and (path / "trainer.json").is_file()}


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
                f"{root} holds checkpoints up to step {max(own)}: set trainer.load_checkpoint_path=latest to resume "
                "from there, or another trainer.save_checkpoint_path"
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
    """Restores the engine, and returns the loop's state with its `step`."""
    engine.load(str(path))
    return read_state(path)


def read_state(path: Path) -> dict[str, Any]:
    """The loop's state that a checkpoint keeps, with its `step`."""
    return json.loads((path / "trainer.json").read_text(encoding="utf-8"))


def _latest(root: Path, saved: dict[int, Path]) -> Path:
    """The checkpoint that the file `latest` names (after a branch not the highest step), else the highest."""
    pointer = root / "latest"
    if not pointer.is_file():
        return saved[max(saved)]
    name = pointer.read_text(encoding="utf-8").strip()
    for path in saved.values():
        if path.name == name:
            return path
    known = ", ".join(path.name for _, path in sorted(saved.items()))
    raise CheckpointError(f"{pointer} names {name}, which is no whole checkpoint: name the folder, one of {known}")


def _restore(root: Path) -> None:
    """Puts a checkpoint back that a run was about to replace when it was ended."""
    for replaced in root.glob(".global_step_*.replaced"):
        final = root / replaced.name[1:].removesuffix(".replaced")
        if not final.exists():
            os.replace(replaced, final)


def _link_weights(root: Path, checkpoint: Path) -> None:
    """Points `root`/huggingface at the checkpoint's weights in one step; removes an older link where it has none."""
    link, partial = root / "huggingface", root / ".huggingface.partial"
    if not any((checkpoint / "actor" / "huggingface").glob("*.safetensors")):
        link.unlink(missing_ok=True)
        return
    partial.unlink(missing_ok=True)
    partial.symlink_to(Path(checkpoint.name, "actor", "huggingface"))
    os.replace(partial, link)
