"""What a stopped evaluation leaves behind, and that a continued run ends with the same files."""

import json
import threading

import cv2
import numpy as np
import pytest

from eval import evaluation_folder, evaluation_worker
from eval.evaluate import sample_batches
from eval.evaluation_folder import EvaluationFolder, read_run
from eval.evaluation_options import EvaluateConfig
from eval.evaluation_worker import EvaluationWorker
from veason.errors import DataError

HEADER = {"benchmark": "reasonvos", "seed": 0, "versions": {"torch": "2"}}


def make_worker(toy_world, output, segmenter, rank=0):
    config = EvaluateConfig(
        model_path="none", data_path=str(toy_world / "ReasonVOS"), output_path=str(output), benchmark="reasonvos"
    )
    return EvaluationWorker(config, rank, segmenter)


def run(toy_world, output, segmenter, batch=2, header=HEADER):
    folder = EvaluationFolder(output)
    done = folder.begin(header)
    worker = make_worker(toy_world, output, segmenter)
    samples = worker.benchmark.samples
    left = [index for index, sample in enumerate(samples) if sample.sample_id not in done]
    for start in range(0, len(left), batch):
        worker.run(left[start : start + batch])
    return folder.finish(sample.sample_id for sample in samples)


def contents(folder):
    """Every file's bytes; of predictions.jsonl all but the times."""
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    lines = [
        json.loads(line)
        for line in files.pop(next(path for path in files if path.name == "predictions.jsonl")).splitlines()
    ]
    return files, [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_records_masks_and_failures(toy_world, tmp_path, scripted):
    records = run(toy_world, tmp_path / "run", scripted())
    header, read = read_run(tmp_path / "run")
    assert header == HEADER and read == records
    predictions = tmp_path / "run/predictions.jsonl"
    predictions.write_text(predictions.read_text().replace('{"header": {', '{"header": {"frame_index": "relative", '))
    assert read_run(tmp_path / "run")[0] == {**HEADER, "timestamp_mode": "relative"}  # the key's earlier name
    assert {record.failure for record in records} >= {None, "no_answer"}
    for record in records:
        pngs = sorted((tmp_path / "run" / record.result_dir).iterdir())
        masks = np.array([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in pngs])
        assert masks.dtype == np.uint8 and masks.shape == (record.frames, *record.size)
        if record.failure:
            assert not masks.any()
        else:
            (x1, y1, x2, y2) = record.boxes[0]
            assert set(np.unique(masks)) == {0, 255}
            assert (masks[:, y1:y2, x1:x2] == 255).all() and (masks > 0).sum() == len(masks) * (y2 - y1) * (x2 - x1)
            assert record.thinking == f"<b>{record.sample_id}</b>"
    assert not (tmp_path / "run" / ".journal").exists() and not (tmp_path / "run" / ".partial").exists()


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_continued_run_ends_with_the_same_files(toy_world, tmp_path, scripted, stop_after):
    run(toy_world, tmp_path / "whole", scripted())
    with pytest.raises(KeyboardInterrupt):
        run(toy_world, tmp_path / "stopped", scripted(stop_after=stop_after), batch=1)
    # What a kill can leave: half a sample's masks, a folder without its record, half a line.
    _, records = read_run(tmp_path / "stopped")
    assert len(records) == stop_after
    partial = tmp_path / "stopped" / ".partial" / "0"
    partial.mkdir(parents=True, exist_ok=True)
    (partial / "00000.png").write_bytes(b"half")
    next_sample = make_worker(toy_world, tmp_path / "stopped", scripted()).benchmark.samples[stop_after]
    orphan = tmp_path / "stopped" / next_sample.result_dir
    orphan.mkdir(parents=True)
    (orphan / "left_over.png").write_bytes(b"")
    with open(tmp_path / "stopped" / ".journal" / "0.jsonl", "a") as journal:
        journal.write('{"sample_id": "cut in tw')
    second = scripted()
    run(toy_world, tmp_path / "stopped", second)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert not {record.sample_id for record in records} & set(second.policy.names)  # nothing is done twice


def test_a_folder_with_another_run_is_refused(toy_world, tmp_path, scripted):
    run(toy_world, tmp_path / "run", scripted())
    before = contents(tmp_path / "run")
    with pytest.raises(DataError, match=r"seed=0, not 1"):
        EvaluationFolder(tmp_path / "run").begin({**HEADER, "seed": 1})
    EvaluationFolder(tmp_path / "run").begin({**HEADER, "versions": {"torch": "3"}})
    assert contents(tmp_path / "run") == before


def test_a_missing_mask_leaves_no_folder(tmp_path):
    folder = EvaluationFolder(tmp_path)
    with pytest.raises(DataError, match="1 masks for 2 frames"):
        folder.write_masks("Annotations/v/0", ("a", "b"), [(0, np.zeros((4, 4), bool))], worker=0)
    assert not (tmp_path / "Annotations").exists()


def test_a_second_run_is_refused_while_the_first_is_at_work(tmp_path):
    with EvaluationFolder(tmp_path).locked():
        EvaluationFolder(tmp_path).begin(HEADER)
        with pytest.raises(DataError, match="another run is at work in"), EvaluationFolder(tmp_path).locked():
            pass
    with EvaluationFolder(tmp_path).locked():
        pass


def test_few_masks_wait_for_the_disk(tmp_path, monkeypatch):
    slow, made, most = threading.Semaphore(0), 0, 0
    written = []

    def write(path, mask):  # noqa: ARG001
        slow.acquire()
        written.append(path)

    def masks():
        nonlocal made, most
        for index in range(100):
            made += 1
            most = max(most, made - len(written))
            slow.release()
            yield index, np.zeros((4, 4), bool)

    monkeypatch.setattr(evaluation_folder, "_write_png", write)
    EvaluationFolder(tmp_path, writer_threads=2).write_masks(
        "Annotations/v/0", tuple(map(str, range(100))), masks(), worker=0
    )
    assert len(set(written)) == 100 and most <= 2 * evaluation_folder.MAX_QUEUED + 3


def test_frames_of_another_size_than_annotated_are_named(toy_world, tmp_path, scripted):
    worker = make_worker(toy_world, tmp_path, scripted())
    sample = worker.benchmark.samples[0]
    worker.benchmark.samples = [sample._replace(height=sample.height + 2)]
    with pytest.raises(
        DataError,
        match=rf"{sample.sample_id}: .*\.jpg is {sample.height}x\d+, the annotation says {sample.height + 2}x",
    ):
        worker.run([0])


def test_masks_are_written_while_the_next_video_is_tracked(toy_world, tmp_path, scripted, monkeypatch):
    segmenter, tracked, waited = scripted(), [], []
    worker = make_worker(toy_world, tmp_path / "run", segmenter)
    again, track, write = threading.Event(), segmenter.track_all, worker.folder.write_masks

    def track_all(frames, readings):
        tracked.append(len(frames))
        if len(tracked) == 2:
            again.set()
        return track(frames, readings)

    def write_masks(*arguments):
        waited.append(again.wait(20))
        write(*arguments)

    monkeypatch.setattr(segmenter, "track_all", track_all)
    monkeypatch.setattr(worker.folder, "write_masks", write_masks)
    samples = worker.benchmark.samples
    worker.run(range(len(samples)))
    assert len({sample.video for sample in samples}) == len(tracked) == 2 and all(waited)


def test_a_disk_that_fails_ends_the_run(toy_world, tmp_path, scripted, monkeypatch):
    def fail(path, mask):  # noqa: ARG001
        raise DataError(f"mask cannot be written: {path}")

    monkeypatch.setattr(evaluation_folder, "_write_png", fail)
    with pytest.raises(DataError, match="mask cannot be written"):
        run(toy_world, tmp_path / "run", scripted())
    assert read_run(tmp_path / "run")[1] == [] and not (tmp_path / "run" / "Annotations").exists()


def test_masks_of_many_expressions_are_not_held_at_once(toy_world, tmp_path, scripted, monkeypatch):
    run(toy_world, tmp_path / "whole", scripted(), batch=8)
    sample = make_worker(toy_world, tmp_path, scripted()).benchmark.samples[0]
    monkeypatch.setattr(evaluation_worker, "MASK_BYTES", 2 * len(sample.frames) * sample.height * sample.width)
    assert [len(part) for part in evaluation_worker.split_by_memory([sample] * 5)] == [2, 2, 1]
    run(toy_world, tmp_path / "parts", scripted(), batch=8)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.parametrize(("count", "largest", "workers"), [(0, 4, 2), (3, 64, 1), (1000, 64, 8), (7, 64, 3)])
def test_batches_cover_every_sample_once(count, largest, workers):
    parts = list(sample_batches(range(count), largest, workers))
    assert [index for part in parts for index in part] == list(range(count))
    assert all(len(part) <= largest for part in parts)
    assert len(parts) < 2 or workers == 1 or len(parts[-1]) <= 4
