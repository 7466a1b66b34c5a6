"""An installed PyPI `verl` is named instead of one of the two shadowing the other."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def import_verl(site: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": f"{PROJECT}{os.pathsep}{site}"}
    return subprocess.run(
        [sys.executable, "-c", "import verl"], capture_output=True, text=True, env=environment, cwd=site
    )


def test_another_verl_is_named(tmp_path):
    assert import_verl(tmp_path).returncode == 0
    info = tmp_path / "verl-0.9.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: verl\nVersion: 0.9.1\n")
    refused = import_verl(tmp_path)
    assert refused.returncode != 0
    assert "verl 0.9.1" in refused.stderr
    assert "pip uninstall verl" in refused.stderr
