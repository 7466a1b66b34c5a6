"""The report's cards: one a sample, with what was asked, what the policy thought and said, and what came of it, in
pictures and numbers.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from eval.report_page import text
from eval.scores import read_predictions
from veason import masks as rle_masks
from veason.data import Benchmark, VideoSample
from veason.frames import evaluation_frames, read_frame
from veason.pictures import draw_boxes, overlay_masks, strip

Record = dict[str, Any]

TYPES = {0: "referring", 1: "reasoning", 2: "absent", None: "-"}
PRED_COLOUR, TRUE_COLOUR = (230, 57, 70), (60, 220, 110)  # also in the page's style
STRIP_FRAMES, STRIP_HEIGHT, KEYFRAME_HEIGHT = 6, 110, 240  # pictures of a sample; pixels


def sample_pictures(run: Path, benchmark: Benchmark, sample: VideoSample, record: Record) -> tuple[str, str]:
    """The keyframe with predicted and true boxes, and a strip of frames with predicted mask and true outline, as data
    URLs or "".
    """
    times = evaluation_frames(len(sample.frames), STRIP_FRAMES)
    pred, _ = read_predictions(run, sample)
    cells = []
    for time in times:
        cell = overlay_masks(read_frame(benchmark.frame_path(sample, time)), pred[time], palette=(PRED_COLOUR,))
        if benchmark.has_truth:
            true = benchmark.masks(sample, [time]).max(axis=(0, 1), initial=0)
            outlines, _ = cv2.findContours(true, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(cell, outlines, -1, TRUE_COLOUR, max(1, sample.height // 240))
        cells.append(cell)
    film = data_url(strip(cells, [f"{time}" for time in times], height=STRIP_HEIGHT))
    keyframe = record["keyframe"]
    if keyframe is None or not 0 <= keyframe < len(sample.frames):
        return "", film
    picture = read_frame(benchmark.frame_path(sample, keyframe))
    if benchmark.has_truth:
        true_boxes = [rle_masks.box(rle_masks.encode(mask)) for mask in benchmark.masks(sample, [keyframe])[:, 0]]
        picture = draw_boxes(picture, [box for box in true_boxes if box], TRUE_COLOUR)
    picture = draw_boxes(picture, record["boxes"], PRED_COLOUR)
    return data_url(strip([picture], [f"keyframe {keyframe}"], height=min(KEYFRAME_HEIGHT, sample.height))), film


def data_url(picture: np.ndarray) -> str:
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 75])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode("ascii")


def sample_card(record: Record, keyframe: str, film: str) -> str:
    """One sample's card, HTML; the pictures are data URLs."""
    kind, failure = TYPES.get(record["type_id"], "-"), record["failure"] or ""
    numbers = (
        f"J&amp;F {100 * record['JF']:.1f} &middot; J {100 * record['J']:.1f} &middot; F {100 * record['F']:.1f}"
        if "JF" in record
        else ""
    )
    facts = f"{kind} &middot; {objects(record['num_objects'])} &middot; {record['frames']} frames"
    found = f"keyframe {text(record['keyframe'])}, boxes {text(record['boxes'])}"
    pictures = "".join(
        f'<img alt="{what}" src="{url}">' for what, url in (("keyframe", keyframe), ("frames", film)) if url
    )
    data = {
        "id": record["sample_id"],
        "jf": record.get("JF", -1),
        "type": kind,
        "objects": record["num_objects"],
        "failure": failure,
    }
    attributes = " ".join(f'data-{key}="{text(value)}"' for key, value in data.items())
    return (
        f'<article id="{anchor(record)}" {attributes}><h3>{text(record["expression"])}</h3>'
        f'<p class="facts"><b>{numbers}</b> {facts} <code>{text(record["sample_id"])}</code>'
        + (f' <span class="failure">{text(failure)}</span>' if failure else "")
        + f'</p><div class="pictures">{pictures}</div><p class="thinking">{text(record["thinking"])}</p>'
        f"<details><summary>{found}</summary><pre>{text(record['answer'])}</pre></details></article>"
    )


def objects(count: int) -> str:
    return f"{count} object{'' if count == 1 else 's'}"


def anchor(record: Record) -> str:
    return "s" + hashlib.sha256(record["sample_id"].encode()).hexdigest()[:12]
