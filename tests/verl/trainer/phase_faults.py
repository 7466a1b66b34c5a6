"""A reward rule that makes a worker of a real run fail: `letters_rule`, and faults named by the environment.

PHASE_FAULTS=FOLDER,METHOD:NUMBER,... ends rank 1 by SIGKILL in each METHOD's call of that NUMBER, each method once:
FOLDER remembers which. METHOD `memory` takes the GPU's memory away in the NUMBERth update instead, each time.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from letters_rule import RULE

from verl.workers.worker import Worker

__all__ = ["RULE"]
DELAY = 0.01  # seconds after which the call is under way
ALLOWED = 1 << 20  # bytes that an update without memory may have


def add_fault(method: str, number: int, marks: Path) -> None:
    """Wraps a method of the workers of this process."""
    name = "update" if method == "memory" else method
    original, calls = getattr(Worker, name), 0

    @functools.wraps(original)
    def wrapped(self: Worker, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and method == "memory":
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(self.device).total_memory
            torch.cuda.set_per_process_memory_fraction(ALLOWED / total, self.device)
        elif calls == number and self.rank == 1 and not (marks / method).exists():
            (marks / method).touch()
            threading.Timer(DELAY, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return original(self, *args, **kwargs)

    setattr(Worker, name, wrapped)


folder, *faults = os.environ["PHASE_FAULTS"].split(",")
for fault in faults:
    add_fault(fault.partition(":")[0], int(fault.partition(":")[2]), Path(folder))
