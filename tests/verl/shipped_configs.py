"""The configurations of the repository, and the variables that they name files by."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if not path.name.startswith("llamafactory"))
VARIABLES = {
    "REVOS_ROOT": "/data/ReVOS",
    "SAM2_CHECKPOINT": "/weights/sam2.pt",
    "MODEL_PATH": "/weights/sft",
    "COT_ROOT": "/data/cot",
}
