"""The archives that the servers of Ref-YouTube-VOS and MeViS take."""

from __future__ import annotations

import zipfile
from pathlib import Path

from eval.mask_scoring import prediction_folder
from veason.data import BENCHMARKS, VideoBenchmark, find_benchmark
from veason.errors import DataError
from veason.files import atomic_path


def write_archive(benchmark: VideoBenchmark, predictions: Path, target: Path) -> int:
    """Write a server's archive of every sample's PNGs; returns how many. Raises DataError where one is missing."""
    prefix = benchmark.archive_prefix
    if prefix is None:
        served = [name for name in BENCHMARKS if find_benchmark(name).archive_prefix is not None]
        raise DataError(f"{benchmark.name} has no server; archives are made for {', '.join(served)}")
    files = {}
    for sample in benchmark.samples:
        folder = prediction_folder(predictions, sample)
        for frame in sample.frames:
            files[f"{prefix}{sample.video}/{sample.exp_id}/{frame}.png"] = folder / f"{frame}.png"
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing:
        raise DataError(f"{len(missing)} of {len(files)} predictions are missing, first {missing[0]}")
    with atomic_path(target) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:  # PNGs are compressed
        for name, path in files.items():
            archive.write(path, name)
    return len(files)
