"""The report in a real browser: it filters, sorts and loads nothing, and texts never become markup."""

import json

import pytest

from eval import report
from eval.options import EvaluateConfig
from eval.run_folder import RunFolder
from eval.worker import EvaluationWorker
from tests.eval.browser import CHROMIUM, Browser
from veason.answers import format_answer

EVIL = (
    "</p></pre></article></script><script>window.run = 1</script><img src=x onerror='window.run = 2'>"
    '<svg onload="window.run = 3"></svg><iframe srcdoc="<script>parent.run = 4</script>"></iframe>'
    '<a href="javascript:window.run = 5">x</a><style>article { display: none }</style>'
    '" onclick="window.run = 6" \' &lt;b&gt; &amp;'
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@pytest.fixture(scope="module")
def page(toy_world, tmp_path_factory, scripted):
    """The report of a toy run whose answers, expressions and settings contain markup, and its records."""
    folder = tmp_path_factory.mktemp("run")
    config = EvaluateConfig("checkpoint", str(toy_world / "ReVOS"), str(folder), benchmark="revos")
    worker = EvaluationWorker(config, 0, scripted())
    answers = worker.segmenter.policy.generate
    first = [EVIL, format_answer(EVIL, 2, [[0, 0, 300, 300]]), format_answer(EVIL, 99, [[1, 1, 9, 9]])]
    worker.segmenter.policy.generate = lambda questions: [*first, *answers(questions)[3:]]
    worker.benchmark.samples = [
        sample._replace(expression=sample.expression + EVIL) for sample in worker.benchmark.samples
    ]
    run = RunFolder(folder)
    run.begin(
        {
            "benchmark": "revos",
            "split": None,
            "limit": None,
            "data_path": config.data_path,
            "model_path": EVIL,
            "started": EVIL,
        }
    )
    worker.run(range(len(worker.benchmark.samples)))
    records = [record.to_json() for record in run.finish(sample.sample_id for sample in worker.benchmark.samples)]
    assert report.main([str(folder), "pictures=4"]) == 0
    with Browser(folder / "profile") as browser:
        browser.open(folder / "report.html")
        yield browser, records


def choose(browser, **values):
    """Sets the page's controls as a user does; returns the ids of the shown samples in order."""
    for control, value in values.items():
        change = f"c.value = {json.dumps(value)}; c.dispatchEvent(new Event('input'))"
        browser.value(f"(c => {{ {change} }})(document.getElementById('{control}'))")
    return browser.value(
        "[...document.querySelectorAll('article')].filter(a => a.checkVisibility()).map(a => a.dataset.id)"
    )


def test_texts_never_become_markup(page):
    browser, records = page
    assert browser.value("window.run") is None
    browser.value("document.querySelectorAll('article, article *, h1').forEach(part => part.click())")
    assert browser.value("window.run") is None
    shown = browser.value("[...document.querySelectorAll('article h3')].map(part => part.textContent)")
    assert sorted(shown) == sorted(record["expression"] for record in records)
    said = browser.value("[...document.querySelectorAll('article pre')].map(part => part.textContent)")
    assert sorted(said) == sorted(record["answer"] for record in records) and EVIL in said
    assert (
        browser.value(
            "[...document.querySelectorAll('.thinking')].filter(part => part.textContent.includes('onerror')).length"
        )
        == 2
    )
    strange = (
        "iframe, style:not(head style), a:not([href^='#']), article script, [onclick], [onerror], "
        "[onload], img:not([src^='data:'])"
    )
    assert browser.value(f"document.querySelectorAll({json.dumps(strange)}).length") == 0
    assert browser.value("document.querySelectorAll('h1').length") == 1 and EVIL.rpartition("/")[2] in browser.value(
        "document.title"
    )


def test_nothing_is_loaded_and_no_error_is_logged(page):
    browser, _ = page
    browser.value("document.querySelectorAll('img').forEach(image => image.scrollIntoView())")
    asked = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert (
        all(url.startswith(("data:image/jpeg;base64,", "file://")) for url in asked)
        and sum(url.startswith("file") for url in asked) == 1
    )
    assert not [
        event for event in browser.events if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")
    ]
    images = "[...document.images].map(image => image.decode().then(() => image.naturalWidth > 0))"
    assert 4 <= len(found := browser.value(f"Promise.all({images})")) <= 8 and all(found)


def test_filter(page):
    browser, records = page
    names = {record["sample_id"] for record in records}
    assert set(choose(browser, search="", type="", outcome="")) == names
    empty = {record["sample_id"] for record in records if record["failure"]}
    assert set(choose(browser, outcome="empty")) == empty and set(choose(browser, outcome="tracked")) == names - empty
    reasoning = {record["sample_id"] for record in records if record["type_id"] == 1}
    assert set(choose(browser, outcome="", type="reasoning")) == reasoning
    assert browser.value("document.getElementById('count').textContent") == f"{len(reasoning)} of {len(records)}"
    word = records[3]["expression"].split()[1].upper()
    fit = {
        r["sample_id"] for r in records if word.lower() in f"{r['expression']} {r['sample_id']} {r['answer']}".lower()
    }
    assert set(choose(browser, type="", search=word)) == fit
    assert choose(browser, search="nobody wrote this") == []
    choose(browser, search="")


def test_sort(page):
    browser, records = page
    worst = choose(browser, search="", type="", outcome="", order="worst")
    jf = browser.value(
        "Object.fromEntries([...document.querySelectorAll('article')].map(a => [a.dataset.id, +a.dataset.jf]))"
    )
    assert [jf[name] for name in worst] == sorted(jf.values()) and len(set(jf.values())) > 2
    assert [jf[name] for name in choose(browser, order="best")] == sorted(jf.values(), reverse=True)
    count = {record["sample_id"]: record["num_objects"] for record in records}
    assert [count[name] for name in choose(browser, order="objects")] == sorted(count.values(), reverse=True)
    assert choose(browser, order="name") == sorted(count)
    choose(browser, type="referring", order="worst")  # hidden samples are sorted too, and stay hidden
    assert len(choose(browser, order="best")) == sum(record["type_id"] == 0 for record in records)
    choose(browser, type="")


def test_a_screenshot_fits_the_width(page, tmp_path):
    import cv2

    browser, _ = page
    browser.value("window.scrollTo(0, 0)")
    browser.screenshot(tmp_path / "report.png")
    picture = cv2.imread(str(tmp_path / "report.png"))
    assert picture.shape[1] >= 1200 and picture.std() > 10
    wide = browser.value("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1]  # no horizontal scrolling
