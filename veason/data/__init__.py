"""Benchmarks by name. Your own needs no entry here: give its `package.module:Class` path."""

from __future__ import annotations

import os
from pathlib import Path

from veason.data.base import VideoBenchmark, VideoSample
from veason.data.selection import select_samples
from veason.errors import DataError
from veason.registry import load_by_name

BENCHMARKS = {
    "revos": "veason.data.revos:ReVOS",
    "reasonvos": "veason.data.reasonvos:ReasonVOS",
    "mevis": "veason.data.mevis:MeViS",
    "vicas": "veason.data.vicas:ViCaS",
    "refytvos": "veason.data.refytvos:RefYouTubeVOS",
    "refdavis17": "veason.data.refdavis17:RefDAVIS17",
    "mevis2": "veason.data.mevis2:MeViSv2",
    "long_rvos": "veason.data.long_rvos:LongRVOS",
    "ref_sav": "veason.data.ref_sav:RefSAV",
    "groundmore": "veason.data.groundmore:GroundMoRe",
    "reasonseg": "veason.data.reasonseg:ReasonSeg",
}

__all__ = ["BENCHMARKS", "VideoBenchmark", "VideoSample", "detect_benchmark", "find_benchmark", "open_benchmark"]


def find_benchmark(name: str) -> type[VideoBenchmark]:
    """The class behind a name of `BENCHMARKS` or a `package.module:Class` path.

    Raises:
        DataError: there is none; the nearest known name is given.
    """
    found = load_by_name(name, BENCHMARKS, "benchmark")
    if not (isinstance(found, type) and issubclass(found, VideoBenchmark)):
        raise DataError(f"benchmark: {name} is no subclass of veason.data.VideoBenchmark")
    return found


def detect_benchmark(root: str | os.PathLike[str]) -> str:
    """The name of the benchmark that a folder holds, detected from its files.

    Raises:
        DataError: the folder is missing, or holds none or several; its benchmark has to be named then.
    """
    if not Path(root).is_dir():
        raise DataError(f"data folder is missing: {root}")
    found = [name for name in BENCHMARKS if find_benchmark(name).matches(Path(root))]
    if len(found) != 1:
        holds = f"the files of {' and '.join(found)}" if found else f"the files of none of {', '.join(BENCHMARKS)}"
        remedy = "give its benchmark's name (option `benchmark`)"
        own = "" if found else ", or import own data with `veason data import`"
        raise DataError(f"{root} holds {holds}: {remedy}{own}")
    return found[0]


def open_benchmark(
    name: str, root: str | os.PathLike[str], split: str | None = None, check: bool = True
) -> VideoBenchmark:
    """A benchmark, ready for evaluation.

    Args:
        name: a name of `BENCHMARKS`, or `package.module:Class`.
        root: the data set's folder.
        split: its main evaluation split by default.
        check: raise now if any sample's frames or masks are missing or do not fit; False leaves it to the moment of
            use.

    Raises:
        DataError: one line that names the file, the video and the expression.
    """
    benchmark = find_benchmark(name)(root, split)
    if check:
        select_samples(benchmark)
    return benchmark
