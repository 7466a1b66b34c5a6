"""A program run as `python -m`, in the process of the test."""

from __future__ import annotations

import runpy
import sys
import warnings

import pytest


def run_program(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs `python -m module arguments` in this process and returns its exit status.

    The module stays in sys.modules, of which runpy warns: without it the program's own imports would make a second
    copy of it, and a later test's monkeypatch of "package.module.name" would reach that copy only.
    """
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* found in sys.modules", category=RuntimeWarning)
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0
