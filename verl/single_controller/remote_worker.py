"""The Ray actor around a worker."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import ray

from verl.process_output import redirect_output, route_library_loggers
from verl.single_controller.shared_counts import publish_counts

COUNTS_PERIOD = 1.0  # seconds between two looks at a worker's counts


class RemoteWorker:
    """A Ray actor around a worker: it is there before the worker's class is imported, and calls its methods."""

    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()

    def gpu(self) -> str | None:
        """The GPU that Ray has given to this process, as CUDA_VISIBLE_DEVICES names it."""
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    def address(self) -> tuple[str, int]:
        """This machine's address and a free port, for the group's rendezvous."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def redirect(self, path: Path) -> None:
        """Sends what this process writes to a file, from before the worker's libraries are imported."""
        redirect_output(path)
        self.redirected = True

    def create(
        self, worker_class: type, env: dict[str, str], args: tuple, kwargs: dict[str, Any], counts: str | None = None
    ) -> None:
        """Makes the worker; the counts of its method `counts` are published under the key `counts`."""
        os.environ.update(env)
        self.worker = worker_class(*args, **kwargs)
        if getattr(self, "redirected", False):
            route_library_loggers()  # of those that were imported since
        if counts is not None and hasattr(self.worker, "counts"):
            publish_counts(counts, self.worker.counts, COUNTS_PERIOD)

    def run(self, method: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        return getattr(self.worker, method)(*args, **kwargs)
