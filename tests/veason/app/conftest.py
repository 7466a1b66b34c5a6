"""Gradio comes from `.venv-app`, which `make test` makes, where the environment does not have it."""

import sys
from importlib.util import find_spec
from pathlib import Path

APP_PACKAGES = Path(__file__).parents[3] / ".venv-app"

if find_spec("gradio") is None and APP_PACKAGES.is_dir():
    sys.path.append(str(APP_PACKAGES))  # last: what the environment has stays
