"""Benchmarks by name. Your own needs no entry here: open it by its `package.module:Class` path."""

from __future__ import annotations

import importlib
import os
from difflib import get_close_matches

from veason.data.base import Benchmark, VideoSample
from veason.errors import DataError

BENCHMARKS = {
    "revos": "veason.data.revos:ReVOS",
    "reasonvos": "veason.data.reasonvos:ReasonVOS",
    "mevis": "veason.data.mevis:MeViS",
    "vicas": "veason.data.vicas:ViCaS",
    "refytvos": "veason.data.refytvos:RefYouTubeVOS",
    "refdavis17": "veason.data.refdavis17:RefDAVIS17",
}

__all__ = ["BENCHMARKS", "Benchmark", "VideoSample", "load_class", "open_benchmark"]


def load_class(name: str, table: dict[str, str], kind: str) -> type:
    """The class behind a short name of `table` or behind a `package.module:Class` path.

    Raises:
        DataError: neither; the nearest known name is given.
    """
    path = table.get(name, name)
    if ":" not in path:
        near = get_close_matches(name, table, n=1) or [", ".join(table)]
        raise DataError(f"unknown {kind} {name!r}; did you mean {near[0]}? (or give package.module:Class)")
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise DataError(f"{kind} {path} cannot be found ({error})") from error


def open_benchmark(name: str, root: str | os.PathLike[str], split: str | None = None, check: bool = True) -> Benchmark:
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
    benchmark = load_class(name, BENCHMARKS, "benchmark")(root, split)
    if check:
        benchmark.verify()
    return benchmark
