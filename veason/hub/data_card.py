"""The data card of a data set in the ReVOS form, such as an imported one."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import DatasetCardData

from veason.errors import DataError
from veason.hub.model_card import HUB_LICENSES

KINDS = {0: "referring", 1: "reasoning", 2: "absent target"}
FILES = ("meta_expressions_*_.json", "mask_dict*.json", "JPEGImages/**/*.jpg", "JPEGImages/**/*.png")

BODY = """
# {name}

Videos with expressions and the masks of what they refer to, in the form of ReVOS.

| split | videos | frames | expressions | of them |
| --- | ---: | ---: | ---: | --- |
{rows}

## Files

`JPEGImages/<video>/<frame>.jpg` has the frames. `meta_expressions_<split>_.json` has a video's frames and its
expressions, each with the ids of its objects. `mask_dict.json` has a run-length mask per frame and object id; null
means that the object is not visible.

## Use

```bash
hf download {repo_id} --repo-type dataset --local-dir data
veason audit data --output audit
python -m verl.trainer.main config=configs/grpo_3b_one_gpu.yaml data.train_files=data
```

## Source and licence

{license}. Whoever publishes a data set says here where its videos come from, who annotated them, and whether the people
in them agreed.
"""


@dataclass(frozen=True)
class Split:
    """Counts of one annotation file."""

    name: str
    videos: int
    frames: int
    kinds: Counter[str]


def is_data_set(folder: Path) -> bool:
    """Whether a folder is a data set in the ReVOS form."""
    return any(folder.glob("meta_expressions_*_.json"))


def data_files(folder: Path) -> list[Path]:
    """The files of a data set that are uploaded."""
    return sorted({file for pattern in FILES for file in folder.glob(pattern)})


def read_splits(folder: Path) -> list[Split]:
    """The splits of a data set. Raises DataError for an annotation file that cannot be read."""
    splits = []
    for file in sorted(folder.glob("meta_expressions_*_.json")):
        try:
            videos = json.loads(file.read_text(encoding="utf-8"))["videos"]
            kinds = Counter(
                KINDS.get(expression.get("type_id", 0), "other")
                for video in videos.values()
                for expression in video["expressions"].values()
            )
            frames = sum(len(video["frames"]) for video in videos.values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{file} is no annotation in the ReVOS form ({type(error).__name__}: {error})") from error
        name = file.name.removeprefix("meta_expressions_").removesuffix("_.json")
        splits.append(Split(name, len(videos), frames, kinds))
    return splits


def data_card(folder: Path, repo_id: str, license: str) -> str:
    """The text of README.md."""
    known = license.lower() in HUB_LICENSES
    name = repo_id.rpartition("/")[2]
    data = DatasetCardData(
        license=license.lower() if known else "other",
        license_name=None if known else license,
        task_categories=["image-segmentation"],
        tags=["video-segmentation", "reasoning-segmentation"],
        pretty_name=name,
    )
    rows = [
        f"| {split.name} | {split.videos} | {split.frames} | {split.kinds.total()} | "
        f"{', '.join(f'{count} {kind}' for kind, count in sorted(split.kinds.items()))} |"
        for split in read_splits(folder)
    ]
    body = BODY.format(name=name, repo_id=repo_id, rows="\n".join(rows), license=f"Licence: {license}")
    return f"---\n{data.to_yaml()}\n---\n{body}"
