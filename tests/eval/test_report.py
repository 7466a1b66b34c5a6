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
from eval.options import EvaluateConfig
from eval.run_folder import RunFolder, read_run
from eval.worker import EvaluationWorker
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
    folder = RunFolder(config.output_path)
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
    assert report.main([str(folder), "pictures=3"]) == 0
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
    assert security == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        assert tag not in ("iframe", "object", "link", "base", "form")
        assert attrs.get("src", "data:").startswith("data:") and attrs.get("href", "#").startswith("#")

    cards = [attrs for tag, attrs in page.tags if tag == "article"]
    assert len(cards) == len(benchmark.samples) == len({card["id"] for card in cards})
    assert {card["data-failure"] for card in cards} >= {"", "no_answer", "keyframe_outside"}
    assert {"referring", "reasoning"} <= {card["data-type"] for card in cards}
    assert [float(card["data-jf"]) for card in cards] == sorted(float(card["data-jf"]) for card in cards)
    links = [attrs["href"][1:] for tag, attrs in page.tags if tag == "a"]
    assert links and set(links) <= {card["id"] for card in cards}
    assert sum(tag == "svg" for tag, _ in page.tags) >= 3  # all, and each type at least

    pictures = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert 3 <= len(pictures) <= 6
    for picture in pictures:
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(picture.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
        assert pixels.ndim == 3 and pixels.std() > 0


def test_every_value_is_escaped():
    """Autoescaping covers the whole template: nothing is marked as safe in it."""
    template = (report.TEMPLATES / "report.html").read_text(encoding="utf-8")
    assert "safe" not in template and "autoescape" not in template


def test_a_missing_run_is_named(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert "no run in" in capsys.readouterr().err


def test_scores_are_those_of_the_table(run):
    folder, benchmark = run
    folder = folder.rename(folder.parent / "lr=1e-6")  # a path may hold an equals sign
    report.main([str(folder), "pictures=0"])
    content = json.loads((folder / "metrics.json").read_text())
    page = (folder / "report.html").read_text()
    assert f"<td>{content['table']['Overall J&F']['value']:.1f}<small>" in page
    assert len(content["samples"]) == len(benchmark.samples)


def test_partial_and_outdated_scores_are_computed_again(run):
    folder, benchmark = run
    path, whole = folder / "metrics.json", len(benchmark.samples)
    assert metrics.main([str(folder), str(benchmark.root), "limit=3", "processes=1"]) == 0
    assert len(json.loads(path.read_text())["samples"]) == 3
    assert report.main([str(folder), "pictures=0"]) == 0
    content = json.loads(path.read_text())
    assert len(content["samples"]) == whole
    content["table"] = {}
    path.write_text(json.dumps(content))
    records = [record.to_json() for record in read_run(folder)[1]]
    assert report.read_scores(folder, benchmark, records)[0] == {}  # newer than the predictions: used as they are
    os.utime(path, ns=(0, 0))
    assert report.read_scores(folder, benchmark, records)[0]
