"""One run per folder: two of them would mix their steps, metrics and checkpoints."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from pathlib import Path
from typing import Self

from verl.trainer.checkpoint_folders import CheckpointError
from verl.trainer.checkpoint_io import remove_partial_checkpoints

log = logging.getLogger(__name__)


class RunLock:
    """Holds a run's folder from its start to its end. A context manager; the lock goes with the process, however that
    ends.

    Args:
        path: trainer.save_checkpoint_path.

    Raises:
        CheckpointError: another run holds the folder, or it cannot be written; on entering.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = -1

    def __enter__(self) -> Self:
        lock = self.path / "run.lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise CheckpointError(f"cannot write into trainer.save_checkpoint_path={self.path}: {error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 1000).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise CheckpointError(
                f"{self.path} belongs to a run that is going on ({holder}): set another trainer.save_checkpoint_path"
            ) from None
        except OSError as error:  # a file system without locks
            log.warning("%s: no lock (%s); start no second run in this folder", lock, error)
        os.ftruncate(self._file, 0)
        os.write(self._file, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        remove_partial_checkpoints(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        os.ftruncate(self._file, 0)
        os.close(self._file)
