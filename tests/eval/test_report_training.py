"""The report of a training run: it is complete, compares two runs, and is legible in a browser."""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from eval import report
from eval.report.charts import PANELS, draw_panel, heat_maps
from eval.report.rollout_history import read_prompt_histories
from eval.report.training_page import CHECKS, TrainingRun, warnings
from tests.eval.browser import WIDTHS, check_page, check_viewer, needs_chromium, open_page
from veason.visualization.comparison import mask_picture
from veason.visualization.drawing import save_picture
from verl.config import Config, override
from verl.metric_info import METRICS, find_metric
from verl.trainer.rollout_log import histogram
from verl.trainer.run_info import RunInfo

EVIL = "</pre></article><script>window.run = 1</script><img src=x onerror='window.run = 2'>"
STEPS = 12


def write_run(folder: Path, lr: float = 1e-6, gain: float = 0.1, weights: dict[str, float] | None = None) -> Path:
    """A run of 12 steps with validations, histograms, and two prompts logged three times."""
    folder.mkdir(parents=True)
    changes = {"worker.actor.optim.lr": lr, "trainer.experiment_name": EVIL, "data.prompt_template": EVIL}
    changes |= {"trainer.save_checkpoint_path": str(folder), "worker.reward.weights": weights or {}}
    config = override(Config(), changes)
    info = RunInfo.begin(folder, "GRPO", asdict(config), 0, STEPS)
    info.device, info.workers = "CPU", 2
    info.write(folder)
    rows, bars = [], []
    for step in range(1, STEPS + 1):
        row = {
            "step": step,
            "reward/mean": 1 + gain * step,
            "actor/kl": 0.001 * step,
            "actor/entropy": 0.3,
            "response/mean": 200.0,
            "response/truncated": 0.5,
            "parse_failure/any": 0.0,
            "actor/pg_clipfrac": 0.0,
            "rollout/log_prob_gap": 1e-4,
            "perf/tokens_per_second": 900.0,
            "memory/peak_update_gib": 2.0,
            "timing_s/step": 3.0,
            **{
                f"rewards/{name}/mean": math.sin(step) ** 2 for name in ("format", "keyframe", "spatial", "consistency")
            },
        }
        rows.append(row | ({"val/reward/mean": 2.0 + gain * step} if step % 4 == 0 else {}))
        values = np.random.default_rng(step).normal(step, 1, 64)
        bars.append({"step": step, "reward": histogram(values), "advantage": histogram(values - step)})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 13, "rew')
    (folder / "histograms.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bars))
    write_rollouts(folder / "rollouts")
    return folder


def write_rollouts(folder: Path) -> None:
    frames = [np.full((60, 80, 3), shade, np.uint8) for shade in (60, 120, 180)]
    masks = np.zeros((3, 60, 80), np.uint8)
    masks[:, 10:40, 20:50] = 1
    picture = mask_picture(frames, [0, 4, 8], masks, np.roll(masks, 5, axis=2), 4)
    for step in (4, 8, 12):
        lines = []
        for sample, count in (("video/0", 1), ("video/1", 4)):
            for number in range(count):
                name = f"step_{step}/{sample.replace('/', '_')}_{number}.jpg"
                save_picture(folder / name, picture)
                validation = count == 1
                row = {
                    "step": step,
                    "phase": "validation" if validation else "train",
                    "uid": 1,
                    "sample_id": sample,
                    "question": f"which one? {EVIL}",
                    "number": number,
                    "response": f"answer {number} at step {step} {EVIL}",
                    "tokens": 12,
                    "truncated": False,
                    "total": float(number + step / 4),
                    "parts": {"format": 2.0},
                    "failure": "no_answer" if number == 0 else None,
                    "advantage": None if validation else number - 1.5,
                    "pictures": {"masks": name},
                }
                lines.append(json.dumps(row) + "\n")
        (folder / f"step_{step}.jsonl").write_text("".join(lines))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("runs")
    return write_run(root / "one"), write_run(root / "two", lr=4e-5, gain=0.2, weights={"keyframe": 0.5})


@pytest.fixture(scope="module")
def page(runs: tuple[Path, Path]) -> Path:
    assert report.main([str(runs[0]), "--against", str(runs[1])]) == 0
    return runs[0] / "report.html"


def test_the_page_of_two_runs(page: Path, runs: tuple[Path, Path]) -> None:
    text = page.read_text()
    assert EVIL not in text and "window.run" in text  # escaped
    assert re.findall(r"<td>worker.actor.optim.lr</td><td>(.*?)</td><td>(.*?)</td>", text) == [("1e-06", "4e-05")]
    assert "<h1>one against two</h1>" in text and "12 of 12" in text and "2 x CPU" in text
    assert "1.10 → 2.20" in text and "the other run 3.40" in text  # reward, first and last
    for title in ("Reward", "KL to the reference", "Entropy", "Response length", "Clip share", "Log-probability gap"):
        assert f'alt="{title}"' in text
    for title in ("Reward parts", "Speed", "Peak memory", "Rewards over the steps", "Advantages over the steps"):
        assert f'alt="{title}"' in text
    assert "response/truncated is 0.5, above 0.02" in text
    assert "The runs differ in worker.reward.weights.keyframe: compare the parts of the reward" in text
    rows = re.findall(r"<td>([\w.]+)</td><td>(.*?)</td><td>(.*?)</td>", text)
    assert ("worker.reward.weights.keyframe", "-", "0.5") in rows
    assert not {"worker.reward.weights", "trainer.save_checkpoint_path"} & {name for name, *_ in rows}
    assert (runs[0] / "report.html").stat().st_size < 2e6


def test_charts_are_svg_with_text_that_turns_light(page: Path) -> None:
    urls = re.findall(r'data:image/svg\+xml;base64,([^"]+)', page.read_text())
    assert len(urls) > 10
    for url in urls:
        svg = base64.b64decode(url).decode()
        assert svg.startswith("<svg") and "prefers-color-scheme: dark" in svg and "<text" in svg
        assert "http" not in svg.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
            "http://creativecommons.org", ""
        )


def test_a_legend_covers_no_curve() -> None:
    rows = [{"step": step, "reward/mean": float(step % 7), "val/reward/mean": float(step % 5)} for step in range(1, 60)]
    figure = draw_panel("Reward", ["reward/mean", "val/reward/mean"], {"one": rows, "two": rows})
    figure.canvas.draw()
    (legend,) = figure.legends
    (axes,) = figure.axes
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())
    assert {line.get_linestyle() for line in axes.get_lines()} == {"-", "--"}
    assert axes.get_title() == "Reward" and axes.get_xlabel() == "step" and axes.get_ylabel() == "score"


def test_every_panel_shows_metrics_that_exist() -> None:
    names = [re.sub(r"<\w+>", "update", info.name) for info in METRICS] + ["timing_s/step"]
    names += [f"val/{name}" for name in names]
    for panel in PANELS:
        for pattern in panel.metrics:
            assert [name for name in [*names, "timing_s/rollout"] if re.fullmatch(pattern, name)], pattern
    assert all(find_metric(name) for name in CHECKS)


def test_the_rollout_history_shows_how_answers_changed(runs: tuple[Path, Path]) -> None:
    prompts = read_prompt_histories(runs[0], 200)
    assert [(prompt.sample_id, prompt.phase) for prompt in prompts] == [
        ("video/0", "validation"),
        ("video/1", "train"),
    ]
    assert [entry.step for entry in prompts[1].history] == [4, 8, 12] and prompts[1].change == 2.0
    best, worst = prompts[1].history[0].shown
    assert (best["number"], worst["number"]) == (3, 0) and len(prompts[1].history[0].others) == 4
    few = read_prompt_histories(runs[0], 2)
    embedded = [len(each["pictures"]) for prompt in few for entry in prompt.history for each in entry.shown]
    assert len(few) == 1 and embedded == [1, 1, 0]  # no picture is left; the text is still there


def test_what_is_worth_a_look(runs: tuple[Path, Path]) -> None:
    run = TrainingRun(runs[0])
    assert len(run.rows) == STEPS  # the last line is being written
    assert [warning.split()[0] for warning in warnings(run)] == ["response/truncated"]


def test_a_heat_map_has_all_responses() -> None:
    rows = [{"step": 1, "reward": histogram(np.zeros(8))}, {"step": 5, "reward": histogram(np.arange(8.0))}]
    (found,) = heat_maps(rows)
    assert found["title"] == "Rewards" and found["url"].startswith("data:image/svg+xml")


def test_runs_without_settings_or_rollouts_have_a_page(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 3.0, "actor/new": 1.0}\n')
    assert report.main([str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "Fine-tuning loss" in text and "keeps no settings" in text and "log_rollouts_freq" in text


def test_what_cannot_be_reported_is_one_line(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/metrics.jsonl").touch()
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval/predictions.jsonl").touch()
    for arguments, message in (
        ([str(tmp_path)], "no run in"),
        ([str(tmp_path / "empty")], "has no step yet"),
        ([str(runs[0]), "--against", str(tmp_path / "eval")], "compare runs of one kind"),
        ([str(runs[0]), "--agains", "x"], "did you mean against?"),
    ):
        assert report.main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


@needs_chromium
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(page: Path, chromium: Browser, width: int, scheme: str) -> None:
    with open_page(chromium, page, width, scheme) as shown:
        check_page(shown)
        check_viewer(shown)
        assert shown.evaluate("window.run") is None
        box = {name: shown.locator(f"#{name}").bounding_box() for name in ("summary", "settings", "curves", "all")}
        assert box["summary"]["y"] < box["settings"]["y"] <= box["curves"]["y"] < box["all"]["y"]
        beside = box["settings"]["x"] + box["settings"]["width"] <= box["curves"]["x"]
        assert beside == (width == 1280)  # the configuration beside the curves, above them on a telephone
        chart = shown.locator(".grid img").first.bounding_box()
        assert chart["width"] >= 340  # text of 9.5 points has at least 11 pixels


@needs_chromium
def test_the_rollout_history_is_filtered_and_sorted(page: Path, chromium: Browser) -> None:
    shown_ids = "[...document.querySelectorAll('article')].filter(a => !a.hidden).map(a => a.dataset.id)"
    with open_page(chromium, page) as shown:
        assert shown.evaluate(shown_ids) == ["video/0", "video/1"]
        shown.select_option("#phase", "train")
        assert shown.evaluate(shown_ids) == ["video/1"] and shown.text_content("#count") == "1 of 2"
        shown.select_option("#phase", "")
        shown.select_option("#order", "id")
        shown.fill("#search", "answer 3 at step 12")
        assert shown.evaluate(shown_ids) == ["video/1"]
