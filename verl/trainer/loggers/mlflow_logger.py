"""MLflow (mlflow.org)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from verl.config import Config
from verl.trainer.loggers.base import Logger, import_service, quartiles
from verl.trainer.run_info import RunInfo

PARAMS_PER_CALL, PARAM_LENGTH = 100, 6000  # MLflow's limits


class MLflowLogger(Logger):
    """A run of the experiment trainer.project_name at MLFLOW_TRACKING_URI; without that in `folder`/mlflow.db
    and `folder`/mlflow_artifacts.

    MLflow makes its own run ids: run.json keeps it, and a resumed run goes on under it.
    """

    def __init__(self, folder: Path, config: Config, steps: int) -> None:
        self.mlflow = mlflow = import_service("mlflow", "mlflow")
        self.folder = folder
        info = RunInfo.read(folder)
        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
            if mlflow.get_experiment_by_name(info.project) is None:  # otherwise pictures go below the current folder
                mlflow.create_experiment(info.project, (folder / "mlflow_artifacts").resolve().as_uri())
        mlflow.set_experiment(info.project)
        resumed = info.service_ids.get("mlflow")
        run = mlflow.start_run(run_id=resumed, run_name=None if resumed else info.name)
        if resumed is None:
            info.service_ids["mlflow"] = run.info.run_id
            info.write(folder)
            parameters = list(_flat(info.config))
            for start in range(0, len(parameters), PARAMS_PER_CALL):
                mlflow.log_params(dict(parameters[start : start + PARAMS_PER_CALL]))

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self.mlflow.log_metrics(dict(metrics), step=step)

    def val_generations(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        self.mlflow.log_dict(list(map(dict, rows)), f"val_generations/step_{step}.json")

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """MLflow draws no histogram; quartiles show how a distribution moves."""
        self.mlflow.log_metrics(quartiles(values), step=step)

    def rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        self.mlflow.log_dict(
            [{key: value for key, value in row.items() if key != "pictures"} for row in rows],
            f"rollouts/step_{step}_{rows[0]['phase']}.json",
        )
        for path in (path for row in rows for path in row["pictures"].values()):
            self.mlflow.log_artifact(str(path), f"rollouts/step_{step}")

    def close(self) -> None:
        self.mlflow.end_run()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys, values as text of at most PARAM_LENGTH characters."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)[:PARAM_LENGTH]
