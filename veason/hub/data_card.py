"""The data card of a data set in the ReVOS form: README.md as the Hub shows it.

`veason data import` and `veason data describe` write it beside the data, `veason push` sends it. What stands between
the marks is made from the data and made anew each time; the rest, such as licence and provenance, belongs to people.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData
from yaml import YAMLError

from veason.errors import DataError
from veason.files import read_text_file, write_text
from veason.hub.data_origin import how_it_was_made
from veason.hub.model_card import HUB_LICENSES

CARD = "README.md"
KINDS = {0: "referring", 1: "reasoning", 2: "absent target"}
FILES = ("meta_expressions_*_.json", "mask_dict*.json", "JPEGImages/**/*.jpg", "JPEGImages/**/*.png")
BEGIN, END = "<!-- begin: made from the data, and made anew by `veason data` and `veason push` -->", "<!-- end -->"
UNFILLED = "Licence: to fill in."

MADE = """
| split | videos | frames | expressions | of them |
| --- | ---: | ---: | ---: | --- |
{rows}
{origin}
## Files

`JPEGImages/<video>/<frame>.jpg` has the frames. `meta_expressions_<split>_.json` has a video's frames and its
expressions, each with the ids of its objects. `mask_dict.json` has a run-length mask per frame and object id; null
means that the object is not visible.

## Use

```bash
{download}veason audit data --output audit
python -m verl.trainer.main config=configs/grpo_3b_one_gpu.yaml data.train_files=data
```
"""

BODY = """
# {name}

Videos with expressions and the masks of what they refer to, in the form of ReVOS.

{made}

## Source and licence

{license}

Whoever publishes a data set says here where its videos come from, who annotated them, and whether the people in them
agreed.
"""


def is_data_set(folder: Path) -> bool:
    """Whether a folder is a data set in the ReVOS form."""
    return any(folder.glob("meta_expressions_*_.json"))


def data_files(folder: Path) -> list[Path]:
    """The files of a data set that are uploaded."""
    return sorted({file for pattern in FILES for file in folder.glob(pattern)})


def data_card(folder: Path, repo_id: str, license: str) -> str:
    """The text of README.md on the Hub: that of the folder, with its licence and counts as they are now, or a new one.

    Raises:
        DataError: an annotation file or the README.md cannot be read.
    """
    path = folder / CARD
    text = read_text_file(path, "data card") if path.is_file() else new_card(folder, repo_id.rpartition("/")[2])
    try:
        card = DatasetCard(made_anew(text, folder, repo_id))
    except (ValueError, YAMLError) as error:  # the text between the first two lines of ---
        raise DataError(f"{path}: its metadata cannot be read: {str(error).splitlines()[0]}") from error
    known = license.lower() in HUB_LICENSES
    card.data["license"] = license.lower() if known else "other"
    card.data["license_name"] = None if known else license
    return f"---\n{card.data.to_yaml()}\n---\n{card.text.replace(UNFILLED, f'Licence: {license}.')}"


def write_card(folder: Path) -> bool:
    """Write README.md of a data set that was imported, or make it anew between its marks.

    Returns:
        Whether it was written; a README.md without the marks is somebody's own and stays as it is.

    Raises:
        DataError: README.md or an annotation file cannot be read.
    """
    path = folder / CARD
    card = read_text_file(path, "data card") if path.is_file() else new_card(folder, folder.resolve().name)
    if BEGIN not in card or END not in card:
        return False
    write_text(path, made_anew(card, folder))
    return True


def new_card(folder: Path, name: str) -> str:
    """A card whose licence is to be filled in."""
    data = DatasetCardData(
        license="unknown",
        task_categories=["image-segmentation"],
        tags=["video-segmentation", "reasoning-segmentation"],
        pretty_name=name,
    )
    body = BODY.format(name=name, made=f"{BEGIN}\n{END}", license=UNFILLED)
    return made_anew(f"---\n{data.to_yaml()}\n---\n{body}", folder)


def made_anew(text: str, folder: Path, repo_id: str | None = None) -> str:
    """A card with what stands between its marks made from the data as they are now; without the marks, as it is."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return text
    splits = read_splits(folder)
    made = MADE.format(
        rows="\n".join(split.row for split in splits),
        origin=how_it_was_made(folder, {name: video for split in splits for name, video in split.videos.items()}),
        download=f"hf download {repo_id} --repo-type dataset --local-dir data\n" if repo_id else "",
    )
    return f"{before}{begin}\n{made}\n{end}{after}"


@dataclass(frozen=True)
class Split:
    """One annotation file: its videos, and its row of the card's table."""

    videos: Mapping[str, Any]
    row: str


def read_splits(folder: Path) -> list[Split]:
    """The splits of a data set. Raises DataError for an annotation file that cannot be read."""
    splits = []
    for file in sorted(folder.glob("meta_expressions_*_.json")):
        name = file.name.removeprefix("meta_expressions_").removesuffix("_.json")
        try:
            videos = json.loads(file.read_text(encoding="utf-8"))["videos"]
            splits.append(Split(videos, _row(name, videos)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{file} is no annotation in the ReVOS form ({type(error).__name__}: {error})") from error
    return splits


def _row(split: str, videos: Mapping[str, Any]) -> str:
    expressions = [each for video in videos.values() for each in video["expressions"].values()]
    kinds = Counter(KINDS.get(each.get("type_id", 0), "other") for each in expressions)
    frames = sum(len(video["frames"]) for video in videos.values())
    shown = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"| {split} | {len(videos)} | {frames} | {len(expressions)} | {shown} |"
