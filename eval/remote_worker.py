"""The Ray actor of an evaluation's worker; without heavy imports, so that its messages are redirected before them."""

from __future__ import annotations

from collections.abc import Sequence

from eval.evaluation_options import EvaluateConfig
from verl.process_output import redirect_output, route_library_loggers, worker_log_path


class RemoteEvaluationWorker:
    """An `EvaluationWorker` whose messages, and those of its libraries, go to OUTPUT/logs/rank_N.log; errors to the
    screen as well.
    """

    def __init__(self, config: EvaluateConfig, rank: int) -> None:
        redirect_output(worker_log_path(config.output_path, rank))
        from eval.evaluation_worker import EvaluationWorker

        self.worker = EvaluationWorker(config, rank)
        route_library_loggers()  # of those that were imported since

    def run(self, indices: Sequence[int]) -> list[str]:
        return self.worker.run(indices)
