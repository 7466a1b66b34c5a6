"""A worker on another host ends itself when the cluster's head is out of reach: Ray there waits for minutes."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

PERIOD = 5.0  # seconds between two looks, and for an answer
LIMIT = 30.0  # seconds without an answer


def start_head_watchdog(address: str, limit: float = LIMIT, period: float = PERIOD) -> None:
    """Starts a thread that ends this process, with a line on stderr, once the head has not answered for `limit`
    seconds; a thread, since the worker may wait for a rank that it cannot reach either.

    Args:
        address: host:port of Ray's head (GCS).
    """
    host, _, port = address.rpartition(":")

    def watch() -> None:
        answered = time.monotonic()
        while time.monotonic() - answered < limit:
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=period).close()
                answered = time.monotonic()
            except OSError:
                pass
            time.sleep(period)
        print(f"the head of the Ray cluster, {address}, did not answer for {limit:.0f} s: ended", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="head_watchdog").start()
