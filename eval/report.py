"""One self-contained page about a run: the table, distributions, and every sample with its reasoning and its pictures.

    python -m eval.report outputs/reasonvos                       # writes outputs/reasonvos/report.html
    python -m eval.report outputs/reasonvos data=/elsewhere/ReasonVOS pictures=50

The page loads nothing and runs one script, its own (its content security policy holds the script's hash). Whatever a
policy or an annotation wrote is shown as text. Where the split has truth and the run was not scored since it ended, it
is scored first.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from eval import metrics, report_page
from eval.options import name_places, read_words
from eval.report_cards import TYPES, Record, anchor, objects, sample_card, sample_pictures
from eval.report_page import text
from eval.run_folder import PREDICTIONS, read_run
from eval.tables import NOTES, PAPER
from veason.data import Benchmark, open_benchmark
from veason.errors import DataError
from verl.config import ConfigError

LISTED = 10  # samples in the lists of the best and of the worst
BINS = 10  # of a distribution


@dataclass
class ReportConfig:
    """What a report can be told."""

    run: str = MISSING  # a run's folder; the first word
    data: str | None = None  # the benchmark's root folder; null: where the run found it
    pictures: int = 200  # samples that get pictures, the worst and the best first; a page of 200 is about 15 MB
    output: str | None = None  # null: report.html in the run's folder


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
        report_page.section("Outcomes", outcomes(records)),
        report_page.section("Distribution of J&F", distributions(records)) if table else "",
        report_page.section("Worst and best", listings(ranked)) if table else "",
        report_page.section("Samples", report_page.CONTROLS + '<div id="samples">' + "".join(cards) + "</div>"),
        report_page.section("Run", settings(header)),
    ]
    target = Path(config.output) if config.output else run / "report.html"
    title = f"{header['benchmark']} {header['split'] or benchmark.split} \u00b7 {Path(header['model_path']).name}"
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
        or {score["sample_id"] for score in content["samples"]}
        != {record["sample_id"] for record in records}  # of a part, with limit=
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


# -- pieces of the page; every text goes through `text` ---------------------------------------------------------------


def results_table(header: Record, table: Record) -> str:
    """The paper's rows, then ours with intervals."""
    if not table:
        return "<p>This split has no public truth.</p>"
    paper = PAPER.get(header["benchmark"]) or PAPER.get(f"{header['benchmark']} {header['split'] or 'val'}") or ()
    rows = [[method, *(f"{row[title]:.1f}" if title in row else "" for title in table)] for method, row in paper]
    ours = ["this run", *(_interval(value) for value in table.values())]
    note = f"<p>{text(NOTES[header['benchmark']])}</p>" if header["benchmark"] in NOTES else ""
    return report_page.table(["", *map(text, table)], [[*map(text, row)] for row in rows], ours) + note


def _interval(value: Record) -> str:
    if value["value"] is None:
        return ""
    return f"{value['value']:.1f}" + (
        f"<small>{value['low']:.1f} to {value['high']:.1f}</small>" if value["low"] is not None else ""
    )


def outcomes(records: Sequence[Record]) -> str:
    """How many answers were tracked, and why the others gave empty masks."""
    counts = Counter(record["failure"] or "tracked" for record in records)
    rows = [[text(name), f"{count}", f"{100 * count / len(records):.1f} %"] for name, count in counts.most_common()]
    return report_page.table(["outcome", "expressions", "share"], rows)


def distributions(records: Sequence[Record]) -> str:
    """Histograms of J&F: all, by type, by number of objects."""
    scored = [record for record in records if "JF" in record]
    groups = [("all", scored)]
    groups += [
        (name, [r for r in scored if r["type_id"] == number]) for number, name in TYPES.items() if number is not None
    ]
    groups += [
        (objects(count), [r for r in scored if r["num_objects"] == count])
        for count in sorted({r["num_objects"] for r in scored})
    ]
    charts = [report_page.histogram(name, [100 * r["JF"] for r in group], BINS) for name, group in groups if group]
    return f'<div class="charts">{"".join(charts)}</div>'


def listings(ranked: Sequence[Record]) -> str:
    """The names of the worst and of the best, which lead to their cards."""
    columns = []
    for title, some in (("Worst", ranked[:LISTED]), ("Best", ranked[::-1][:LISTED])):
        items = "".join(
            f'<li>{100 * r["JF"]:.1f} <a href="#{anchor(r)}">{text(r["expression"])}</a> <small>{text(r["failure"] or "")}</small></li>'
            for r in some
        )
        columns.append(f"<div><h3>{title}</h3><ol>{items}</ol></div>")
    return f'<div class="columns">{"".join(columns)}</div>'


def settings(header: Record) -> str:
    def shown(value: object) -> str:
        return (
            "\n".join(f"{key} {version}" for key, version in value.items()) if isinstance(value, dict) else str(value)
        )

    return report_page.table(
        ["setting", "value"], [[text(key), f"<pre>{text(shown(value))}</pre>"] for key, value in header.items()]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
