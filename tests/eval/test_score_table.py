"""Tables from PNGs: perfect, missing and other methods' predictions, each benchmark's means, archives."""

import json
import shutil
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image

from eval import metrics
from eval.score_table import markdown_table, summarize
from tests.scoring import score_benchmark
from veason.data import find_benchmark, open_benchmark
from veason.metrics.scores import SampleScore
from veason.metrics.track_ap import track_precisions


def write_ground_truth(benchmark, folder, value=255, skip=(), top=True):
    for sample in benchmark.samples:
        if sample.sample_id in skip:
            continue
        target = folder / (sample.result_dir if top else sample.result_dir.removeprefix("Annotations/"))
        target.mkdir(parents=True)
        for name, mask in zip(sample.frames, benchmark.masks(sample).any(axis=0)):
            cv2.imwrite(str(target / f"{name}.png"), mask.astype(np.uint8) * value)


def test_the_truth_scores_100(toy_world, tmp_path, capsys):
    benchmark = open_benchmark("revos", toy_world / "ReVOS")
    write_ground_truth(benchmark, tmp_path / "masks", value=1, top=False)  # without the folder of a run
    assert (
        metrics.main([str(tmp_path / "masks"), str(toy_world / "ReVOS"), "processes=1"]) == 0
    )  # its files tell which benchmark it is
    printed = capsys.readouterr().out
    assert "(paper)" not in printed
    assert (
        "Not comparable with the paper's table, which is of the whole split: 2 of the 416 videos of revos valid"
        in printed
    )
    assert "| this run | 100.0 [100.0, 100.0] | 100.0 [100.0, 100.0] | 100.0 [100.0, 100.0] | 100.0" in printed
    assert "no prediction is missing" in printed
    content = json.loads((tmp_path / "masks" / "metrics.json").read_text())
    assert len(content["samples"]) == len(benchmark.samples)


def test_the_paper_s_rows_stand_beside_a_whole_official_split_alone(toy_world, tmp_path, capsys, monkeypatch):
    """The toy's videos in the place of the official ones."""
    monkeypatch.setattr(find_benchmark("revos"), "official_size", {"valid": ("videos", 2)})
    benchmark = open_benchmark("revos", toy_world / "ReVOS")
    write_ground_truth(benchmark, tmp_path / "masks", value=1, top=False)
    words = [str(tmp_path / "masks"), str(toy_world / "ReVOS"), "processes=1"]
    assert metrics.main(words) == 0
    assert "| Veason-R1-3B (paper) | 63.0 | 56.8 | 59.9 | 28.5 |" in capsys.readouterr().out
    (tmp_path / "exclude.txt").write_text(f"{benchmark.samples[0].sample_id}\n")
    assert metrics.main([*words, f"exclude={tmp_path / 'exclude.txt'}"]) == 0
    printed = capsys.readouterr().out
    assert "(paper)" not in printed and "whole split: samples were left out (1)." in printed
    assert metrics.main([*words, "limit=1"]) == 0
    assert "whole split: 1 of the 2 videos of revos valid." in capsys.readouterr().out


def test_the_own_score_of_vicas_stands_first():
    vicas = find_benchmark("vicas")
    scores = [SampleScore("a/0", "a", 0, 1, J=0.5, F=0.5, track_ious=[[0.9]])]
    values = summarize(vicas, scores)
    assert next(iter(values)) == "mAP"
    table = markdown_table(vicas, "val", values, "ours")
    assert "LMPM, VideoLISA and Video-LLaVA-Seg look like the benchmark's own mAP" in table and "| LMPM |" in table


def test_without_the_foreground_masks_r_alone_is_missing(toy_world, tmp_path, capsys):
    root = tmp_path / "ReVOS"
    shutil.copytree(toy_world / "ReVOS", root, ignore=shutil.ignore_patterns("mask_dict_foreground*"))
    write_ground_truth(open_benchmark("revos", root), tmp_path / "masks")
    assert metrics.main([str(tmp_path / "masks"), str(root), "benchmark=revos", "processes=1"]) == 0
    printed = capsys.readouterr()
    assert "R is not computed" in printed.err and "mask_dict_foreground.json is missing" in printed.err
    assert "| this run | 100.0 [100.0, 100.0] | 100.0 [100.0, 100.0] | 100.0 [100.0, 100.0] | - | - |" in printed.out


def test_missing_predictions_are_zero_and_named(toy_world, tmp_path, capsys):
    benchmark = open_benchmark("reasonvos", toy_world / "ReasonVOS")
    first, second = benchmark.samples[0], benchmark.samples[1]
    write_ground_truth(benchmark, tmp_path, skip=[first.sample_id])
    (tmp_path / second.result_dir / f"{second.frames[0]}.png").unlink()
    scores = {
        score.sample_id: score
        for score in score_benchmark("reasonvos", toy_world / "ReasonVOS", None, tmp_path, processes=1)
    }
    assert (scores[first.sample_id].J, scores[first.sample_id].missing) == (0.0, len(first.frames))
    boundary = scores[second.sample_id].F
    assert boundary == pytest.approx(1 - 1 / len(second.frames))
    metrics.main([str(tmp_path), str(toy_world / "ReasonVOS"), "benchmark=reasonvos", "processes=1"])
    assert f"{first.sample_id} ({len(first.frames)} frames), {second.sample_id} (1 frames)" in capsys.readouterr().out


def test_processes_give_the_same_scores(toy_world, tmp_path):
    write_ground_truth(open_benchmark("revos", toy_world / "ReVOS"), tmp_path)
    one, two = (score_benchmark("revos", toy_world / "ReVOS", None, tmp_path, processes=count) for count in (1, 2))
    assert one == two


def test_wrong_size_or_folder_is_named(toy_world, tmp_path, capsys):
    benchmark = open_benchmark("reasonvos", toy_world / "ReasonVOS")
    write_ground_truth(benchmark, tmp_path)
    broken = tmp_path / benchmark.samples[0].result_dir / f"{benchmark.samples[0].frames[0]}.png"
    cv2.imwrite(str(broken), np.zeros((3, 5), np.uint8))
    assert metrics.main([str(tmp_path), str(toy_world / "ReasonVOS"), "benchmark=reasonvos", "processes=1"]) == 2
    assert f"{broken} is 3x5" in capsys.readouterr().err
    assert metrics.main([str(tmp_path), str(tmp_path)]) == 2
    assert (
        "holds the files of none of revos, reasonvos, mevis, vicas, refytvos, refdavis17, mevis2, long_rvos, ref_sav, "
        "groundmore, reasonseg: give its benchmark's name" in capsys.readouterr().err
    )


def make_score(video, type_id, j, f, **more):
    return SampleScore(f"{video}/0", video, type_id, 1, J=j, F=f, **more)


def test_overall_is_the_mean_of_the_two_types():
    scores = [
        make_score("a", 0, 0.2, 0.4),
        make_score("b", 0, 0.4, 0.6),
        make_score("c", 0, 0.6, 0.8),
        make_score("d", 1, 0.8, 1.0, R=0.5),
    ]
    values = summarize(find_benchmark("revos"), [*scores, make_score("e", 2, 1.0, 1.0)])
    assert values["Referring J&F"].value == pytest.approx(50)
    assert values["Reasoning J&F"].value == pytest.approx(90)
    assert values["Overall J&F"].value == pytest.approx(70)
    assert values["R"].value == pytest.approx(50)
    assert values["Absent J&F"].value == pytest.approx(100)
    assert values["Referring J&F"].low < 50 < values["Referring J&F"].high
    assert (
        summarize(find_benchmark("revos"), scores)["Overall J&F"]
        == summarize(find_benchmark("revos"), scores)["Overall J&F"]
    )  # the bootstrap has a seed


def test_the_interval_has_the_width_of_the_standard_error():
    rng = np.random.default_rng(0)
    scores = [make_score(f"v{i}", None, j, j) for i, j in enumerate(rng.normal(0.5, 0.1, 400))]
    value = summarize(find_benchmark("reasonvos"), scores)["J"]
    assert value.high - value.low == pytest.approx(2 * 1.96 * 100 * 0.1 / 20, rel=0.15)


def test_vicas_average_precision():
    def score(ious, objects=1):
        return SampleScore("v/0", "v", None, objects, track_ious=ious)

    # 4 ground-truth tracks; hits at 0.5: 3 of 3 predicted; at 0.75: the first two; at 0.9: the first
    values = track_precisions([score([[0.92]]), score([[0.8]]), score([[0.55]]), score([])])
    assert values["AP@50"] == pytest.approx(75)
    assert values["AP@75"] == pytest.approx(50)
    assert values["AP@90"] == pytest.approx(25)
    # thresholds up to which each is hit: 9 (0.50..0.90), 7 (..0.80), 2 (..0.55) levels of 10
    assert values["mAP"] == pytest.approx(100 * (9 + 7 + 2) / 4 / 10)
    assert track_precisions([score([[0.9, 0.0]], objects=2)])["AP@50"] == pytest.approx(50)  # one track for two objects
    assert track_precisions([score([])])["mAP"] == 0.0


@pytest.fixture
def davis(tmp_path):
    """One video of two objects, the four descriptions of each, one void column."""
    root, frames = tmp_path / "davis", ["00000", "00001"]
    labels = np.zeros((20, 30), np.uint8)
    labels[2:10, 2:12], labels[10:18, 14:26], labels[:, 29] = 1, 2, 255
    for kind in ("JPEGImages", "Annotations"):
        (root / "valid" / kind / "dog").mkdir(parents=True)
    for name in frames:
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(root / "valid" / "JPEGImages" / "dog" / f"{name}.jpg")
        Image.fromarray(labels).save(root / "valid" / "Annotations" / "dog" / f"{name}.png")
    expressions = {
        str(4 * (obj - 1) + who): {"exp": f"thing {obj}", "obj_id": str(obj)} for obj in (1, 2) for who in range(4)
    }
    meta = root / "meta_expressions" / "valid" / "meta_expressions.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"videos": {"dog": {"frames": frames, "expressions": expressions}}}))
    return root, labels


def test_davis_is_scored_per_annotator(davis, tmp_path):
    root, labels = davis
    benchmark = open_benchmark("refdavis17", root)
    write_ground_truth(benchmark, tmp_path / "masks")
    for sample in benchmark.samples:  # annotator 2 swaps the objects; annotator 3 finds nothing
        folder = tmp_path / "masks" / sample.result_dir
        for name in sample.frames:
            who = benchmark.annotator(sample)
            if who == 2:
                cv2.imwrite(
                    str(folder / f"{name}.png"), (labels == 3 - int(sample.object_ids[0])).astype(np.uint8) * 255
                )
            elif who == 3:
                cv2.imwrite(str(folder / f"{name}.png"), np.zeros_like(labels))
            else:
                mask = cv2.imread(str(folder / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
                mask[:, 29] = 255  # void: no fault
                cv2.imwrite(str(folder / f"{name}.png"), mask)
    scores = score_benchmark("refdavis17", root, None, tmp_path / "masks", processes=1)
    assert [score.annotator for score in scores] == [0, 1, 2, 3] * 2
    assert [score.J for score in scores[:4]] == [1, 1, 1, 0]  # by ground-truth object
    assert summarize(find_benchmark("refdavis17"), scores)["J&F"].value == pytest.approx(75)


def test_davis_gives_a_contested_pixel_to_the_first_object(davis, tmp_path):
    root, labels = davis
    benchmark = open_benchmark("refdavis17", root)
    for sample in benchmark.samples:
        folder = tmp_path / "masks" / sample.result_dir
        folder.mkdir(parents=True)
        mask = (labels == 1) | (labels == 2) if sample.object_ids[0] == "1" else labels == 2
        for name in sample.frames:
            cv2.imwrite(str(folder / f"{name}.png"), mask.astype(np.uint8) * 255)
    scores = score_benchmark("refdavis17", root, None, tmp_path / "masks", processes=1)
    areas = (labels == 1).sum(), (labels == 2).sum()
    # The first object holds both; nothing is left for the second. The best matching is with the larger ground-truth
    # object.
    assert sorted(score.J for score in scores if score.annotator == 0) == pytest.approx([0, max(areas) / sum(areas)])


def test_archives_of_the_servers(davis, tmp_path, capsys):
    root, _ = davis
    shutil.copytree(root, tmp_path / "ytvos")
    predictions = tmp_path / "run" / "Annotations" / "dog"
    for exp in range(8):
        (predictions / str(exp)).mkdir(parents=True)
        for name in ("00000", "00001"):
            cv2.imwrite(str(predictions / str(exp) / f"{name}.png"), np.zeros((20, 30), np.uint8))
    words = [
        str(tmp_path / "run"),
        str(tmp_path / "ytvos"),
        "benchmark=refytvos",
        f"submission_archive={tmp_path / 'out.zip'}",
    ]
    assert metrics.main(words) == 0
    names = zipfile.ZipFile(tmp_path / "out.zip").namelist()
    assert len(names) == 16 and "Annotations/dog/7/00001.png" in names
    assert metrics.main([*words, "limit=3"]) == 2
    assert "submission_archive= takes no limit" in capsys.readouterr().err
    assert metrics.main([words[0], words[1], words[3]]) == 2  # its files are those of Ref-DAVIS17
    assert "refdavis17 has no server; archives are made for mevis, refytvos, mevis2" in capsys.readouterr().err
    (predictions / "3" / "00001.png").unlink()
    assert metrics.main(words) == 2
    assert "1 of 16 predictions are missing, first" in capsys.readouterr().err
    assert metrics.main(words[:-1]) == 2
    assert "no public ground truth" in capsys.readouterr().err
