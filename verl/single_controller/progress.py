"""Progress that workers publish while a call is under way, for progress bars.

An actor answers one call at a time, so the driver cannot ask it: a thread of each worker writes its progress into the
key-value store of the Ray cluster (as Ray's own libraries do), a few bytes a second.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable

from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put

from verl.metric_types import Progress


def publish_progress(key: str, progress: Callable[[], Progress], period: float) -> None:
    """Starts a thread that writes what `progress` returns under `key` whenever it has changed; it ends with the
    process.

    Args:
        period: seconds between two looks.
    """

    def publish() -> None:
        published, pause = "", threading.Event()
        while not pause.wait(period):
            text = json.dumps(dict(progress()))
            if text != published:
                _internal_kv_put(key, text, overwrite=True)
                published = text

    threading.Thread(target=publish, daemon=True, name="progress").start()


def read_progress(keys: list[str]) -> dict[str, tuple[int, int]]:
    """The sums over the workers that have published under these keys; phases in the order in which they were named."""
    done: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for key in keys:
        for phase, (finished, of) in json.loads(_internal_kv_get(key) or b"{}").items():
            done[phase] += finished
            total[phase] += of
    return {phase: (done[phase], total[phase]) for phase in total}


def delete_progress(keys: list[str]) -> None:
    """Removes what was published."""
    for key in keys:
        _internal_kv_del(key)
