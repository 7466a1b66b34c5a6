"""One self-contained HTML page about a run: scores, distributions, and every sample with its reasoning and pictures.

    python -m eval.report outputs/reasonvos                       # writes outputs/reasonvos/report.html
    python -m eval.report outputs/reasonvos data=/elsewhere/ReasonVOS pictures=50

The page loads nothing and runs only its own script, whose hash is in its content security policy. Texts of a policy or
an annotation are escaped by the template engine. A run with ground truth that has no current scores is scored first.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from omegaconf import MISSING

from eval import metrics
from eval.options import parse_overrides, show_help
from eval.report_samples import TYPES, Record, SampleCard, draw_sample, make_card
from eval.run_folder import PREDICTIONS, read_run
from veason.data import Benchmark, open_benchmark
from veason.errors import DataError
from verl.config import ConfigError

TEMPLATES = Path(__file__).with_name("templates")
BINS = 10  # of a histogram
BAR_WIDTH, CHART_HEIGHT = 22, 70  # pixels


@dataclass
class ReportConfig:
    """Options of a report."""

    run: str = MISSING  # a run's folder; the first argument
    data: str | None = None  # the benchmark's root folder; null: the run's own data_path
    pictures: int = 200  # samples with pictures, the worst and the best first; a page of 200 is about 15 MB
    output: str | None = None  # null: report.html in the run's folder


def main(arguments: Sequence[str]) -> int:
    if show_help(ReportConfig, __doc__, arguments):
        return 0
    try:
        target = write_report(parse_overrides(ReportConfig, arguments, ("run",)))
    except (ConfigError, DataError) as error:
        print(f"eval.report: {error}", file=sys.stderr)
        return 2
    print(f"{target} ({target.stat().st_size / 1e6:.1f} MB)")
    return 0


def write_report(config: ReportConfig) -> Path:
    """Writes the page and returns its path.

    Raises:
        DataError: there is no run in the folder, or its data set is missing.
    """
    run = Path(config.run)
    header, found = read_run(run)
    records = [record.to_json() for record in found]
    data = config.data or header["data_path"]
    if config.data is None and not Path(data).is_dir():
        raise DataError(f"{run}: its data folder {data} is not here: say with data=FOLDER where the data set is")
    benchmark = open_benchmark(header["benchmark"], data, header["split"], check=False)
    table, scores = read_scores(run, benchmark, records)
    part = json.loads((run / "metrics.json").read_text(encoding="utf-8")).get("part") if table else None
    samples = {sample.sample_id: sample for sample in benchmark.samples}
    ranked = sorted(records, key=lambda record: scores.get(record["sample_id"], {}).get("JF", 0.0))
    names = [record["sample_id"] for record in ranked]
    drawn = set(list(dict.fromkeys(name for pair in zip(names, names[::-1]) for name in pair))[: config.pictures])
    cards = []
    for record in ranked:
        name = record["sample_id"]
        pictures = draw_sample(run, benchmark, samples[name], record) if name in drawn else {}
        cards.append(make_card(record, scores.get(name, {}), pictures))
    page = render_page(
        title=f"{header['benchmark']} {header['split'] or benchmark.split} \u00b7 {Path(header['model_path']).name}",
        results=results_table(benchmark, table, part) if table else None,
        outcomes=Counter(card.failure or "tracked" for card in cards).most_common(),
        histograms=histograms(cards) if table else [],
        cards=cards,
        settings=header,
    )
    target = Path(config.output) if config.output else run / "report.html"
    target.write_bytes(page.encode("utf-8", errors="replace"))  # a policy may write lone surrogates
    return target


def read_scores(run: Path, benchmark: Benchmark, records: list[Record]) -> tuple[Record, dict[str, dict[str, float]]]:
    """The run's table, and J, F and JF of each sample in [0, 1]; both empty where the split has no ground truth.

    Scores that are older than the predictions, or of a part of them (`limit=`), are computed again.
    """
    if not benchmark.has_truth:
        return {}, {}
    path = run / "metrics.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if (
        content is None
        or path.stat().st_mtime_ns < (run / PREDICTIONS).stat().st_mtime_ns
        or {score["sample_id"] for score in content["samples"]} != {record["sample_id"] for record in records}
    ):
        metrics.score(metrics.complete(metrics.MetricsConfig(str(run), str(benchmark.root))))
        content = json.loads(path.read_text(encoding="utf-8"))
    scores = {score["sample_id"]: {key: score[key] for key in ("J", "F", "JF")} for score in content["samples"]}
    return content["table"], scores


def results_table(benchmark: Benchmark, table: Record, part: str | None) -> dict[str, Any]:
    """The paper's rows, and the run's scores with their confidence intervals, in percent.

    Args:
        part: why the paper's rows are not shown, as `eval.tables.partial_split` gives it.
    """
    paper = benchmark.paper_rows(benchmark.split) if part is None else ()
    return {
        "columns": list(table),
        "paper": [(method, [f"{row[name]:.1f}" if name in row else "" for name in table]) for method, row in paper],
        "this_run": [
            (
                "" if value["value"] is None else f"{value['value']:.1f}",
                "" if value["low"] is None else f"{value['low']:.1f} to {value['high']:.1f}",
            )
            for value in table.values()
        ],
        "note": benchmark.note if paper else "",
        "part": part if benchmark.paper_rows(benchmark.split) else None,
    }


def histograms(cards: Sequence[SampleCard]) -> list[dict[str, Any]]:
    """Histograms of J&F over all samples, by type and by number of objects."""
    scored = [card for card in cards if card.scores]
    groups = {"all": scored}
    groups |= {
        name: [card for card in scored if card.type == name] for number, name in TYPES.items() if number is not None
    }
    for count in sorted({card.objects for card in scored}):
        name = f"{count} object{'' if count == 1 else 's'}"
        groups[name] = [card for card in scored if card.objects == count]
    return [histogram(name, [card.scores["JF"] for card in group]) for name, group in groups.items() if group]


def histogram(name: str, values: Sequence[float]) -> dict[str, Any]:
    """The bars of a histogram of values from 0 to 100, with their positions in pixels."""
    counts, _ = np.histogram(values, bins=BINS, range=(0, 100))
    bars = []
    for number, count in enumerate(counts.tolist()):
        height = round(CHART_HEIGHT * count / max(counts.max(), 1), 1)
        if count:
            bars.append({"x": BAR_WIDTH * number, "y": 12 + CHART_HEIGHT - height, "height": height, "count": count})
    size = {"width": BAR_WIDTH * BINS, "height": CHART_HEIGHT}
    return {"name": name, "count": len(values), "mean": float(np.mean(values)), "bars": bars, **size}


def render_page(**context: Any) -> str:
    """Renders templates/report.html; everything in the context is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    template = environment.get_template("report.html")
    return template.render(security_policy=policy, style=Markup(style), script=Markup(script), **context)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
