"""A benchmark of 20 lines is audited, trained on and evaluated by its path; a column of its own is reported."""

import json

import numpy as np
import pytest
from PIL import Image

from eval import metrics
from eval.evaluation_folder import EvaluationFolder
from eval.evaluation_options import EvaluateConfig
from eval.evaluation_worker import EvaluationWorker
from veason.audit.command import main as audit_main
from veason.data import VideoBenchmark, VideoSample
from veason.data.selection import select_samples
from veason.data.training import build_training_data
from veason.errors import DataError
from veason.masks import encode
from veason.metrics.scores import Column, of_category

PATH = f"{__name__}:Squares"


class Squares(VideoBenchmark):
    """What a user writes: clips/<video>/<frame>.jpg, and list.json with a text and a box per video."""

    name = "squares"
    splits = {"all": "list.json"}  # noqa: RUF012

    def read_samples(self):
        self.entries = json.loads(self.meta_path.read_text())
        for video, entry in self.entries.items():
            folder = self.root / "clips" / video
            frames = tuple(sorted(path.stem for path in folder.glob("*.jpg")))
            yield VideoSample(f"{video}/0", video, "0", entry["text"], folder, frames, 40, 60, None, ("it",))

    def read_masks(self, sample, frame_indices):
        left, top, right, bottom = self.entries[sample.video]["box"]
        mask = np.zeros((sample.height, sample.width), np.uint8)
        mask[top:bottom, left:right] = 1
        return [[encode(mask) for _ in frame_indices]]


class RatedSquares(Squares):
    """A metric of its own, reported for a group of its own."""

    columns = (Column("Filled", "filled", (of_category("odd"),)),)

    def read_samples(self):
        return (sample._replace(category="even" if sample.video == "a" else "odd") for sample in super().read_samples())

    def score_sample(self, sample, pred, present, foreground):
        score = super().score_sample(sample, pred, present, foreground)
        score.metrics["filled"] = 0.25 if sample.video == "a" else 0.75
        return score


@pytest.fixture
def squares(tmp_path):
    root = tmp_path / "squares"
    for video in ("a", "b"):
        (root / "clips" / video).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (60, 40), (number, 0, 0)).save(root / "clips" / video / f"{number:02d}.jpg")
    entries = {video: {"text": f"The square of {video}.", "box": [5, 5, 25, 30]} for video in ("a", "b")}
    (root / "list.json").write_text(json.dumps(entries))
    return root


def test_it_is_audited(squares, tmp_path, capsys):
    output = tmp_path / "audit"
    assert audit_main([str(squares), "--benchmark", PATH, "--output", str(output)]) == 0
    (squares / "clips" / "b" / "03.jpg").write_bytes(b"")
    (squares / "clips" / "b" / "05.jpg").write_bytes(b"")
    assert audit_main([str(squares), f"benchmark={PATH}", f"output={output}", "workers=2"]) == 1
    assert "1 unreadable_frame" in capsys.readouterr().out and (output / "exclude.txt").read_text().startswith("b/0")


def test_it_is_trained_on(squares):
    section = {"train_files": str(squares), "sampled_frames": 4, "keyframe_resize": 56, "rollout_batch_size": 2}
    data = build_training_data(name=PATH, **section)
    assert len(data) == 2 and data.sample_id(1) == "b/0"
    messages, sizes = data.messages_and_sizes(1, seed=3)
    example = data.example(1, seed=3)
    assert example.messages == messages and [image.size for image in example.images] == sizes
    assert example.expression == "The square of b."
    assert example.ground_truth.boxes[0] == [
        [pytest.approx(5 * 56 / 60 + 0.5), pytest.approx(7.5), 22.9, pytest.approx(41.1)]
    ]
    assert example.ground_truth.masks.shape == (len(sizes), 56, 56) and example.ground_truth.masks.all(0).any()
    assert build_training_data(name=PATH, options={"include_no_target": True}, **section).sampled_frames == 4
    with pytest.raises(DataError, match=r"data\.options\.sampled is unknown; did you mean sampled_frames"):
        build_training_data(name=PATH, options={"sampled": 3}, **section)


class TextMasks(Squares):
    """Run-length masks as JSON holds them, with text; `broken` cuts one short."""

    def read_masks(self, sample, frame_indices):
        tracks = super().read_masks(sample, frame_indices)
        cut = -1 if self.entries[sample.video].get("broken") else None
        return [[{**rle, "counts": rle["counts"].decode()[:cut]} for rle in track] for track in tracks]


def test_masks_with_text_counts_are_accepted_and_checked_before_the_evaluation(squares):
    plain, text = Squares(squares), TextMasks(squares)
    for sample in plain.samples:
        assert np.array_equal(plain.masks(sample), text.masks(sample))
        assert np.array_equal(plain.areas(sample), text.areas(sample))
        assert text.annotated_masks(sample, "it") == plain.annotated_masks(sample, "it")
    entries = json.loads((squares / "list.json").read_text())
    entries["b"]["broken"] = True
    (squares / "list.json").write_text(json.dumps(entries))
    with pytest.raises(DataError, match=r"squares b/0: .*list.json, frame 00: run-length mask .* cannot be dec"):
        select_samples(TextMasks(squares), read_masks=True)
    assert select_samples(TextMasks(squares), read_masks=True, on_missing="skip").indices == [0]


def test_a_target_without_a_mask_is_named_when_it_is_read(squares):
    entries = json.loads((squares / "list.json").read_text())
    (squares / "list.json").write_text(json.dumps({**entries, "a": {"text": "nothing", "box": [0, 0, 0, 0]}}))
    data = build_training_data(name=PATH, train_files=squares)
    with pytest.raises(DataError, match=r"a/0: no mask in any frame, in .*list\.json"):
        data.example(0, 0)
    assert build_training_data(name=PATH, train_files=squares, on_bad_sample="skip").example(0, 0).sample_id == "b/0"


def test_it_is_evaluated(squares, tmp_path, scripted, capsys):
    config = EvaluateConfig("none", str(squares), str(tmp_path / "run"), benchmark=PATH)
    folder, worker = EvaluationFolder(config.output_path), EvaluationWorker(config, 0, scripted())
    folder.begin({"benchmark": PATH, "split": "all", "limit": None})
    worker.run(range(2))
    folder.finish(["a/0", "b/0"])
    assert metrics.main([str(tmp_path / "run"), str(squares), "processes=1"]) == 0
    printed = capsys.readouterr().out
    assert "| Method | J | F | J&F |" in printed and "2 expressions, no prediction is missing" in printed


def test_its_own_metric_is_reported(squares, tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    path = f"{__name__}:RatedSquares"
    assert metrics.main([str(tmp_path / "masks"), str(squares), f"benchmark={path}", "processes=1"]) == 0
    assert (
        "| Method | Filled |" in (printed := capsys.readouterr().out) and "| this run | 75.0 [75.0, 75.0] |" in printed
    )
    stored = json.loads((tmp_path / "masks" / "metrics.json").read_text())["samples"]
    assert [(score["category"], score["metrics"]) for score in stored] == [
        ("even", {"filled": 0.25}),
        ("odd", {"filled": 0.75}),
    ]
