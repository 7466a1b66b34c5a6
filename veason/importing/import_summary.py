"""What an import prints at its end."""

from __future__ import annotations

import shlex
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from veason.data.sample import read_json
from veason.importing.annotations import EXPRESSION_TYPES
from veason.importing.masks_from_boxes import LOW_AGREEMENT
from veason.importing.source_clips import VIDEOS
from veason.importing.video_import import ImportedVideo

MAX_LISTED = 10  # videos or objects to look at


def summary_lines(
    output: Path,
    imported: Mapping[str, ImportedVideo],
    texts: Mapping[str, Sequence[Any]],
    splits: Mapping[str, Sequence[str]],
) -> list[str]:
    """What was imported, for people."""
    objects = [each for video in imported.values() for each in video["objects"].values()]
    kinds = Counter(expression.type_id for found in texts.values() for expression in found)
    shown = ", ".join(f"{kinds[number]} {name}" for name, number in EXPRESSION_TYPES.items() if kinds[number])
    frames = sum(video["frames"] for video in imported.values())
    lines = [
        f"{output}: {len(imported)} videos, {frames} frames, {len(objects)} objects, {kinds.total()} expressions"
        + (f" ({shown})" if shown else "")
    ]
    lines += [
        f"{split}: {len(names)} videos, {sum(len(texts[name]) for name in names)} expressions"
        for split, names in splits.items()
    ]
    dropped = [video["unannotated"] for video in imported.values() if video["unannotated"]]
    if dropped:
        lines.append(f"left out: {sum(dropped)} frames without an annotation, in {len(dropped)} videos")
    lines += [
        f"look at video {video['video']}: one frame is kept; a higher --fps keeps more"
        for video in imported.values()
        if video["frames"] == 1 and not video["unannotated"] and Path(video["source"]).suffix.lower() in VIDEOS
    ][:MAX_LISTED]
    lines += [
        f"look at video {video['video']}: of {video['frames'] + video['unannotated']} frames {video['frames']} "
        f"{'is' if video['frames'] == 1 else 'are'} kept, the others have no annotation"
        for video in imported.values()
        if video["unannotated"] > video["frames"] or (video["unannotated"] and video["frames"] == 1)
    ][:MAX_LISTED]
    tracked = [(video["video"], name, each) for video in imported.values() for name, each in video["objects"].items()]
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
    if not _has_expressions(output, "train"):
        return (
            f"{audited}\nnext: no expression is about a training video; --val_ratio 0 trains on all videos, "
            "--captions gives more expressions"
        )
    left_out = f" data.exclude={shlex.quote(str(output / 'audit' / 'exclude.txt'))}" if excluded else ""
    if shutil.which("nvidia-smi") is None:
        validation = "" if _has_expressions(output, "valid") else " data.val_files=null"
        return (
            f"{audited}\nnext, without a GPU and with the toy policy (its options: docs/own_data.md): python -m "
            f"verl.trainer.main config=configs/toy/demo.yaml data.train_files={folder}{validation}{left_out} "
            "worker.actor.model.model_path=weights/toy_policy trainer.n_gpus_per_node=1 trainer.max_steps=2"
        )
    return (
        f"{audited}\nnext: python -m verl.trainer.main config=configs/grpo_3b_one_gpu.yaml data.train_files={folder}"
        f"{left_out} worker.actor.model.model_path=CHECKPOINT worker.reward.sam2_checkpoint=SAM2"
    )


def _has_expressions(output: Path, split: str) -> bool:
    path = output / f"meta_expressions_{split}_.json"
    return path.is_file() and any(video["expressions"] for video in read_json(path)["videos"].values())
