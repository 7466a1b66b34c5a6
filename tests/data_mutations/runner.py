"""Runs the consumers of a mutated data set in a process of its own, with a limit of time and of memory."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
import traceback
import zlib
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from tests.processes import fork_context

TIME_LIMIT = float(os.environ.get("MUT_LIMIT", "60"))  # seconds for all consumers together; they take about one
MEMORY_LIMIT = 2 << 30  # bytes beyond what the process begins with


@dataclass
class Report:
    """What became of a mutation.

    Attributes:
        outcomes: consumer -> `Outcome`.
        broken: consumer -> its traceback, or what it did instead of ending (hung, died).
    """

    outcomes: dict[str, object] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def run_mutation(name: str | None, layout: str) -> Report:
    """Mutate a small set in a fresh folder and run every consumer of its layout; None leaves the set whole."""
    context = fork_context()
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_consume, args=(there, name, layout))
    report, running = Report(), "mutation"
    process.start()  # returns once it is forked, the first time after the server's imports
    end = time.monotonic() + TIME_LIMIT
    there.close()
    try:
        while here.poll(max(0.0, end - time.monotonic())):
            try:
                kind, consumer, value = here.recv()
            except EOFError:
                process.join()
                if running:
                    report.broken[running] = f"the process died with exit status {process.exitcode}"
                return report
            running = consumer if kind == "began" else ""
            if kind == "ended":
                report.outcomes[consumer] = value
            elif kind == "broke":
                report.broken[consumer] = value
        report.broken[running] = f"no end after {TIME_LIMIT:.0f} s"
        return report
    finally:
        process.kill()
        process.join()


def _consume(results: Connection, name: str | None, layout: str) -> None:
    from tests.data_mutations.catalogue import CATALOGUE
    from tests.data_mutations.consumers import consume
    from tests.data_mutations.sets import write_set

    with open("/proc/self/statm", encoding="ascii") as file:
        begun_with = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    os.fsync = lambda _: None  # type: ignore[assignment]  # nothing here outlives the process
    resource.setrlimit(resource.RLIMIT_AS, (begun_with + MEMORY_LIMIT,) * 2)
    folder = Path(tempfile.mkdtemp(prefix="mutation-"))
    try:
        root = write_set(layout, folder / "data")
        if name is not None:
            CATALOGUE[name].apply(root, Random(zlib.crc32(name.encode())))
        (folder / "scratch").mkdir()
        for consumer, call in consume(layout, root, folder / "scratch"):
            results.send(("began", consumer, None))
            try:
                results.send(("ended", consumer, call()))
            except BaseException:
                results.send(("broke", consumer, traceback.format_exc()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
