"""Reports: one self-contained HTML page about a training run or an evaluation."""

from eval.report.command import ReportConfig, main, write_report

__all__ = ["ReportConfig", "main", "write_report"]
