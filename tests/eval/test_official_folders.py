"""Every official download, in a small folder of its shape: opened, audited, evaluated with given answers, scored."""

import json
import shutil
import subprocess

import cv2
import numpy as np
import pytest

from eval import metrics
from eval.evaluation_folder import EvaluationFolder
from eval.evaluation_options import EvaluateConfig
from eval.evaluation_worker import EvaluationWorker
from eval.score_table import summarize
from tests.official_folders import FOLDERS, HEIGHT, WIDTH
from tests.scoring import score_benchmark
from tests.veason.scripted_parts import BoxTracker
from veason.answers import format_answer
from veason.audit.command import main as audit
from veason.data import detect_benchmark, find_benchmark, open_benchmark
from veason.data.selection import select_samples, write_left_out
from veason.data.training import build_training_data
from veason.errors import DataError
from veason.inference.segmenter import Segmenter


@pytest.fixture(params=[*FOLDERS])
def official(request, tmp_path):
    """(benchmark, root, split)"""
    write, benchmark, split = FOLDERS[request.param]
    root = tmp_path / "data"
    write(root)
    return benchmark, root, split


class BoxPolicy:
    """Answers with the box of object 1 in the first frame, in pixels of 560 x 560."""

    def generate(self, questions):
        x, y = 560 / WIDTH, 560 / HEIGHT
        return [format_answer("why", 0, [[3 * x, 2 * y, 20 * x, 12 * y]]) for _ in questions]


def test_it_is_opened_audited_evaluated_and_scored(official, tmp_path, capsys):
    name, root, split = official
    assert detect_benchmark(root) == name
    opened = open_benchmark(name, root, split)
    assert {(sample.height, sample.width) for sample in opened.samples} == {(HEIGHT, WIDTH)}
    assert audit([str(root), "--output", str(tmp_path / "audit")]) == 0, capsys.readouterr().out

    output = tmp_path / "run"
    config = EvaluateConfig("none", str(root), str(output), benchmark=name, split=split)
    folder, worker = EvaluationFolder(output), EvaluationWorker(config, 0, Segmenter(BoxPolicy(), BoxTracker()))
    folder.begin({"benchmark": name, "split": split})
    worker.run(range(len(opened.samples)))
    folder.finish(sample.sample_id for sample in opened.samples)
    capsys.readouterr()
    assert metrics.main([str(output), str(root), "processes=1"]) == 0
    table = capsys.readouterr().out
    assert "this run" in table and "no prediction is missing" in table
    assert "(paper)" not in table  # a few expressions are not the official split

    for sample in opened.samples:  # the ground truth in place of the predictions
        for frame, mask in zip(sample.frames, opened.masks(sample).max(axis=0, initial=0)):
            cv2.imwrite(str(output / sample.result_dir / f"{frame}.png"), mask.astype(np.uint8))
    values = summarize(find_benchmark(name), score_benchmark(name, root, split, output, processes=1))
    assert (values.get("Overall J&F") or values["J&F"]).value == pytest.approx(100)


def test_scoring_needs_annotation_and_masks_alone(official, tmp_path, capsys):
    name, root, split = official
    with_frames = open_benchmark(name, root, split)
    for frames in root.rglob("JPEGImages"):
        shutil.rmtree(frames)
    shutil.rmtree(root / "video_frames", ignore_errors=True)
    opened = open_benchmark(name, root, split, check=False)
    assert [sample._replace(frame_dir=root) for sample in opened.samples] == [
        sample._replace(frame_dir=root) for sample in with_frames.samples
    ]
    for sample in opened.samples:
        (tmp_path / "run" / sample.result_dir).mkdir(parents=True)
        for frame in sample.frames:
            cv2.imwrite(str(tmp_path / "run" / sample.result_dir / f"{frame}.png"), np.zeros((HEIGHT, WIDTH), np.uint8))
    words = [str(tmp_path / "run"), str(root), f"benchmark={name}", f"split={split}", "processes=1"]
    assert metrics.main(words) == 0
    assert "no prediction is missing" in capsys.readouterr().out
    with pytest.raises(DataError, match=rf"{name} .*frame folder is missing: .*on_missing=skip leaves them out"):
        open_benchmark(name, root, split)


def test_it_is_trained_on(official):
    name, root, split = official
    data = build_training_data(name=name, train_files=root, meta_file=split, keyframe_resize=56, sampled_frames=3)
    example = data.example(0, 1)
    assert example.ground_truth.masks.any() and len(example.images) == len(example.ground_truth.timestamps)


def test_a_missing_frame_of_another_video_stops_nothing(tmp_path):
    root = tmp_path / "data"
    FOLDERS["reasonvos"][0](root)
    content = json.loads((root / "meta_expressions.json").read_text())
    content["videos"]["v0"] = content["videos"]["v1"]  # listed after v1, without files
    (root / "meta_expressions.json").write_text(json.dumps(content))
    benchmark = open_benchmark("reasonvos", root, check=False)
    assert select_samples(benchmark, limit=1).indices == [0]
    with pytest.raises(DataError, match=r"reasonvos BURST_v0_1/0: frame folder is missing: .*\(3 more of 8\)"):
        select_samples(benchmark)
    selection = select_samples(benchmark, on_missing="skip")
    assert selection.indices == [0, 1, 2, 3] and list(selection.left_out) == [
        f"BURST_v0_{number}/{exp_id}" for number in (1, 2) for exp_id in (0, 1)
    ]
    assert selection.summary == "left out: 4 missing or unusable; 4 are left"
    assert select_samples(benchmark, {"v0"}).summary == "left out: 4 excluded; 4 are left"
    with pytest.raises(DataError, match=r"on_missing is 'ignore'; it can be fail or skip"):
        select_samples(benchmark, on_missing="ignore")

    masks = tmp_path / "run"
    for index in selection.indices:
        sample = benchmark.samples[index]
        (masks / sample.result_dir).mkdir(parents=True)
        for frame, mask in zip(sample.frames, benchmark.masks(sample)[0]):
            cv2.imwrite(str(masks / sample.result_dir / f"{frame}.png"), mask)
    with pytest.raises(DataError, match="mask folder is missing"):
        metrics.compute_metrics(metrics.MetricsConfig(str(masks), str(root), "reasonvos"))
    write_left_out(masks, selection)  # as the evaluation leaves it
    table = metrics.compute_metrics(metrics.MetricsConfig(str(masks), str(root), "reasonvos", processes=1))
    assert "| this run | 100.0" in table and "left out: 4 missing or unusable; 4 are left: BURST_v0_1/0" in table
    (masks / "left_out.txt").unlink()
    skipping = metrics.MetricsConfig(str(masks), str(root), "reasonvos", on_missing="skip", processes=1)
    assert "left out: 4 missing or unusable" in metrics.compute_metrics(skipping)


def test_a_partial_vicas(tmp_path, capsys):
    root = tmp_path / "data"
    FOLDERS["vicas"][0](root)
    (root / "splits" / "v1.0" / "val.json").write_text("[3, 12, 13]")
    with pytest.raises(DataError, match=r"vicas 000003: .*annotation file is missing: .*000003\.json \(1 more of 4\)"):
        open_benchmark("vicas", root)
    selection = select_samples(open_benchmark("vicas", root, check=False), on_missing="skip")
    assert selection.indices == [0, 1] and list(selection.left_out) == ["000003", "000013"]
    assert audit([str(root), "--output", str(tmp_path / "audit")]) == 1
    assert "2 invalid_entry" in capsys.readouterr().out
    excluded = str(tmp_path / "audit" / "exclude.txt")
    words = {"name": "vicas", "train_files": root, "meta_file": "val", "keyframe_resize": 56}
    assert len(build_training_data(exclude=excluded, **words)) == 2
    with pytest.raises(DataError, match=r"000003\.json; .*data\.exclude or data\.on_bad_sample=skip leaves them out"):
        build_training_data(**words)
    assert list(build_training_data(on_bad_sample="skip", **words).skipped_samples) == ["000003", "000013"]


def test_splits_of_vicas_are_copied_from_its_repository_by_the_command_of_the_message(tmp_path):
    root = tmp_path / "data"
    FOLDERS["vicas"][0](root)
    (tmp_path / "ViCaS").mkdir()
    (root / "splits").rename(tmp_path / "ViCaS" / "splits")  # the clone
    with pytest.raises(DataError, match="the splits lie in the benchmark's repository: git clone") as error:
        open_benchmark("vicas", root)
    command = str(error.value).partition(" && ")[2]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert len(open_benchmark("vicas", root).samples) == 2
