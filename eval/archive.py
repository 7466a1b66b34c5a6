"""The archives that the servers of Ref-YouTube-VOS and MeViS take."""

from __future__ import annotations

import zipfile
from pathlib import Path

from eval.scores import prediction_folder
from veason.data import Benchmark
from veason.errors import DataError

TOP = {"refytvos": "Annotations/", "mevis": ""}  # what stands before <video>/<exp_id>/<frame>.png


def write_archive(benchmark: Benchmark, predictions: Path, target: Path) -> int:
    """Write a server's archive: every sample's PNGs. Returns how many files it holds.

    Raises:
        DataError: a PNG is missing (a server refuses the whole archive then), or the benchmark has no server.
    """
    if benchmark.name not in TOP:
        raise DataError(f"{benchmark.name} has no server; archives are made for {', '.join(TOP)}")
    files = {}
    for sample in benchmark.samples:
        folder = prediction_folder(predictions, sample)
        for frame in sample.frames:
            files[f"{TOP[benchmark.name]}{sample.video}/{sample.exp_id}/{frame}.png"] = folder / f"{frame}.png"
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing:
        raise DataError(f"{len(missing)} of {len(files)} predictions are missing, first {missing[0]}")
    aside = target.with_name(target.name + ".new")
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:  # a PNG is compressed already
        for name, path in files.items():
            archive.write(path, name)
    aside.replace(target)
    return len(files)
