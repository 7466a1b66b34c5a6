"""The evaluation's report in a real browser: it filters, sorts and loads nothing, and texts never become markup."""

import pytest

from eval import report
from eval.evaluation_folder import EvaluationFolder
from eval.evaluation_options import EvaluateConfig
from eval.evaluation_worker import EvaluationWorker
from tests.eval.browser import WIDTHS, check_page, check_viewer, needs_chromium, open_page
from veason.answers import format_answer

EVIL = (
    "</p></pre></article></script><script>window.run = 1</script><img src=x onerror='window.run = 2'>"
    '<svg onload="window.run = 3"></svg><iframe srcdoc="<script>parent.run = 4</script>"></iframe>'
    '<a href="javascript:window.run = 5">x</a><style>article { display: none }</style>'
    '" onclick="window.run = 6" \' &lt;b&gt; &amp;'
)

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def run(toy_world, tmp_path_factory, scripted):
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
    run = EvaluationFolder(folder)
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
    assert report.main([str(folder), "max_pictures=4"]) == 0
    return folder / "report.html", records


@pytest.fixture(scope="module")
def page(run, chromium):
    with open_page(chromium, run[0]) as page:
        yield page


def choose(page, **values):
    """Sets the page's controls as a user does; returns the ids of the shown samples in order."""
    for control, value in values.items():
        if control == "search":
            page.fill("#search", value)
        else:
            page.select_option(f"#{control}", value)
    return page.evaluate("[...document.querySelectorAll('article')].filter(a => !a.hidden).map(a => a.dataset.id)")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_loads_nothing(run, chromium, width, scheme, tmp_path):
    import cv2

    with open_page(chromium, run[0], width, scheme) as page:
        check_page(page)
        check_viewer(page)
        page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=tmp_path / "report.png")
        picture = cv2.imread(str(tmp_path / "report.png"))
        assert picture.shape[1] == width and picture.std() > 10
        assert (picture[0, 0].mean() < 60) == (scheme == "dark")
        # what matters is seen first, settings before the samples
        order = page.evaluate("[...document.querySelectorAll('main > section')].map(section => section.id)")
        assert order == ["summary", "settings", "outcomes", "distribution", "ends", "all"]
        assert page.locator(".tile").first.bounding_box()["y"] < 600


def test_texts_never_become_markup(page, run):
    records = run[1]
    assert page.evaluate("window.run") is None
    page.evaluate("document.querySelectorAll('article, article *, h1').forEach(part => part.click())")
    page.keyboard.press("Escape")
    assert page.evaluate("window.run") is None
    shown = page.evaluate("[...document.querySelectorAll('article h3')].map(part => part.textContent)")
    assert sorted(shown) == sorted(record["expression"] for record in records)
    said = page.evaluate("[...document.querySelectorAll('article pre')].map(part => part.textContent)")
    assert sorted(said) == sorted(record["answer"] for record in records) and EVIL in said
    thoughts = page.evaluate("[...document.querySelectorAll('.thinking')].map(part => part.textContent)")
    assert sum("onerror" in thought for thought in thoughts) == 2
    strange = (
        "iframe, style:not(head style), a:not([href^='#']), article script, [onclick], [onerror], "
        "[onload], img[src]:not([src^='data:'])"
    )
    assert page.locator(strange).count() == 0
    assert page.locator("h1").count() == 1 and EVIL.rpartition("/")[2] in page.title()


def test_filter(page, run):
    records = run[1]
    names = {record["sample_id"] for record in records}
    assert set(choose(page, search="", type="", outcome="")) == names
    empty = {record["sample_id"] for record in records if record["failure"]}
    assert set(choose(page, outcome="empty")) == empty and set(choose(page, outcome="tracked")) == names - empty
    reasoning = {record["sample_id"] for record in records if record["type_id"] == 1}
    assert set(choose(page, outcome="", type="reasoning")) == reasoning
    assert page.text_content("#count") == f"{len(reasoning)} of {len(records)}"
    word = records[3]["expression"].split()[1].upper()
    fit = {
        r["sample_id"] for r in records if word.lower() in f"{r['expression']} {r['sample_id']} {r['answer']}".lower()
    }
    assert set(choose(page, type="", search=word)) == fit
    assert choose(page, search="nobody wrote this") == []
    choose(page, search="")


def test_sort(page, run):
    records = run[1]
    worst = choose(page, search="", type="", outcome="", order="jf")
    data = "Object.fromEntries([...document.querySelectorAll('article')].map(a => [a.dataset.id, +a.dataset.{}]))"
    jf, best = page.evaluate(data.format("jf")), page.evaluate(data.format("best"))
    assert [jf[name] for name in worst] == sorted(jf.values()) and len(set(jf.values())) > 2
    shown = [best[name] for name in choose(page, order="-best")]
    assert shown == sorted(best.values(), reverse=True) and shown[-1] == -1  # empty masks and absent targets are last
    count = {record["sample_id"]: record["num_objects"] for record in records}
    assert [count[name] for name in choose(page, order="-objects")] == sorted(count.values(), reverse=True)
    assert choose(page, order="id") == sorted(count)
    choose(page, type="referring", order="jf")  # hidden samples are sorted too, and stay hidden
    assert len(choose(page, order="-best")) == sum(record["type_id"] == 0 for record in records)
    choose(page, type="")
