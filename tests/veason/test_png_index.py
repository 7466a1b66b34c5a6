"""PNG annotations are read once, by the first process that trains on them, and again only where they change."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image
from small_benchmarks import MASKS, OTHER, numbered, write_json, write_pngs
from small_revos import write_frames

from veason import masks
from veason.data import find_benchmark, png_index
from veason.data.layouts import PngBenchmark
from veason.data.training import KeyframeTrainingData
from veason.errors import DataError


@pytest.fixture
def reads(monkeypatch):
    """The names of the PNGs read so far."""
    found, read = [], masks.read_mask
    monkeypatch.setattr(
        masks, "read_mask", lambda path, *rest: found.append(os.path.basename(path)) or read(path, *rest)
    )
    return found


def train(root, name="refytvos", **options):
    return KeyframeTrainingData(root, keyframe_resize=56, benchmark=name, **options)


def ground_truth(data):
    return [data.example(index, 3).ground_truth for index in range(len(data))]


def test_every_png_is_read_once(refytvos, reads):
    data = train(refytvos)
    assert sorted(reads) == [f"{t:05d}.png" for t in range(4)]  # two expressions, two objects, four frames
    reads.clear()
    for opened in (data, train(refytvos)):
        opened.messages_and_sizes(0, 0)
        ground_truth(opened)
    assert reads == []


@pytest.mark.parametrize(("name", "split"), [("refytvos", "train"), ("reasonvos", "test"), ("refdavis17", "valid")])
def test_the_index_gives_what_the_pngs_hold(request, name, split):
    root, cls = request.getfixturevalue(name), find_benchmark(name)
    direct, indexed = cls(root, split), cls(root, split)
    indexed.build_index()
    assert indexed.index is not None and direct.index is None
    for sample in direct.samples:
        assert indexed.read_masks(sample, [3, 0]) == direct.read_masks(sample, [3, 0])
        assert np.array_equal(indexed.masks(sample), direct.masks(sample))
        assert np.array_equal(indexed.areas(sample), direct.areas(sample))
    assert direct.areas(direct.samples[0]).tolist() == MASKS.sum((1, 2)).tolist()


def test_only_folders_that_changed_are_read_again(refytvos, reads):
    path = refytvos / "meta_expressions" / "train" / "meta_expressions.json"
    videos = {
        video: {
            "frames": write_frames(refytvos / "train" / "JPEGImages" / video, 4) if video != "v" else ["00000"],
            "expressions": {"0": {"exp": "one", "obj_id": "1"}},
        }
        for video in ("u", "w")
    }
    write_json(path, {"videos": videos})
    for video in videos:
        write_pngs(refytvos / "train" / "Annotations" / video, numbered())
    train(refytvos)
    reads.clear()
    Image.fromarray(np.zeros_like(numbered()[0])).save(refytvos / "train" / "Annotations" / "w" / "00001.png")
    data = train(refytvos)
    assert len(reads) == 4
    areas = [data.benchmark.areas(sample).tolist() for sample in data.benchmark.samples]
    whole = MASKS.sum((1, 2)).tolist()
    assert areas == [whole, [whole[0], 0.0, *whole[2:]]]


def test_objects_that_are_asked_for_later_are_added(refytvos, reads):
    path = refytvos / "meta_expressions" / "train" / "meta_expressions.json"
    frames = [f"{t:05d}" for t in range(4)]

    def ask(*objects):
        expressions = {str(n): {"exp": "x", "obj_id": each} for n, each in enumerate(objects)}
        write_json(path, {"videos": {"v": {"frames": frames, "expressions": expressions}}})
        reads.clear()
        return train(refytvos)

    ask("1")
    second = ask("2")
    assert second.benchmark.areas(second.benchmark.samples[0]).tolist() == OTHER.sum((1, 2)).tolist()
    assert len(reads) == 4
    ask("1", "2")
    assert reads == []  # the first object was kept


def test_several_processes_read_many_folders(refytvos, monkeypatch):
    expected = [t.masks.tolist() for t in ground_truth(train(refytvos))]
    os.unlink(refytvos / "train" / "Annotations.index")
    monkeypatch.setattr(png_index, "SMALL", 0)
    monkeypatch.setattr(png_index.os, "cpu_count", lambda: 2)
    assert [t.masks.tolist() for t in ground_truth(train(refytvos))] == expected


def test_a_damaged_png_is_named_when_its_expression_is_used(refytvos):
    (refytvos / "train" / "Annotations" / "v" / "00002.png").write_bytes(b"no picture")
    data = train(refytvos)
    with pytest.raises(DataError, match=r"v/0: mask cannot be read: .*00002\.png"):
        data.messages_and_sizes(0, 0)


def test_a_moved_folder_keeps_its_index(refytvos, reads, tmp_path):
    train(refytvos)
    reads.clear()
    shutil.move(refytvos, tmp_path / "moved")
    train(tmp_path / "moved")
    assert reads == []


class Inverted(PngBenchmark):
    """Reads the same pictures in its own way."""

    name = "inverted"
    splits = {"train": "meta_expressions/train/meta_expressions.json"}  # noqa: RUF012

    @property
    def folder(self):
        return self.root / "train"

    def parse_targets(self, video, meta, expression):
        return 0, (expression["obj_id"],)

    def object_mask(self, values, object_id):
        return values == 0


def test_another_reading_of_the_pictures_is_not_served_from_the_index(refytvos):
    train(refytvos)
    data = KeyframeTrainingData(refytvos, keyframe_resize=56, benchmark=Inverted)
    nothing = (numbered() == 0).sum((1, 2)).tolist()
    assert data.benchmark.areas(data.benchmark.samples[0]).tolist() == nothing


@pytest.mark.parametrize("left", [b"", b"SQLite format 3\x00 and then nothing", b"x" * 5000])
def test_what_is_no_whole_index_is_never_read(refytvos, left):
    (refytvos / "train" / "Annotations.index").write_bytes(left)
    assert ground_truth(train(refytvos))[0].masks.any()


def test_a_folder_that_cannot_be_written_is_one_line(refytvos, monkeypatch):
    monkeypatch.setenv("VEASON_INDEX_DIR", str(refytvos / "meta_expressions" / "train" / "meta_expressions.json"))
    with pytest.raises(DataError, match=r"cannot write the mask index .*VEASON_INDEX_DIR") as caught:
        train(refytvos)
    assert "\n" not in str(caught.value)
