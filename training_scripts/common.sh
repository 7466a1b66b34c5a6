# shellcheck shell=bash
# Sourced by the launchers: strict mode, the repository's root, its Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi
# Ray's memory monitor kills workers for the memory use of unrelated processes.
export RAY_memory_monitor_refresh_ms=${RAY_memory_monitor_refresh_ms:-0}
