"""The folder of one evaluation: masks, one line of JSON per sample, and what is needed to continue after a stop.

    OUTPUT/predictions.jsonl               a line {"header": ...}, then a record per sample, in the benchmark's order
    OUTPUT/Annotations/.../<frame>.png     8-bit, 0 or 255, one folder per sample
    OUTPUT/.journal/<worker>.jsonl         records of a run under way; joined into predictions.jsonl at its end
    OUTPUT/.lock                           held by the run at work
    OUTPUT/.partial/<worker>/              masks of the sample that a worker is writing; renamed when all are there

A sample is done when its record is written, which happens after its folder has its name. So a stop at any moment costs
at most the samples under way, and a continued run writes the same masks.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from eval.prediction_record import PredictionRecord
from veason.errors import DataError
from veason.files import atomic_path
from veason.model_info import RENAMED_KEYS

PREDICTIONS, JOURNAL, PARTIAL, LOCK = "predictions.jsonl", ".journal", ".partial", ".lock"
MAX_QUEUED = 8  # masks per writer thread that may wait to be written
MAY_DIFFER = ("versions", "device", "workers", "started")  # header fields that may change when a run is continued

Header = dict[str, Any]


class EvaluationFolder:
    """One evaluation's folder, used by the driver (`begin`, `finish`) and by every worker (`write_masks`, `append`)."""

    def __init__(self, path: str | os.PathLike[str], writer_threads: int = 4) -> None:
        self.path = Path(path)
        self.writer_threads = writer_threads

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder from before `begin` until after `finish`; the lock ends with this process, however it ends.

        Raises:
            DataError: another run is at work in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / LOCK, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(
                    f"another run is at work in {self.path}: wait for it, or give another output_path"
                ) from None
            yield

    def begin(self, header: Header) -> set[str]:
        """Start or continue a run; returns the ids of the samples that are done. Raises DataError: other settings."""
        self.path.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.path / PARTIAL, ignore_errors=True)
        predictions = self.path / PREDICTIONS
        if not predictions.exists():
            _write_run(predictions, header, [])
            return set()
        earlier, records = read_run(self.path)
        for key in sorted(set(header) | set(earlier)):
            if key not in MAY_DIFFER and header.get(key) != earlier.get(key):
                raise DataError(
                    f"{self.path} holds a run with {key}={earlier.get(key)!r}, not {header.get(key)!r}; give another "
                    "output_path or remove it"
                )
        return {record.sample_id for record in records if (self.path / record.result_dir).is_dir()}

    def write_masks(
        self, result_dir: str, names: tuple[str, ...], masks: Iterable[tuple[int, np.ndarray]], worker: int
    ) -> None:
        """Write every frame's mask, then give the folder its name.

        Args:
            names: of the frames.
            masks: (index, bool [H, W]), each index once, in any order.

        Raises:
            DataError: a mask is missing, or a file cannot be written.
        """
        aside, target = self.path / PARTIAL / str(worker), self.path / result_dir
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        count, waiting = 0, deque[Future[None]]()
        with ThreadPoolExecutor(self.writer_threads) as pool:
            for index, mask in masks:
                if len(waiting) == MAX_QUEUED * self.writer_threads:  # the tracker is faster than the disk
                    waiting.popleft().result()
                waiting.append(pool.submit(_write_png, aside / f"{names[index]}.png", mask))
                count += 1
            for future in waiting:
                future.result()
        if count != len(names):
            raise DataError(f"{result_dir}: {count} masks for {len(names)} frames")
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # of a sample that was stopped between its name and its record
            shutil.rmtree(target)
        os.rename(aside, target)

    def append(self, record: PredictionRecord, worker: int) -> None:
        """Record that a sample is done."""
        journal = self.path / JOURNAL / f"{worker}.jsonl"
        journal.parent.mkdir(exist_ok=True)
        with open(journal, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")  # a line torn by a stop stays unreadable, alone
            file.write(_line(record.to_json()).encode())
            file.flush()
            os.fsync(file.fileno())

    def finish(self, order: Iterable[str]) -> list[PredictionRecord]:
        """Join the journals into predictions.jsonl, in the order of sample ids given."""
        header, records = read_run(self.path)
        by_id = {record.sample_id: record for record in records}
        ordered = [by_id[sample_id] for sample_id in order]
        _write_run(self.path / PREDICTIONS, header, ordered)
        shutil.rmtree(self.path / JOURNAL, ignore_errors=True)
        shutil.rmtree(self.path / PARTIAL, ignore_errors=True)
        return ordered


def read_run(path: str | os.PathLike[str]) -> tuple[Header, list[PredictionRecord]]:
    """The header and the records of a run, finished or not; the last record of a sample counts. Raises DataError."""
    predictions = Path(path) / PREDICTIONS
    if not predictions.is_file():
        raise DataError(f"no run in {path}: {PREDICTIONS} is missing")
    first, *lines = read_json_lines(predictions)
    if "header" not in first:
        raise DataError(f"{predictions} has no header line")
    for journal in sorted((Path(path) / JOURNAL).glob("*.jsonl")):
        lines.extend(read_json_lines(journal))
    try:
        records = [PredictionRecord.from_json(line) for line in lines]
    except KeyError as error:
        raise DataError(f"{predictions}: a record has no {error}") from error
    header = {RENAMED_KEYS.get(key, key): value for key, value in first["header"].items()}
    return header, list({record.sample_id: record for record in records}.values())


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a file of JSON lines; a line that a stop cut short, or that is being written, is left out."""
    for line in path.read_bytes().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _write_run(path: Path, header: Header, records: Iterable[PredictionRecord]) -> None:
    with atomic_path(path) as part, open(part, "w", encoding="utf-8") as file:
        file.write(_line({"header": header}))
        file.writelines(_line(record.to_json()) for record in records)


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"  # ASCII: whatever the policy wrote, a line stays one line


def _write_png(path: Path, mask: np.ndarray) -> None:
    if not cv2.imwrite(str(path), mask.astype(np.uint8) * 255):
        raise DataError(f"mask cannot be written: {path}")
