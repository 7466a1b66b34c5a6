"""A tracker that takes text, from the command line to the report: no policy is needed, loaded or shown."""

import os
import sys

import numpy as np
import pytest
import ray

from eval import evaluate
from eval.evaluation_folder import read_run
from eval.report.command import main as report_main
from tests.veason.videos import write_folder
from veason.inference.segmenter import Segmenter
from veason.inference.vllm_policy import VLLMPolicy
from veason.predict import command as predict
from veason.tracking import build_tracker
from veason.tracking.text_tracker import TextTracker

NAME = "tests.eval.test_text_tracker:Words"
FRESH = "TEXT_TRACKER_IN_A_PROCESS_OF_ITS_OWN"  # other tests of this process may have imported vLLM


class Words(TextTracker):
    """A stripe as wide as the text is long, from frame `start` on."""

    def __init__(self, device="cpu", start=1):
        super().__init__(device)
        self.start = start

    def track_texts(self, read_frame, total, texts):
        assert FRESH not in os.environ or "vllm" not in sys.modules  # no policy has been loaded for it
        for frame in range(total):
            masks = np.zeros((len(texts), *read_frame(frame).shape[:2]), np.uint8)
            for number, text in enumerate(texts):
                masks[number, :, : len(text)] = frame >= self.start
            yield frame, masks


@pytest.fixture
def local_ray(tmp_path_factory):
    paths = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    environment = {"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", FRESH: "1"}}
    folder = tmp_path_factory.mktemp("r").as_posix()[:60]
    ray.init(address="local", num_cpus=2, include_dashboard=False, _temp_dir=folder, runtime_env=environment)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("local_ray")
def test_an_evaluation_without_a_policy(toy_world, tmp_path, capsys):
    line = f"benchmark=revos data_path={toy_world}/ReVOS output_path={tmp_path}/run tracker={NAME} workers=1 limit=5"
    words = [*line.split(), "tracker_options.start=2"]
    assert evaluate.main(words) == 0
    assert "| this run |" in capsys.readouterr().out
    header, records = read_run(tmp_path / "run")
    assert header["model_path"] is header["model_sha256"] is header["prompt"] is header["sampled_frames"] is None
    assert len(records) == 5 and all(record.shown == [] == record.boxes for record in records)
    assert all(record.answer == "" and record.keyframe is None and record.failure is None for record in records)
    assert evaluate.main([*words, "model_path=CHECKPOINT"]) == 0  # the same run: nothing is left to do
    printed = capsys.readouterr().out
    assert f"model_path has no effect: tracker={NAME}" in printed and "5 done before" in printed
    assert report_main([str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Words" in page and records[0].expression in page
    assert evaluate.main([*words, "--plan"]) == 0
    assert f"{NAME} alone, which is given the expressions" in capsys.readouterr().out


def test_every_other_tracker_needs_a_policy(tmp_path, capsys):
    line = f"benchmark=revos data_path={tmp_path} output_path={tmp_path}/run sam2_checkpoint=random"
    for switches in ([], ["--plan"]):
        assert evaluate.main([*line.split(), *switches]) == 2
        assert capsys.readouterr().err == "eval.evaluate: missing: model_path=...\n"


def test_a_prediction_says_that_there_was_no_reasoning(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(VLLMPolicy, "__init__", lambda *_, **__: pytest.fail("loaded"))
    clip, out = write_folder(tmp_path / "in", 5, (40, 64)), tmp_path / "out"
    words = [str(clip), "The duck.", "x", "--tracker", NAME, "--out", str(out)]
    assert predict.main(words) == 0
    printed = capfd.readouterr()
    assert "what the tracker found by the expression alone" in printed.err + printed.out and "toy" not in printed.err
    page = (out / "00" / "index.html").read_text()
    assert "no policy was asked" in page and "The whole answer" not in page and "shown to the policy" not in page
    assert (out / "00" / "masks" / "004.png").is_file() and not (out / "00" / "objects").exists()
    assert predict.main([*words, "--size", "560"]) == 0
    assert f"size: no effect, {NAME} is used without a policy" in capfd.readouterr().err


def test_masks_of_a_short_and_of_a_streamed_video(monkeypatch):
    monkeypatch.setattr(VLLMPolicy, "__init__", lambda *_, **__: pytest.fail("loaded"))
    frames = [np.zeros((8, 30, 3), np.uint8)] * 4
    for most in (4, 3):
        tracker = build_tracker(NAME, "cpu", max_frames=most, start=1)
        one, other = Segmenter.from_pretrained(tracker=tracker).segment_all(frames, ["A duck.", "the pond"])
        assert one.masks[1:, :, : len("a duck")].all() and one.masks.sum() == 3 * 8 * len("a duck")
        assert other.masks.sum() == 3 * 8 * len("the pond") and one.shown_frames == []
        assert "what the tracker found" in one._repr_html_()
