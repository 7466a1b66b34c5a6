"""Reports: one self-contained HTML page about a training run or an evaluation.

    python -m eval.report checkpoints/veason_r1/run                    # writes report.html into the run's folder
    python -m eval.report RUN --against RUN2                           # with the differences of two runs
    python -m eval.report checkpoints/run --evaluation outputs/revos   # a training run with its evaluation
    python -m eval.report outputs/reasonvos data=/elsewhere/ReasonVOS pictures=50

A page loads nothing and runs only its own script, whose hash is in its content security policy. Texts of a policy or an
annotation are escaped by the template engine.
"""

from eval.report.command import main

__all__ = ["main"]
