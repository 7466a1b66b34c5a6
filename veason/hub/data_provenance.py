"""How a data set was made, for its card: what `veason data import` and `veason data describe` recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from veason.data.sample import read_json

FORMS = {
    "png": "videos with PNG masks, as DAVIS and YouTube-VOS have them",
    "coco": "videos with a COCO file",
    "jsonl": "JSON lines of videos, expressions and masks or boxes",
}
MAX_ROWS = 50  # of the table of tracked objects

TRACKED = """
### Masks made by a tracker

These objects came with boxes alone. IoU is the mean of the masks with the boxes that the tracker was not given; `-`:
there was one box.

| video | object | tracker | IoU |
| --- | --- | --- | ---: |
{rows}
"""


def provenance_text(folder: Path, videos: Mapping[str, Any]) -> str:
    """Markdown: source, frame rate, and who made masks and expressions; empty for a set that no import has made.

    Args:
        folder: of the data set; `import/options.json` in it has the options of the import.
        videos: of all splits, as a `meta_expressions` file has them.
    """
    record = folder / "import" / "options.json"
    if not record.is_file():
        return ""
    options = read_json(record)
    fps = options.get("fps")
    objects = [(name, key, each) for name, video in videos.items() for key, each in video.get("objects", {}).items()]
    tracked = [each for each in objects if each[2].get("masks_from", "annotation") != "annotation"]
    masks = Counter(each.get("masks_from", "annotation") for _, _, each in objects)
    writers = Counter(each.get("written_by", "") for video in videos.values() for each in video["expressions"].values())
    made_by = [f"{writers.pop('')} of the source"] if writers[""] else []
    rows = {
        "imported from": FORMS.get(options.get("format"), "a form that was not recorded"),
        "frames": f"{fps:g} a second of video files; folders of pictures as they are"
        if fps
        else "as the source has them",
        "frames without an annotation": "left out" if options.get("unannotated") == "drop" else "none",
        "masks": "; ".join(_masks(source, count) for source, count in masks.items()),
        "expressions": "; ".join(
            [*made_by, *(f"{count} written by {name}" for name, count in writers.items() if name)]
        ),
    }
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows.items() if value)
    return f"\n## How it was made\n\n| | |\n| --- | --- |\n{table}\n{_tracked(tracked)}"


def _masks(source: str, count: int) -> str:
    objects = "1 object" if count == 1 else f"{count} objects"
    if source == "annotation":
        return f"{objects} annotated in the source"
    return f"{objects} tracked by {source.removeprefix('boxes, ')} from boxes, **not annotated**"


def _tracked(objects: list[tuple[str, str, Mapping[str, Any]]]) -> str:
    """The table of objects whose masks a tracker made, the doubtful ones first."""
    if not objects:
        return ""
    worst = sorted(objects, key=lambda each: (each[2].get("box_iou") is None, each[2].get("box_iou") or 0.0))
    rows = [
        f"| {_cell(video)} | {_cell(name)} | {_cell(each['masks_from'].removeprefix('boxes, '))} | "
        f"{'-' if each.get('box_iou') is None else each['box_iou']} |"
        for video, name, each in worst[:MAX_ROWS]
    ]
    if len(worst) > MAX_ROWS:
        rows.append(f"| and {len(worst) - MAX_ROWS} more | | | |")
    return TRACKED.format(rows="\n".join(rows))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
