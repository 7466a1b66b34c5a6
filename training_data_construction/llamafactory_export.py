"""Exports the records as a LLaMA-Factory data set, with the student's prompt, answer and resized frames.

    FOLDER/dataset_info.json
    FOLDER/veason_cot_train.json, FOLDER/veason_cot_val.json      sharegpt turns, one `<image>` per file of `images`
    FOLDER/images_560/<video>/<frame>.jpg                         each frame once, however many expressions show it

With `template: qwen2_vl` LLaMA-Factory renders a record to the same tokens as the chat template and
`veason.prompts.build_messages`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training_data_construction.cot_records import IMAGE_TAG, CoTRecord
from veason.errors import DataError
from veason.files import write_json
from veason.frames import read_frame, resize_frame
from veason.prompts import SYSTEM_PROMPT

COLUMNS = {"messages": "conversations", "system": "system", "images": "images"}
QUALITY, THREADS = 95, 8  # of the JPEGs; that write them
TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}


def export_llamafactory(folder: Path, splits: Mapping[str, Sequence[CoTRecord]], size: int = 560) -> None:
    """Writes the data set; existing frames are kept, and `dataset_info.json` is written last.

    Args:
        splits: name (train, val) -> records; an empty split is omitted.
        size: side of the square frames in pixels.

    Raises:
        DataError: a frame is missing or unreadable, or a prompt has not one `<image>` per frame (the expression has the
            tag).
    """
    pictures = {
        source: f"images_{size}/{record['video']}/{Path(source).stem}.jpg"
        for records in splits.values()
        for record in records
        for source in record["sampled_video_frames"]
    }
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [pool.submit(_write_picture, Path(each), folder / target, size) for each, target in pictures.items()]
        for job in tqdm(jobs, desc="LLaMA-Factory images", unit="frame", disable=None):
            job.result()
    info: dict[str, Any] = {}
    for split, records in splits.items():
        if records:
            name = f"veason_cot_{split}"
            write_json(folder / f"{name}.json", [_convert(record, pictures) for record in records], ensure_ascii=False)
            info[name] = {"file_name": f"{name}.json", "formatting": "sharegpt", "columns": COLUMNS, "tags": TAGS}
    write_json(folder / "dataset_info.json", info, ensure_ascii=False)


def _convert(record: CoTRecord, pictures: Mapping[str, str]) -> dict[str, Any]:
    images = [pictures[source] for source in record["sampled_video_frames"]]
    if (tags := record["conversation"][0]["value"].count(IMAGE_TAG)) != len(images):
        raise DataError(
            f"{record['video']}/{record['exp_id']}: {tags} {IMAGE_TAG} tags in the prompt for {len(images)} frames"
        )
    return {"system": SYSTEM_PROMPT, "conversations": record["conversation"], "images": images}


def _write_picture(source: Path, target: Path, size: int) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f"{target.name}.{os.getpid()}.part")
    resize_frame(read_frame(source), size).save(aside, format="JPEG", quality=QUALITY, subsampling=0)
    aside.replace(target)
