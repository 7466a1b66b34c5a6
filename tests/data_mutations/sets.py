"""The small data sets that are mutated, in the layouts as their authors hand them out."""

from __future__ import annotations

import json
from pathlib import Path

from tests.official_folders import visa_davis17
from tests.veason import small_benchmarks
from tests.veason.small_revos import write_revos
from training_data_construction.cot_records import build_record
from training_data_construction.teacher_tasks import plan_tasks
from veason.data.training_split import open_training_split


def write_set(layout: str, folder: Path) -> Path:
    """Write a layout's small set below `folder`; returns its root."""
    if layout == "revos":
        return write_revos(folder)
    if layout == "visa":
        visa_davis17(folder / "DAVIS17")
        return folder / "DAVIS17"
    if layout == "cot":
        root = write_revos(folder)
        tasks, _ = plan_tasks(open_training_split("revos", root, "train"), seed=0, sampled_frames=4)
        records = [build_record(task, "Step 1: a.", size=56) for task in tasks]
        (root / "cot.json").write_text(json.dumps(records))
        return root
    write = {
        "reasonvos": small_benchmarks.write_reasonvos,
        "refdavis17": small_benchmarks.write_refdavis17,
        "mevis": small_benchmarks.write_mevis,
        "vicas": small_benchmarks.write_vicas,
    }[layout]
    return write(folder)
