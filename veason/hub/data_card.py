"""The data card of a data set in the ReVOS form: README.md as the Hub shows it.

`veason data import` and `veason data describe` write it beside the data, `veason push` sends it. What stands between
the marks is made from the data and made anew each time; the rest, such as licence and provenance, belongs to people.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData
from yaml import YAMLError

from veason.errors import DataError
from veason.files import read_text_file, write_text
from veason.hub.data_provenance import provenance_text
from veason.hub.model_card import HUB_LICENSES

CARD_FILE = "README.md"
EXPRESSION_KINDS = {0: "referring", 1: "reasoning", 2: "absent target"}
DATA_FILES = ("meta_expressions_*_.json", "mask_dict*.json", "JPEGImages/**/*.jpg", "JPEGImages/**/*.png")
BEGIN, END = "<!-- begin: made from the data, and made anew by `veason data` and `veason push` -->", "<!-- end -->"
MISSING_LICENSE = "Licence: to fill in."

GENERATED_PART = """
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
    return sorted({file for pattern in DATA_FILES for file in folder.glob(pattern)})


def data_card(folder: Path, repo_id: str, license: str) -> str:
    """README.md as it is or a new one, with licence and counts as they are now. Raises DataError: unreadable files."""
    path = folder / CARD_FILE
    text = read_text_file(path, "data card") if path.is_file() else new_card(folder, repo_id.rpartition("/")[2])
    try:
        card = DatasetCard(regenerate_card(text, folder, repo_id))
    except (ValueError, YAMLError) as error:  # the text between the first two lines of ---
        raise DataError(f"{path}: its metadata cannot be read: {str(error).splitlines()[0]}") from error
    known = license.lower() in HUB_LICENSES
    card.data["license"] = license.lower() if known else "other"
    card.data["license_name"] = None if known else license
    return f"---\n{card.data.to_yaml()}\n---\n{card.text.replace(MISSING_LICENSE, f'Licence: {license}.')}"


def write_card(folder: Path) -> bool:
    """Write README.md of a data set that was imported, or make it anew between its marks.

    Returns:
        Whether it was written; a README.md without the marks is somebody's own and stays as it is.

    Raises:
        DataError: README.md or an annotation file cannot be read.
    """
    path = folder / CARD_FILE
    card = read_text_file(path, "data card") if path.is_file() else new_card(folder, folder.resolve().name)
    if BEGIN not in card or END not in card:
        return False
    write_text(path, regenerate_card(card, folder))
    return True


def new_card(folder: Path, name: str) -> str:
    """A card whose licence is to be filled in."""
    data = DatasetCardData(
        license="unknown",
        task_categories=["image-segmentation"],
        tags=["video-segmentation", "reasoning-segmentation"],
        pretty_name=name,
    )
    body = BODY.format(name=name, made=f"{BEGIN}\n{END}", license=MISSING_LICENSE)
    return regenerate_card(f"---\n{data.to_yaml()}\n---\n{body}", folder)


def regenerate_card(text: str, folder: Path, repo_id: str | None = None) -> str:
    """A card with what stands between its marks made from the data as they are now; without the marks, as it is."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return text
    splits = read_splits(folder)
    made = GENERATED_PART.format(
        rows="\n".join(row for _, row in splits),
        origin=provenance_text(folder, {name: video for videos, _ in splits for name, video in videos.items()}),
        download=f"hf download {repo_id} --repo-type dataset --local-dir data\n" if repo_id else "",
    )
    return f"{before}{begin}\n{made}\n{end}{after}"


def read_splits(folder: Path) -> list[tuple[Mapping[str, Any], str]]:
    """The videos of each split, and its row of the card's table. Raises DataError for a file that cannot be read."""
    splits = []
    for file in sorted(folder.glob("meta_expressions_*_.json")):
        name = file.name.removeprefix("meta_expressions_").removesuffix("_.json")
        try:
            videos = json.loads(file.read_text(encoding="utf-8"))["videos"]
            splits.append((videos, _row(name, videos)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{file} is no annotation in the ReVOS form ({type(error).__name__}: {error})") from error
    return splits


def _row(split: str, videos: Mapping[str, Any]) -> str:
    expressions = [each for video in videos.values() for each in video["expressions"].values()]
    kinds = Counter(EXPRESSION_KINDS.get(each.get("type_id", 0), "other") for each in expressions)
    frames = sum(len(video["frames"]) for video in videos.values())
    shown = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"| {split} | {len(videos)} | {frames} | {len(expressions)} | {shown} |"
