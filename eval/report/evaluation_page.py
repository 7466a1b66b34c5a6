"""The page of an evaluation: scores, distributions, and every sample with its reasoning and pictures. A run with ground
truth that has no current scores is scored first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from eval import metrics
from eval.evaluation_folder import PREDICTIONS, read_run
from eval.prediction_record import PredictionRecord
from eval.report.sample_cards import TYPES, SampleCard, draw_sample
from eval.report.settings_diff import differing_settings, flatten, format_setting
from veason.data import VideoBenchmark, open_benchmark
from veason.errors import DataError
from veason.visualization.html_page import render_page

TEMPLATES = Path(__file__).with_name("templates")
BINS = 10  # of a histogram
BAR_WIDTH, CHART_HEIGHT = 22, 70  # pixels
LISTED = 10  # of the worst and of the best samples
FACTS = ("started", "samples", "device", "tracker", "sampled_frames", "keyframe_resize", "temperature")


def evaluation_page(run: Path, data: str | None, pictures: int, against: Path | None) -> str:
    """The HTML of a run's report.

    Args:
        data: the benchmark's root folder; None: the run's own.
        pictures: samples that are drawn, at most.
        against: another evaluation, whose scores and settings are shown beside this one's.

    Raises:
        DataError: there is no run in the folder, or its data set is missing.
    """
    header, records = read_run(run)
    root = data or header["data_path"]
    if data is None and not Path(root).is_dir():
        raise DataError(f"{run}: its data folder {root} is not here: say with data=FOLDER where the data set is")
    benchmark = open_benchmark(header["benchmark"], root, header["split"], check=False)
    content = read_scores(run, benchmark, records)
    scores = {score["sample_id"]: {key: 100 * score[key] for key in ("J", "F", "JF")} for score in content["samples"]}
    samples = {sample.sample_id: sample for sample in benchmark.samples}
    cards = [SampleCard(record, scores.get(record.sample_id, {})) for record in records]
    names = [card.record.sample_id for pair in zip_longest(*rank_by_score(cards)) for card in pair if card is not None]
    drawn = set(list(dict.fromkeys(names))[:pictures])
    for number, (card, record) in enumerate(zip(cards, records)):
        if record.sample_id in drawn:
            cards[number] = replace(card, pictures=draw_sample(run, benchmark, samples[record.sample_id], record))
    worst, best = rank_by_score(cards)
    other = read_compared_run(against) if against else None
    return render_page(
        TEMPLATES,
        "evaluation.html",
        title=f"{header['benchmark']} {header['split'] or benchmark.split}: {policy_title(header)}",
        facts={key: format_setting(header[key]) for key in FACTS if header.get(key) is not None},
        results=results_table(benchmark, content, other) if content["table"] else None,
        tiles=tiles(content["table"], cards),
        outcomes=Counter(card.record.failure or "tracked" for card in cards).most_common(),
        histograms=histograms(cards) if content["table"] else [],
        cards=worst,
        worst=[card for card in worst if card.scores][:LISTED],
        best=[card for card in best if card.scores][:LISTED],
        settings=[(key, format_setting(value)) for key, value in flatten(header)],
        changes=differing_settings(header, other["header"]) if other else [],
        against=other["name"] if other else None,
    )


def rank_by_score(cards: Sequence[SampleCard]) -> tuple[list[SampleCard], list[SampleCard]]:
    """All from the worst on, and those with a target and tracked masks from the best on."""
    worst = sorted(cards, key=lambda card: card.scores.get("JF", 0.0))
    return worst, [card for card in reversed(worst) if card.is_tracked_target]


def model_title(path: str) -> str:
    """A name for the policy: of a training run's checkpoint the run's and the step's."""
    parts = [part for part in Path(path).parts if part not in ("huggingface", "actor", "/")]
    steps = parts and parts[-1].startswith("global_step_")
    return "/".join(parts[-2:] if steps else parts[-1:]) or str(path)


def policy_title(header: dict[str, Any]) -> str:
    """A name for an evaluation's policy; the tracker's where there was none."""
    return model_title(header["model_path"]) if header["model_path"] else header["tracker"]


def read_scores(run: Path, benchmark: VideoBenchmark, records: list[PredictionRecord]) -> dict[str, Any]:
    """The content of metrics.json: `table`, `samples`, and `part`, why the paper's rows do not compare; table and
    samples are empty where the split has no ground truth.

    Scores that are older than the predictions, or of a part of them (`limit=`), are computed again.
    """
    if not benchmark.has_ground_truth:
        return {"table": {}, "samples": []}
    path = run / "metrics.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if (
        content is None
        or path.stat().st_mtime_ns < (run / PREDICTIONS).stat().st_mtime_ns
        or {score["sample_id"] for score in content["samples"]} != {record.sample_id for record in records}
    ):
        metrics.compute_metrics(metrics.complete_from_run(metrics.MetricsConfig(str(run), str(benchmark.root))))
        content = json.loads(path.read_text(encoding="utf-8"))
    return content


def read_compared_run(run: Path) -> dict[str, Any]:
    """Header, name and table of another evaluation, as it was scored."""
    header, _ = read_run(run)
    return {"header": header, "name": policy_title(header), "table": read_table(run)}


def read_table(run: Path) -> dict[str, Any]:
    """The scores of an evaluation by column; {} where it was not scored."""
    path = run / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8"))["table"] if path.is_file() else {}


def results_table(
    benchmark: VideoBenchmark, content: dict[str, Any], other: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The run's scores with their confidence intervals in percent; the paper's rows where all of its split was scored;
    another run's scores and what they differ by.
    """
    table, part = content["table"], content.get("part")
    paper = () if part else benchmark.paper_rows(benchmark.split)

    def cells(values: dict[str, Any]) -> list[tuple[str, str]]:
        found = [values.get(name) or {"value": None, "low": None} for name in table]
        return [
            (
                "" if value["value"] is None else f"{value['value']:.1f}",
                "" if value["low"] is None else f"{value['low']:.1f} to {value['high']:.1f}",
            )
            for value in found
        ]

    change = []
    for name in table if other else ():
        old, new = (source.get(name, {}).get("value") for source in (other["table"], table))  # type: ignore[index]
        change.append("" if old is None or new is None else f"{new - old:+.1f}")
    return {
        "columns": list(table),
        "paper": [(method, [f"{row[name]:.1f}" if name in row else "" for name in table]) for method, row in paper],
        "this_run": cells(table),
        "other": cells(other["table"]) if other else [],
        "change": change,
        "note": benchmark.note if paper else "",
        "part": part if part and benchmark.paper_rows(benchmark.split) else None,
    }


def tiles(table: dict[str, Any], cards: Sequence[SampleCard]) -> list[tuple[str, str, str]]:
    """The summary: (name, value, what is behind it)."""
    shown = []
    titles = [title for title in table if title.endswith("J&F")]
    overall = next((title for title in titles if title.startswith("Overall")), titles[-1] if titles else None)
    for title in dict.fromkeys(filter(None, (overall, *(t for t in titles if t != overall)))):
        value = table[title]
        if value["value"] is not None:
            interval = "" if value["low"] is None else f"95 % interval {value['low']:.1f} to {value['high']:.1f}"
            shown.append((title, f"{value['value']:.1f}", interval))
    empty = sum(card.outcome == "empty" for card in cards)
    absent = sum(card.type == TYPES[2] for card in cards)
    shown.append(("expressions", str(len(cards)), f"{absent} of them without a target" if absent else ""))
    shown.append(("without masks", f"{100 * empty / max(len(cards), 1):.0f} %", f"{empty} answers gave no boxes"))
    return shown


def histograms(cards: Sequence[SampleCard]) -> list[dict[str, Any]]:
    """Histograms of J&F over all samples, by type and by number of objects."""
    scored = [card for card in cards if card.scores]
    groups = {"all": scored}
    groups |= {
        name: [card for card in scored if card.type == name] for number, name in TYPES.items() if number is not None
    }
    for count in sorted({card.record.num_objects for card in scored}):
        name = f"{count} object{'' if count == 1 else 's'}"
        groups[name] = [card for card in scored if card.record.num_objects == count]
    return [histogram(name, [card.scores["JF"] for card in group]) for name, group in groups.items() if group]


def histogram(name: str, values: Sequence[float]) -> dict[str, Any]:
    """The bars of a histogram of values from 0 to 100, with their positions in pixels."""
    counts, _ = np.histogram(values, bins=BINS, range=(0, 100))
    bars = []
    for number, count in enumerate(counts.tolist()):
        height = round(CHART_HEIGHT * count / max(counts.max(), 1), 1)
        if count:
            bars.append({"x": BAR_WIDTH * number, "y": 14 + CHART_HEIGHT - height, "height": height, "count": count})
    size = {"width": BAR_WIDTH * BINS, "height": CHART_HEIGHT}
    return {"name": name, "count": len(values), "mean": float(np.mean(values)), "bars": bars, **size}
