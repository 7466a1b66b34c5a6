"""The report as an HTML parser sees it: it is complete, and a policy's text never becomes markup."""

import base64
import hashlib
import json
import os
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from eval import metrics, report
from eval.evaluation_folder import EvaluationFolder, read_run
from eval.evaluation_options import EvaluateConfig
from eval.evaluation_worker import EvaluationWorker
from eval.report.evaluation_page import TEMPLATES, model_title, read_scores, tiles
from veason.answers import format_answer

EVIL = '</p></article><script>alert(1)</script><img src=x onerror="alert(2)">\' onload=\'x" \ud800 & </title><!--'


class Page(HTMLParser):
    """Tags with their attributes, scripts, and the text of each element that has a class or is a `pre`."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.scripts, self.texts, self.inside, self.raw = (
            [],
            [],
            {"thinking": [], "pre": [], "h3": []},
            None,
            False,
        )
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.raw = tag == "script"
        key = dict(attrs).get("class") if tag == "p" else tag
        if key in self.texts:
            self.inside = key
            self.texts[key].append("")

    def handle_endtag(self, tag):
        self.raw, self.inside = False, None

    def handle_data(self, data):
        if self.raw:
            self.scripts.append(data)
        elif self.inside:
            self.texts[self.inside][-1] += data


@pytest.fixture
def run(toy_world, tmp_path, scripted):
    config = EvaluateConfig("checkpoint", str(toy_world / "ReVOS"), str(tmp_path / "run"), benchmark="revos")
    segmenter = scripted()
    real, seen = segmenter.policy.generate, []

    def answers(questions):
        seen.extend(questions)
        texts = real(questions)
        return [format_answer(EVIL, 2, [[0, 0, 300, 300]]), EVIL, format_answer("far", 99, [[1, 1, 9, 9]]), *texts[3:]]

    segmenter.policy.generate = answers
    worker = EvaluationWorker(config, 0, segmenter)
    folder = EvaluationFolder(config.output_path)
    header = {
        "benchmark": "revos",
        "split": None,
        "data_path": config.data_path,
        "model_path": EVIL,
        "started": "now",
        "prompt": EVIL,
        "limit": None,
    }
    folder.begin(header)
    worker.run(range(len(worker.benchmark.samples)))
    folder.finish(sample.sample_id for sample in worker.benchmark.samples)
    return tmp_path / "run", worker.benchmark


def test_page(run, capsys):
    folder, benchmark = run
    assert report.main([str(folder), "max_pictures=3"]) == 0
    assert "report.html" in capsys.readouterr().out
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    escaped = EVIL.replace("\ud800", "?")

    # The policy's text is unchanged, as text of its element.
    assert page.texts["thinking"].count(escaped) == 1
    assert any(text == escaped for text in page.texts["pre"])
    assert {sample.expression for sample in benchmark.samples} <= set(page.texts["h3"])

    # One script, the only one that the security policy allows; no event handlers and no external resources.
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (security,) = [attrs["content"] for tag, attrs in page.tags if tag == "meta" and "http-equiv" in attrs]
    assert security == (
        f"default-src 'none'; img-src data:; media-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        assert tag not in ("iframe", "object", "link", "base", "form")
        assert attrs.get("src", "data:").startswith("data:") and attrs.get("href", "#").startswith("#")
        assert tag != "img" or attrs.get("alt") or attrs.get("id") == "large"

    cards = [attrs for tag, attrs in page.tags if tag == "article"]
    assert len(cards) == len(benchmark.samples) == len({card["id"] for card in cards})
    assert {card["data-failure"] for card in cards} >= {"", "no_answer", "keyframe_outside"}
    assert {"referring", "reasoning"} <= {card["data-type"] for card in cards}
    assert [float(card["data-jf"]) for card in cards] == sorted(float(card["data-jf"]) for card in cards)
    links = [attrs["href"][1:] for tag, attrs in page.tags if tag == "a"]
    assert links and set(links) <= {card["id"] for card in cards}
    assert sum(tag == "svg" for tag, _ in page.tags) >= 3  # all, and each type at least

    pictures = [attrs["src"] for tag, attrs in page.tags if tag == "img" and "src" in attrs]
    assert 3 <= len(pictures) <= 6
    for picture in pictures:
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(picture.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
        assert pixels.ndim == 3 and pixels.std() > 0


def test_every_value_is_escaped():
    """Autoescaping covers all templates: nothing is marked as safe in them."""
    templates = sorted(TEMPLATES.glob("*.html"))
    assert len(templates) == 4
    for path in templates:
        template = path.read_text(encoding="utf-8")
        assert "safe" not in template and "autoescape" not in template


def test_a_missing_run_is_named(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert "no run in" in capsys.readouterr().err


def test_scores_are_those_of_the_table(run):
    folder, benchmark = run
    folder = folder.rename(folder.parent / "lr=1e-6")  # a path may hold an equals sign
    report.main([str(folder), "max_pictures=0"])
    content = json.loads((folder / "metrics.json").read_text())
    page = (folder / "report.html").read_text()
    assert f"<td>{content['table']['Overall J&F']['value']:.1f}<small>" in page
    assert len(content["samples"]) == len(benchmark.samples)


def test_partial_and_outdated_scores_are_computed_again(run):
    folder, benchmark = run
    path, whole = folder / "metrics.json", len(benchmark.samples)
    assert metrics.main([str(folder), str(benchmark.root), "limit=3", "processes=1"]) == 0
    assert len(json.loads(path.read_text())["samples"]) == 3
    assert report.main([str(folder), "max_pictures=0"]) == 0
    content = json.loads(path.read_text())
    assert len(content["samples"]) == whole
    content["table"] = {}
    path.write_text(json.dumps(content))
    _, records = read_run(folder)
    assert read_scores(folder, benchmark, records)["table"] == {}  # newer than the predictions: used as they are
    os.utime(path, ns=(0, 0))
    assert read_scores(folder, benchmark, records)["table"]


def test_paper_rows_only_beside_a_whole_split(run):
    folder, _ = run
    report.main([str(folder), "max_pictures=0"])
    content = json.loads((folder / "metrics.json").read_text())
    for part, shown in ((None, True), ("2 of the 416 videos of revos valid", False)):
        (folder / "metrics.json").write_text(json.dumps(content | {"part": part}))
        assert report.main([str(folder), "max_pictures=0"]) == 0
        page = (folder / "report.html").read_text()
        assert ("LISA-7B" in page) == shown and ("2 of the 416 videos" in page) != shown


def test_the_best_are_tracked_targets(run):
    folder, _ = run
    report.main([str(folder), "max_pictures=0"])
    page = (folder / "report.html").read_text()
    best = page[page.index("Best, with a target and masks") :]
    listed = [part.split('"')[0] for part in best[: best.index("</ol>")].split('href="#')[1:]]
    cards = {attrs["id"]: attrs for tag, attrs in Page(page).tags if tag == "article"}
    assert listed and all(cards[name]["data-outcome"] == "tracked" for name in listed)
    assert all(cards[name]["data-type"] != "absent" for name in listed)
    assert any(card["data-type"] == "absent" for card in cards.values())


def test_two_evaluations_are_compared(run, tmp_path):
    import shutil

    folder, _ = run
    report.main([str(folder), "max_pictures=0"])
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    content = json.loads((other / "metrics.json").read_text())
    content["table"]["Overall J&F"]["value"] -= 5
    (other / "metrics.json").write_text(json.dumps(content))
    lines = (other / "predictions.jsonl").read_text().splitlines()
    header = {"header": json.loads(lines[0])["header"] | {"model_path": "runs/a/global_step_9/actor/huggingface"}}
    (other / "predictions.jsonl").write_text("\n".join([json.dumps(header), *lines[1:]]))
    os.utime(other / "metrics.json")
    assert report.main([str(folder), "--against", str(other), "max_pictures=0"]) == 0
    page = (folder / "report.html").read_text()
    assert "<td>+5.0</td>" in page and "a/global_step_9" in page and "What differs from" in page


def test_titles_of_policies():
    assert model_title("checkpoints/run/global_step_40/actor/huggingface") == "run/global_step_40"
    assert model_title("/models/Qwen2.5-VL-3B-Instruct") == "Qwen2.5-VL-3B-Instruct"
    assert model_title("outputs/run/huggingface") == "run"


def test_the_summary_begins_with_the_overall_score():
    value = {"value": 50.0, "low": 45.0, "high": 55.0}
    shown = tiles({"Referring J&F": value, "Overall J&F": value, "R": value}, [])
    assert [name for name, *_ in shown][:2] == ["Overall J&F", "Referring J&F"]
