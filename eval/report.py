"""One self-contained page about a run: the table, distributions, and every sample with its reasoning and its pictures.

    python -m eval.report outputs/reasonvos                       # writes outputs/reasonvos/report.html
    python -m eval.report outputs/reasonvos data=/elsewhere/ReasonVOS pictures=50

The page loads nothing and runs one script, its own (its content security policy holds the script's hash). Whatever a policy or an
annotation wrote is shown as text. Where the split has truth and the run was not scored since it ended, it is scored first.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from omegaconf import MISSING

from eval import metrics, report_page
from eval.config import name_places, read_words
from eval.run_folder import PREDICTIONS, read_run
from eval.scores import read_predictions
from eval.tables import NOTES, PAPER
from veason import masks as rle_masks
from veason.datasets import Benchmark, VideoSample, open_benchmark
from veason.errors import DataError
from veason.frames import evaluation_frames, read_frame
from veason.pictures import draw_boxes, overlay_masks, strip
from verl.config import ConfigError

TYPES = {0: "referring", 1: "reasoning", 2: "absent", None: "-"}
TRUE_COLOUR = (60, 220, 110)
STRIP_FRAMES, STRIP_HEIGHT, KEYFRAME_HEIGHT = 6, 110, 240  # pictures of a sample; pixels
LISTED = 10  # samples in the lists of the best and of the worst
BINS = 10  # of a distribution


@dataclass
class ReportConfig:
    """What a report can be told."""

    run: str = MISSING  # a run's folder; the first word
    data: str | None = None  # the benchmark's root folder; null: where the run found it
    pictures: int = 200  # samples that get pictures, the worst and the best first; a page of 200 is about 15 MB
    output: str | None = None  # null: report.html in the run's folder


Record = dict[str, Any]


def main(words: Sequence[str]) -> int:
    try:
        target = write_report(read_words(ReportConfig, name_places(ReportConfig, words, ("run",))))
    except (ConfigError, DataError) as error:
        print(f"eval.report: {error}", file=sys.stderr)
        return 2
    print(f"{target} ({target.stat().st_size / 1e6:.1f} MB)")
    return 0


def write_report(config: ReportConfig) -> Path:
    """Write the page. Raises DataError when there is no run, or its data is gone."""
    run = Path(config.run)
    header, records = read_run(run)
    benchmark = open_benchmark(header["benchmark"], config.data or header["data_path"], header["split"], check=False)
    table = read_scores(run, benchmark, records)
    samples = {sample.sample_id: sample for sample in benchmark.samples}
    ranked = sorted(records, key=lambda record: record.get("JF", 0.0))
    chosen = {record["sample_id"] for record in interleave(ranked, ranked[::-1])[: config.pictures]}

    def card(record: Record) -> str:
        sample = samples[record["sample_id"]]
        pictures = sample_pictures(run, benchmark, sample, record) if record["sample_id"] in chosen else ("", "")
        return sample_card(record, *pictures)

    cards = [card(record) for record in ranked]
    body = [
        report_page.section("Results", results_table(header, table)),
        report_page.section("Distribution of J&F", distributions(records)),
        report_page.section("Worst and best", listings(ranked)) if table else "",
        report_page.section("Samples", report_page.CONTROLS + '<div id="samples">' + "".join(cards) + "</div>"),
        report_page.section("Run", settings(header)),
    ]
    target = Path(config.output) if config.output else run / "report.html"
    title = f"{header['benchmark']} {Path(header['model_path']).name}"
    page = report_page.page(title, f"{len(records)} expressions, {header['started']}", "".join(body))
    target.write_bytes(page.encode("utf-8", errors="replace"))  # a policy may write halves of characters
    return target


def read_scores(run: Path, benchmark: Benchmark, records: list[Record]) -> Record:
    """The run's table; each record gets its sample's numbers. Empty where the split has no truth."""
    if not benchmark.has_truth:
        return {}
    path = run / "metrics.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if (
        content is None
        or path.stat().st_mtime_ns < (run / PREDICTIONS).stat().st_mtime_ns  # the run went on since
        or {score["sample_id"] for score in content["samples"]} != {record["sample_id"] for record in records}  # of a part, with limit=
    ):
        metrics.score(metrics.complete(metrics.MetricsConfig(str(run), str(benchmark.root))))
        content = json.loads(path.read_text(encoding="utf-8"))
    by_id = {score["sample_id"]: score for score in content["samples"]}
    for record in records:
        record.update({key: by_id[record["sample_id"]][key] for key in ("J", "F", "JF")})
    return content["table"]


def interleave(first: Sequence[Record], second: Sequence[Record]) -> list[Record]:
    """One of each in turn, each record once."""
    found = {record["sample_id"]: record for pair in zip(first, second) for record in pair}
    return list(found.values())


# -- pictures ---------------------------------------------------------------------------------------------------------


def sample_pictures(run: Path, benchmark: Benchmark, sample: VideoSample, record: Record) -> tuple[str, str]:
    """The keyframe with predicted (red) and true (green) boxes, and a strip of frames under the predicted mask, as data URLs."""
    times = evaluation_frames(len(sample.frames), STRIP_FRAMES)
    pred, _ = read_predictions(run, sample)
    cells = []
    for time in times:
        cell = overlay_masks(read_frame(benchmark.frame_path(sample, time)), pred[time], palette=((230, 57, 70),))
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
    picture = draw_boxes(picture, record["boxes"])
    return data_url(strip([picture], [f"keyframe {keyframe}"], height=min(KEYFRAME_HEIGHT, sample.height))), film


def data_url(picture: np.ndarray) -> str:
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 75])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode("ascii")


# -- pieces of the page; every text goes through `text` ---------------------------------------------------------------


def text(value: Any) -> str:
    """A value as HTML text or as an attribute's content."""
    return html.escape(str(value), quote=True)


def sample_card(record: Record, keyframe: str, film: str) -> str:
    """One sample: what was asked, what the policy thought and said, what came of it."""
    kind, failure = TYPES.get(record["type_id"], "-"), record["failure"] or ""
    numbers = (
        f"J&amp;F {100 * record['JF']:.1f} &middot; J {100 * record['J']:.1f} &middot; F {100 * record['F']:.1f}" if "JF" in record else ""
    )
    facts = f"{kind} &middot; {record['num_objects']} objects &middot; {record['frames']} frames"
    found = f"keyframe {text(record['keyframe'])}, boxes {text(record['boxes'])}"
    pictures = "".join(f'<img alt="{what}" src="{url}">' for what, url in (("keyframe", keyframe), ("frames", film)) if url)
    data = {
        "id": record["sample_id"],
        "jf": record.get("JF", -1),
        "type": kind,
        "objects": record["num_objects"],
        "failure": failure,
        "words": f"{record['sample_id']} {record['expression']} {record['answer']}".lower(),
    }
    attributes = " ".join(f'data-{key}="{text(value)}"' for key, value in data.items())
    return (
        f'<article id="{anchor(record)}" {attributes}><h3>{text(record["expression"])}</h3>'
        f'<p class="facts"><b>{numbers}</b> {facts} <code>{text(record["sample_id"])}</code>'
        + (f' <span class="failure">{text(failure)}</span>' if failure else "")
        + f'</p><div class="pictures">{pictures}</div><p class="thinking">{text(record["thinking"])}</p>'
        f"<details><summary>{found}</summary><pre>{text(record['answer'])}</pre></details></article>"
    )


def anchor(record: Record) -> str:
    return "s" + hashlib.sha256(record["sample_id"].encode()).hexdigest()[:12]


def results_table(header: Record, table: Record) -> str:
    """The paper's rows, then ours with intervals."""
    if not table:
        return "<p>This split has no public truth.</p>"
    paper = PAPER.get(header["benchmark"]) or PAPER.get(f"{header['benchmark']} {header['split'] or 'val'}") or ()
    rows = [[method, *(f"{row[title]:.1f}" if title in row else "" for title in table)] for method, row in paper]
    ours = ["this run", *(_interval(value) for value in table.values())]
    note = f"<p>{text(NOTES[header['benchmark']])}</p>" if header["benchmark"] in NOTES else ""
    return report_page.table(["", *map(text, table)], [[*map(text, row)] for row in rows], [*map(text, ours)]) + note


def _interval(value: Record) -> str:
    if value["value"] is None:
        return ""
    return f"{value['value']:.1f}" + (f" [{value['low']:.1f}, {value['high']:.1f}]" if value["low"] is not None else "")


def distributions(records: Sequence[Record]) -> str:
    """Histograms of J&F: all, by type, by number of objects."""
    scored = [record for record in records if "JF" in record]
    groups = [("all", scored)]
    groups += [(name, [r for r in scored if r["type_id"] == number]) for number, name in TYPES.items() if number is not None]
    groups += [
        (f"{count} objects", [r for r in scored if r["num_objects"] == count]) for count in sorted({r["num_objects"] for r in scored})
    ]
    return "".join(report_page.histogram(name, [100 * r["JF"] for r in group], BINS) for name, group in groups if group)


def listings(ranked: Sequence[Record]) -> str:
    """The names of the worst and of the best, which lead to their cards."""
    columns = []
    for title, some in (("Worst", ranked[:LISTED]), ("Best", ranked[::-1][:LISTED])):
        items = "".join(f'<li><a href="#{anchor(r)}">{100 * r["JF"]:.1f} {text(r["expression"])}</a></li>' for r in some)
        columns.append(f"<div><h3>{title}</h3><ol>{items}</ol></div>")
    return f'<div class="columns">{"".join(columns)}</div>'


def settings(header: Record) -> str:
    return report_page.table(["setting", "value"], [[text(key), f"<pre>{text(value)}</pre>"] for key, value in header.items()])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
