"""Checkpoints on disk: `<run>/global_step_N`, written aside and renamed, so that a folder of that name is always whole.

global_step_N/actor/huggingface/   weights (safetensors), config, tokenizer and processor, for transformers and vLLM
global_step_N/actor/state/         optimizer, schedule and random state (verl.workers.worker_checkpoint)
global_step_N/trainer.json         step, position in the data, configuration, the step's metrics
global_step_N/files.json           size and CRC-32 of every file
latest                             the name of the folder that was written last
best                               with trainer.best_metric, that of the best
huggingface                        link to the latest weights, where it has the whole model's (LoRA: if lora_merge)
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from verl.atomic_files import FileChecksums, fsync_file, fsync_folder, write_text_atomically
from verl.protocol import TrainingBackend
from verl.trainer.checkpoint_folders import CheckpointError, CheckpointRetention

SHARED = "trainer.save_checkpoint_path has to be one folder that all hosts share, the driver's too"


def save_checkpoint(
    backend: TrainingBackend,
    root: str | Path,
    step: int,
    state: dict[str, Any],
    retention: CheckpointRetention | None = None,
) -> Path:
    """Saves workers and loop as `root`/global_step_`step`, then removes what `retention` does not keep.

    Everything is on the disk before the folder gets its name, and every worker's files are seen from here.

    Args:
        state: the loop's own state, JSON.

    Raises:
        CheckpointError: the folder cannot be written, or a worker writes somewhere else; what was saved before is
            untouched, and nothing is left of this one.
    """
    root = Path(root)
    final = root / f"global_step_{step}"
    partial, replaced = root / f".{final.name}.partial", root / f".{final.name}.replaced"
    try:
        partial.mkdir(parents=True)
        files = backend.save(str(partial))
        _check_files(partial, files)
        write_text_atomically(partial / "trainer.json", json.dumps({"step": step} | state, indent=1))
        files["trainer.json"] = fsync_file(partial / "trainer.json")
        write_text_atomically(partial / "files.json", json.dumps(files, indent=0))
        for folder in {(partial / name).parent for name in files}:
            fsync_folder(folder)
        if final.exists():  # a resumed run saves the same step again
            os.replace(final, replaced)
        os.replace(partial, final)
        write_text_atomically(root / "latest", final.name)  # its folder too is put on the disk
        _link_weights(root, final)
        for path in (retention or CheckpointRetention()).to_delete(root, step):
            # under this name it is no checkpoint, however much of it is left
            os.replace(path, root / f".{path.name}.partial")
    except OSError as error:
        whole = "the checkpoints before it are whole"
        raise CheckpointError(f"cannot write the checkpoint {final}: {error}; {whole}") from error
    finally:
        remove_partial_checkpoints(root)
    return final


def _check_files(folder: Path, files: FileChecksums) -> None:
    """Raises CheckpointError for a file that a worker wrote and that is not, or not whole, in the driver's folder."""
    for name, record in files.items():
        size = (folder / name).stat().st_size if (folder / name).is_file() else None
        if size != record.size:
            found = "is not there" if size is None else f"has {size} bytes of {record.size}"
            raise CheckpointError(f"{folder / name}, which a worker wrote, {found}: {SHARED}")


def check_shared_folder(backend: TrainingBackend, root: str | Path) -> None:
    """Proves before the first step that every worker reads and writes the driver's own folder.

    Raises:
        CheckpointError: names the first worker that does not, and its host.
    """
    root, token = Path(root), os.urandom(16).hex()
    proof = root / f".shared_{token}"
    try:
        proof.write_text(token)
        for rank, (host, error) in enumerate(backend.check_folder(str(root), token)):
            answer = root / f".shared_{token}_{rank}"
            if error is None and not answer.is_file():
                error = "the driver does not see what it writes there"
            if error is not None:
                raise CheckpointError(f"rank {rank} on {host} does not share {root}: {error}; {SHARED}")
    except OSError as error:
        raise CheckpointError(f"cannot write into {root}: {error}") from error
    finally:
        for path in root.glob(f".shared_{token}*"):
            path.unlink(missing_ok=True)


def load_checkpoint(backend: TrainingBackend, path: Path) -> dict[str, Any]:
    """Restores the workers, and returns the loop's state with its `step`."""
    backend.load(str(path))
    return read_state(path)


def read_state(path: Path) -> dict[str, Any]:
    """The loop's state that a checkpoint keeps, with its `step`."""
    return json.loads((path / "trainer.json").read_text(encoding="utf-8"))


def remove_partial_checkpoints(root: Path) -> None:
    """Removes what a save that failed or was killed has left, and what is kept no more; puts a checkpoint back that was
    about to be replaced.
    """
    for replaced in root.glob(".global_step_*.replaced"):
        final = root / replaced.name[1:].removesuffix(".replaced")
        if not final.exists():
            os.replace(replaced, final)
    for kind in (".global_step_*.partial", ".global_step_*.replaced"):
        for folder in root.glob(kind):
            shutil.rmtree(folder, ignore_errors=True)
    for path in root.glob(".shared_*"):
        path.unlink(missing_ok=True)


def _link_weights(root: Path, checkpoint: Path) -> None:
    """Points `root`/huggingface at the checkpoint's weights in one step; removes an older link where it has none."""
    link, partial = root / "huggingface", root / ".huggingface.partial"
    if not any((checkpoint / "actor" / "huggingface").glob("*.safetensors")):
        link.unlink(missing_ok=True)
        return
    partial.unlink(missing_ok=True)
    partial.symlink_to(Path(checkpoint.name, "actor", "huggingface"))
    os.replace(partial, link)
