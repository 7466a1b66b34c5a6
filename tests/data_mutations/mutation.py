"""A mutation of a small data set, and the changes that the catalogue is made of."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

Change = Callable[[Path, Random], None]

REFUSED = "refused"  # training or evaluation refuses it
REPORTED = "reported"  # the audit tells, nobody refuses
HARMLESS = "harmless"  # accepted everywhere, and every example and score is that of the whole set
ACCEPTED = "accepted"  # accepted everywhere; what is shown may differ (another text is not wrong)
ANY = "any"  # by chance: no more is known than that nothing wrong is accepted unsaid


@dataclass(frozen=True)
class Mutation:
    """One change of one small data set.

    Attributes:
        name: of the test.
        apply: makes the change in the data set's folder; its random numbers depend on the name alone.
        layout: the benchmark whose small set is changed.
        verdict: REFUSED, REPORTED, HARMLESS, ACCEPTED or ANY.
        affected: the samples that `on_bad_sample=skip` leaves out; None where the whole set is lost or any may be.
    """

    name: str
    apply: Change
    layout: str = "revos"
    verdict: str = REFUSED
    affected: frozenset[str] | None = None


def edit_json(paths: Iterable[str], change: Callable[[Any], Any]) -> Change:
    """Change the content of JSON files; `change` works in place or returns another content."""

    def apply(root: Path, rng: Random) -> None:
        for path in (root / name for name in paths):
            content = json.loads(path.read_text())
            changed = change(content)
            path.write_text(json.dumps(content if changed is None else changed))

    return apply


def replace_bytes(paths: Iterable[str], change: Callable[[bytes], bytes]) -> Change:
    """Change the bytes of files."""

    def apply(root: Path, rng: Random) -> None:
        for path in (root / name for name in paths):
            path.write_bytes(change(path.read_bytes()))

    return apply


def put(paths: Iterable[str], what: str) -> Change:
    """Put something else in a file's place: a FIFO, a socket, a folder, a link, or nothing."""

    def apply(root: Path, rng: Random) -> None:
        for path in (root / name for name in paths):
            if path.is_dir():
                path.rename(path.with_name(path.name + ".moved"))
            else:
                path.unlink(missing_ok=True)
            place_object(path, what)

    return apply


def place_object(path: Path, what: str) -> None:
    if what == "fifo":
        os.mkfifo(path)
    elif what == "socket":
        here, place = os.getcwd(), socket.socket(socket.AF_UNIX)
        os.chdir(path.parent)  # an address has at most 107 bytes
        place.bind(path.name)
        place.close()
        os.chdir(here)
    elif what == "folder":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path.name)
    elif what == "dangling":
        path.symlink_to("nowhere")
    elif what == "zero_device":
        path.symlink_to("/dev/zero")
    elif what == "sparse":  # 64 GiB of zeros that take no room
        with open(path, "wb") as file:
            file.truncate(1 << 36)
    elif what == "empty":
        path.touch()
    else:
        assert what == "nothing", what
