"""What an import prints at its end."""

from __future__ import annotations

import shlex
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from veason.importing.boxes import LOW_AGREEMENT
from veason.importing.clips import VIDEOS
from veason.importing.job import Part
from veason.importing.source import TYPES

MAX_LISTED = 10  # videos or objects to look at


def summary(
    output: Path,
    parts: Mapping[str, Part],
    texts: Mapping[str, Sequence[Any]],
    splits: Mapping[str, Sequence[str]],
) -> list[str]:
    """What was imported, for people."""
    objects = [each for part in parts.values() for each in part["objects"].values()]
    kinds = Counter(expression.type_id for found in texts.values() for expression in found)
    shown = ", ".join(f"{kinds[number]} {name}" for name, number in TYPES.items() if kinds[number])
    frames = sum(part["frames"] for part in parts.values())
    lines = [
        f"{output}: {len(parts)} videos, {frames} frames, {len(objects)} objects, {kinds.total()} expressions"
        + (f" ({shown})" if shown else "")
    ]
    lines += [
        f"{split}: {len(names)} videos, {sum(len(texts[name]) for name in names)} expressions"
        for split, names in splits.items()
    ]
    dropped = [part["unannotated"] for part in parts.values() if part["unannotated"]]
    if dropped:
        lines.append(f"left out: {sum(dropped)} frames without an annotation, in {len(dropped)} videos")
    lines += [
        f"look at video {part['video']}: one frame is kept; a higher --fps keeps more"
        for part in parts.values()
        if part["frames"] == 1 and not part["unannotated"] and Path(part["source"]).suffix.lower() in VIDEOS
    ][:MAX_LISTED]
    lines += [
        f"look at video {part['video']}: of {part['frames'] + part['unannotated']} frames {part['frames']} "
        f"{'is' if part['frames'] == 1 else 'are'} kept, the others have no annotation"
        for part in parts.values()
        if part["unannotated"] > part["frames"] or (part["unannotated"] and part["frames"] == 1)
    ][:MAX_LISTED]
    tracked = [(part["video"], name, each) for part in parts.values() for name, each in part["objects"].items()]
    tracked = [each for each in tracked if each[2]["masks_from"] != "annotation"]
    if tracked:
        lines.append(f"masks tracked from boxes: {len(tracked)} objects")
        poor = [each for each in tracked if each[2]["box_iou"] is not None and each[2]["box_iou"] < LOW_AGREEMENT]
        lines += [
            f"look at video {video}, object {name}: its masks and the other boxes agree by IoU {each['box_iou']}"
            for video, name, each in poor[:MAX_LISTED]
        ]
    return lines


def next_command(output: Path, expressions: int, excluded: int) -> str:
    """What to type next."""
    folder = shlex.quote(str(output))
    audited = f"audit: {excluded} samples to leave out, see {output / 'audit' / 'report.md'}"
    if not expressions:
        return f"{audited}\nnext, expressions by a teacher: veason data describe {folder} --base_url URL --model NAME"
    left_out = f" data.exclude={shlex.quote(str(output / 'audit' / 'exclude.txt'))}" if excluded else ""
    if shutil.which("nvidia-smi") is None:
        return (
            f"{audited}\nnext, without a GPU and with the toy policy (its options: docs/own_data.md): python -m "
            f"verl.trainer.main config=configs/toy/demo.yaml data.train_files={folder}{left_out} "
            "worker.actor.model.model_path=weights/toy_policy trainer.n_gpus_per_node=1 trainer.max_steps=2"
        )
    return (
        f"{audited}\nnext: python -m verl.trainer.main config=configs/grpo_3b_one_gpu.yaml data.train_files={folder}"
        f"{left_out} worker.actor.model.model_path=CHECKPOINT worker.reward.sam2_checkpoint=SAM2"
    )
