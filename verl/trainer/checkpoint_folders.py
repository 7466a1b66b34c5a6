"""The checkpoints of a run's folder: which are there and whole, which one a run resumes, which ones are kept."""

from __future__ import annotations

import json
import logging
import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl.atomic_files import FileChecksum, compute_checksum, write_text_atomically

log = logging.getLogger(__name__)

_NAME = re.compile(r"global_step_(\d+)")
READERS = 8  # files that are read side by side while a checkpoint is checked


class CheckpointError(RuntimeError):
    """A checkpoint that is not there, damaged, or cannot be written; the message says what to do."""


def saved_checkpoints(root: str | Path) -> dict[int, Path]:
    """The checkpoints of a run by step, damaged ones too; a folder without a record of its files is none."""
    folders = ((_NAME.fullmatch(path.name), path) for path in Path(root).glob("global_step_*"))
    return {int(match[1]): path for match, path in sorted(folders, key=str) if match and _is_checkpoint(path)}


def _is_checkpoint(path: Path) -> bool:
    return (path / "files.json").is_file() or (path / "trainer.json").is_file()


def find_damaged_file(path: Path) -> str | None:
    """The first file of a checkpoint that is not what it was when it was saved, and what is wrong with it; None: all
    are.
    """
    try:
        records = json.loads((path / "files.json").read_text(encoding="utf-8"))
        files = {path / name: FileChecksum(*record) for name, record in records.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"{path / 'files.json'} cannot be read: {error}"
    for file, record in files.items():
        if not file.is_file():
            return f"{file} is missing"
        if (size := file.stat().st_size) != record.size:
            return f"{file} has {size} bytes of {record.size}"
    with ThreadPoolExecutor(READERS) as threads:
        for (file, record), found in zip(files.items(), threads.map(_try_read, files)):
            if isinstance(found, OSError):
                return f"{file} cannot be read: {found}"
            if found != record:
                return f"{file} holds other bytes than were saved"
    return None


def _try_read(file: Path) -> FileChecksum | OSError:
    try:
        return compute_checksum(file)
    except OSError as error:
        return error


def find_checkpoint(where: str | None, root: str | Path, resume_mode: str = "disable") -> Path | None:
    """The folder that a run resumes, checked whole; None starts afresh.

    Args:
        where: trainer.load_checkpoint_path: None, a global_step_N folder, a run's folder (its latest), or "latest" (of
            `root`, or None if it holds none yet).
        root: this run's own folder.
        resume_mode: "auto": the newest complete checkpoint of `root` if it holds any, whatever `where` is.

    Raises:
        CheckpointError: nothing is there, or it is damaged; or `where` is None while `root` holds checkpoints that the
            run would overwrite.
    """
    own = saved_checkpoints(root)
    if resume_mode == "auto" and own:
        return _newest_whole(Path(root), own)
    if where is None:
        if own:
            raise CheckpointError(
                f"{root} holds checkpoints up to step {max(own)}: set trainer.resume_mode=auto to go on from the "
                "newest complete one, or another trainer.save_checkpoint_path"
            )
        return None
    if where == "latest":
        return _checked(_latest(Path(root), own)) if own else None
    path = Path(where).resolve()  # a worker has another current folder
    if _is_checkpoint(path):
        return _checked(path)
    inside = saved_checkpoints(path)
    if inside:
        return _checked(_latest(path, inside))
    reason = "holds no complete checkpoint" if path.is_dir() else "does not exist"
    near = f"; {root} holds {', '.join(p.name for _, p in sorted(own.items()))}" if own else ""
    raise CheckpointError(f"trainer.load_checkpoint_path={where} {reason}: name a global_step_N folder{near}")


def _checked(path: Path) -> Path:
    if damage := find_damaged_file(path):
        newest = "set trainer.resume_mode=auto to go on from the newest complete one"
        raise CheckpointError(f"{path.name} is damaged: {damage}; {newest}, or name another in load_checkpoint_path")
    if not _has_state(path):
        start = f"start from them by worker.actor.model.model_path={path / 'actor' / 'huggingface'}"
        raise CheckpointError(f"{path} holds weights alone (trainer.save_weights_only): {start}")
    return path


def _has_state(path: Path) -> bool:
    return not json.loads((path / "trainer.json").read_text(encoding="utf-8")).get("weights_only", False)


def _newest_whole(root: Path, own: dict[int, Path]) -> Path:
    """The checkpoint that the file `latest` names, or where that is damaged the newest before it, then any other."""
    last = _pointed_at(root)
    newest = max(own) if last is None else last
    order = sorted(own, key=lambda step: (step <= newest, step), reverse=True)
    for step in order:
        damage = find_damaged_file(own[step])
        if damage is None and _has_state(own[step]):
            return own[step]
        log.warning("%s is passed over: %s", own[step].name, damage or "it holds weights alone")
    names = ", ".join(own[step].name for step in order)
    raise CheckpointError(f"{root}: none of {names} is whole and resumable; set another trainer.save_checkpoint_path")


def _pointed_at(root: Path) -> int | None:
    pointer = root / "latest"
    match = _NAME.fullmatch(pointer.read_text(encoding="utf-8").strip()) if pointer.is_file() else None
    return int(match[1]) if match else None


def _latest(root: Path, saved: dict[int, Path]) -> Path:
    """The checkpoint that the file `latest` names (after a branch not the highest step), else the highest."""
    pointer = root / "latest"
    if not pointer.is_file():
        return saved[max(saved)]
    step = _pointed_at(root)
    if step in saved:
        return saved[step]
    known, name = ", ".join(path.name for _, path in sorted(saved.items())), pointer.read_text(encoding="utf-8").strip()
    raise CheckpointError(f"{pointer} names {name}, which is no complete checkpoint: name the folder, one of {known}")


@dataclass(frozen=True)
class CheckpointRetention:
    """Which checkpoints are kept.

    Attributes:
        limit: trainer.save_limit: the last so many up to the step that was saved; -1: all. Later steps, of a run that
            this one branched from, are neither counted nor removed.
        metric: trainer.best_metric: the best checkpoint by it is kept beside them.
        mode: trainer.best_mode: "max" or "min" is best.
    """

    limit: int = -1
    metric: str | None = None
    mode: str = "max"

    def to_delete(self, root: Path, step: int) -> list[Path]:
        """What may go now that `step` is saved. Names the best in `root`/best."""
        saved = {number: path for number, path in sorted(saved_checkpoints(root).items()) if number <= step}
        best = self._best(root, saved)
        old = list(saved)[: -self.limit if self.limit > 0 else 0]
        return [saved[number] for number in old if number != best]

    def _best(self, root: Path, saved: dict[int, Path]) -> int | None:
        if self.metric is None:
            return None
        values = {number: _metric(path, self.metric) for number, path in saved.items()}
        known = {number: value for number, value in values.items() if value is not None and math.isfinite(value)}
        if not known:
            log.warning("trainer.best_metric=%s is in the metrics of no checkpoint yet", self.metric)
            return None
        sign = 1.0 if self.mode == "max" else -1.0
        best = max(known, key=lambda number: (sign * known[number], number))
        write_text_atomically(root / "best", saved[best].name)
        return best


def _metric(path: Path, name: str) -> float | None:
    try:
        state: dict[str, Any] = json.loads((path / "trainer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a damaged one cannot be the best
        return None
    return state.get("metrics", {}).get(name)
