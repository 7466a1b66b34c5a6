"""The Ray actor around a worker."""

from __future__ import annotations

import faulthandler
import os
from pathlib import Path
from typing import Any

import ray

from verl.process_output import redirect_output, route_library_loggers
from verl.single_controller.cluster import network_environment
from verl.single_controller.head_watchdog import start_head_watchdog
from verl.single_controller.progress import publish_progress
from verl.single_controller.rendezvous import LISTEN_FD, listen

PROGRESS_PERIOD = 1.0  # seconds between two looks at a worker's progress


class RemoteWorker:
    """A Ray actor around a worker: it is there before the worker's class is imported, and calls its methods."""

    def visible_gpus(self) -> str | None:
        """The GPU that Ray has given to this process, as CUDA_VISIBLE_DEVICES names it."""
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    def set_visible_gpus(self, gpus: str) -> None:
        """Sets CUDA_VISIBLE_DEVICES, from before the worker's libraries are imported."""
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus

    def address(self) -> tuple[str, int]:
        """Opens a socket for the group's rendezvous, at this machine's address in the cluster; returns it and the port.

        It stays open for the worker, so that nobody else takes the port.
        """
        host = ray.util.get_node_ip_address()
        self.listener = listen(host)
        return host, self.listener.getsockname()[1]

    def redirect(self, path: Path) -> None:
        """Sends what this process writes to a file, from before the worker's libraries are imported."""
        redirect_output(path)
        self.redirected = True

    def create(
        self,
        worker_class: type,
        env: dict[str, str],
        args: tuple,
        kwargs: dict[str, Any],
        progress: str | None = None,
        watches: bool = False,
    ) -> None:
        """Makes the worker.

        Args:
            progress: the key under which what its method `progress` returns is published.
            watches: it ends if the head of the cluster is out of reach.
        """
        if watches:
            start_head_watchdog(ray.get_runtime_context().gcs_address)
        if (listener := getattr(self, "listener", None)) is not None:
            env = env | {LISTEN_FD: str(listener.detach())}
        os.environ.update(env | network_environment(ray.util.get_node_ip_address()))
        self.worker = worker_class(*args, **kwargs)
        if getattr(self, "redirected", False):
            route_library_loggers()  # of those that were imported since
        if progress is not None and hasattr(self.worker, "progress"):
            publish_progress(progress, self.worker.progress, PROGRESS_PERIOD)

    def run(self, method: str, args: tuple, kwargs: dict[str, Any], timeout: float) -> Any:
        """Calls a method of the worker.

        Args:
            timeout: seconds after which the stacks of all threads are written to this process's file, even by a worker
                that holds Python's lock; the call goes on.
        """
        faulthandler.dump_traceback_later(timeout, file=2)  # standard error; Ray has replaced sys.stderr
        try:
            return getattr(self.worker, method)(*args, **kwargs)
        except Exception:
            raise
        except BaseException as error:  # SystemExit would end the actor without a word
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        finally:
            faulthandler.cancel_dump_traceback_later()
