import errno
import json
import multiprocessing
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small_revos import FRAMES, HEIGHT, WIDTH, rectangle, rle_json, track_masks

from veason import masks
from veason.data import mask_index
from veason.data.mask_index import MaskIndex, TrackSummary
from veason.data.track_store import index_path
from veason.errors import DataError


@pytest.fixture
def source(revos):
    return revos / "mask_dict.json"


def open_quietly(path):
    return MaskIndex.open(path, progress=False)


def test_the_index_gives_back_what_the_file_holds(source):
    index = open_quietly(source)
    content = json.loads(source.read_text())
    assert list(index) == list(content) and len(index) == 3
    for anno_id, track in content.items():
        assert index[anno_id] == [masks.as_rle(rle) for rle in track]
        assert index[int(anno_id)] == index[anno_id]
    assert "0" in index and "99" not in index
    assert index.summaries["0"] == TrackSummary(FRAMES, FRAMES - 2, (HEIGHT, WIDTH))
    assert np.array_equal(masks.decode(index["0"][5]), track_masks()["0"][5])


def test_an_unknown_id_is_named(source):
    with pytest.raises(DataError, match=r"mask_dict\.json has no masks for id '99'"):
        open_quietly(source)["99"]


def test_foreground_files_are_read_too(revos):
    index = open_quietly(revos / "mask_dict_foreground.json")
    assert list(index) == ["a", "b"] and len(index["a"]) == FRAMES


def test_it_is_built_once_and_again_when_the_source_changes(source, monkeypatch):
    builds = []
    build = mask_index._build
    monkeypatch.setattr(mask_index, "_build", lambda *arguments: builds.append(1) or build(*arguments))
    open_quietly(source)
    open_quietly(source)
    assert len(builds) == 1
    content = json.loads(source.read_text())
    content["7"] = content["1"]
    source.write_text(json.dumps(content))
    assert "7" in open_quietly(source)
    assert len(builds) == 2
    os.utime(source, ns=(1, 1))  # the same size at another time
    open_quietly(source)
    assert len(builds) == 3


def test_it_pickles_and_reads_after_a_fork(source):
    index = open_quietly(source)
    expected = index["1"]
    assert pickle.loads(pickle.dumps(index))["1"] == expected
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(index.__getitem__, ["1"] * 4) == [expected] * 4


def open_and_count(path):
    return len(open_quietly(path))


def test_threads_read_what_they_asked_for(source):
    index, content = open_quietly(source), json.loads(source.read_text())
    expected = {anno_id: [masks.as_rle(rle) for rle in track] for anno_id, track in content.items()}
    with ThreadPoolExecutor(4) as threads:
        asked = [anno_id for _ in range(300) for anno_id in content]
        assert all(found == expected[anno_id] for anno_id, found in zip(asked, threads.map(index.__getitem__, asked)))


def test_workers_that_start_at_once_build_once(source):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(open_and_count, [source] * 8) == [3] * 8
    assert not list(source.parent.glob("*.part"))


@pytest.mark.parametrize("left", [b"", b"SQLite format 3\x00 and then nothing", b"x" * 5000])
def test_what_is_no_whole_index_is_never_read(source, left):
    index_path(source).write_bytes(left)
    assert len(open_quietly(source)) == 3


KILLED = """
import os, signal, sys
from veason.data import mask_index

count, make_row = 0, mask_index._row

def row(*arguments):
    global count
    count += 1
    if count == 600:
        os.kill(os.getpid(), signal.SIGKILL)
    return make_row(*arguments)

mask_index._row = row
mask_index.MaskIndex.open(sys.argv[1], progress=False)
"""


def test_a_build_killed_half_way_leaves_nothing_that_is_read(tmp_path):
    big = tmp_path / "big.json"
    track = json.dumps([rle_json(np.eye(48, dtype=np.uint8))] * 50)
    with open(big, "w") as file:
        file.write("{" + ", ".join(f'"{number}": {track}' for number in range(1200)) + "}")
    process = subprocess.run([sys.executable, "-c", KILLED, str(big)])
    partial = big.with_name("big.json.index.part")
    assert process.returncode == -signal.SIGKILL
    assert partial.stat().st_size > 100_000 and not index_path(big).exists()
    assert len(open_quietly(big)) == 1200
    assert not partial.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not a JSON object"),
        ("[1, 2]", "not a JSON object"),
        ('{"0": [null, null]', "cut short"),
        ('{"0": [null, nul', "cut short"),
        ('{"0": [null] "1": [null]}', "not JSON"),
        ('{"0": [null, oops, null]}', "not JSON"),
        ('{"0": [null], "0": [null]}', "twice"),
        ("{3: [null]}", "not JSON"),
    ],
)
def test_a_broken_source_is_named_and_leaves_no_index(tmp_path, content, says):
    source = tmp_path / "mask_dict.json"
    source.write_text(content)
    with pytest.raises(DataError, match=says) as caught:
        open_quietly(source)
    assert "mask_dict.json" in str(caught.value) and "\n" not in str(caught.value)
    assert not index_path(source).exists() and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("track", "says"),
    [("3", "no list of masks"), ('[null, {"size": [3, 3]}]', "frame 1: not a run-length mask")],
)
def test_an_object_that_cannot_be_read_is_damaged_and_the_others_are_not(tmp_path, track, says):
    source = tmp_path / "mask_dict.json"
    source.write_text(f'{{"0": [null], "1": {track}, "2": [null]}}')
    summaries = open_quietly(source).summaries
    assert says in summaries["1"].damage
    assert summaries["0"].damage is None is summaries["2"].damage


@pytest.mark.parametrize(
    "statement", ["UPDATE tracks SET packed = substr(packed, 3)", "UPDATE summaries SET frames = 1"]
)
def test_an_index_that_was_changed_is_refused(source, statement):
    open_quietly(source)
    with sqlite3.connect(index_path(source)) as connection:
        connection.execute(statement)
    connection.close()
    index = open_quietly(source)
    with pytest.raises(DataError, match=r"damaged.*remove it to have it built again"):
        for anno_id in index:
            index[anno_id]


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(DataError, match=r"mask file is missing: .*mask_dict\.json"):
        open_quietly(tmp_path / "mask_dict.json")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (sqlite3.OperationalError("database or disk is full"), "disk is full"),
    ],
)
def test_a_folder_that_cannot_be_written_is_one_line(source, monkeypatch, error, says):
    def fail(*_):
        raise error

    monkeypatch.setattr(mask_index, "_row", fail)
    with pytest.raises(DataError, match=says) as caught:
        open_quietly(source)
    assert "VEASON_INDEX_DIR" in str(caught.value) and "\n" not in str(caught.value)
    assert not index_path(source).exists() and not list(source.parent.glob("*.part"))


def test_a_full_disk_is_one_line(source, monkeypatch):
    limited = sqlite3.connect

    def tiny(*arguments, **options):
        connection = limited(*arguments, **options)
        connection.execute("PRAGMA max_page_count=2")
        return connection

    monkeypatch.setattr(mask_index.sqlite3, "connect", tiny)
    with pytest.raises(DataError, match="full"):
        open_quietly(source)
    assert not index_path(source).exists()


def test_the_index_may_lie_elsewhere(source, tmp_path, monkeypatch):
    monkeypatch.setenv("VEASON_INDEX_DIR", str(tmp_path / "cache"))
    index = open_quietly(source)
    assert index.path.parent == tmp_path / "cache" and len(index) == 3
    assert not source.with_name("mask_dict.json.index").exists()
    assert index_path(source) != index_path(tmp_path / "other" / "mask_dict.json")


def test_mixed_sizes_empty_tracks_and_damage_show_in_the_summary(tmp_path):
    source = tmp_path / "mask_dict.json"
    small, large = rle_json(np.ones((2, 2), np.uint8)), rle_json(np.zeros((4, 4), np.uint8))
    damaged = {"size": [2, 2], "counts": "1"}
    source.write_text(
        json.dumps({"mixed": [small, large, None], "null": [None, None], "none": [], "damaged": [None, small, damaged]})
    )
    index = open_quietly(source)
    assert index.summaries == {
        "mixed": TrackSummary(3, 1, (0, 0)),
        "null": TrackSummary(2, 0, None),
        "none": TrackSummary(0, 0, None),
        "damaged": TrackSummary(
            3, 1, (2, 2), "frame 2: run-length mask of size [2, 2] cannot be decoded (runs of 1 pixels for 4)"
        ),
    }
    assert index["null"] == [None, None] and index["none"] == []


def test_an_index_that_was_cut_short_is_named(tmp_path):
    source = tmp_path / "mask_dict.json"
    rng = np.random.default_rng(0)
    source.write_text(json.dumps({str(n): [rle_json(rng.integers(0, 2, (48, 48), np.uint8))] * 20 for n in range(30)}))
    index = open_quietly(source)
    whole = index.path.read_bytes()
    index.path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"mask_dict\.json\.index cannot be read .*remove it") as caught:
        for name in map(str, range(30)):
            index[name]
    assert "\n" not in str(caught.value)


def test_a_pickle_of_plain_data_is_indexed(tmp_path):
    tracks = {0: [rle_json(rectangle(0, 0, 3, 3)), None], "1": [None, None]}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        source = tmp_path / f"{protocol}" / "mask_dict.pkl"
        source.parent.mkdir()
        with_bytes = {k: [m and {**m, "counts": m["counts"].encode()} for m in track] for k, track in tracks.items()}
        source.write_bytes(pickle.dumps(OrderedDict(with_bytes), protocol))
        index = MaskIndex.open(source)
        assert list(index) == ["0", "1"] and masks.area(index["0"][0]) == 16 and index["0"][1] is None


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (pickle.dumps({"0": Harmful()}), "it holds posix.mkdir, which is no plain data"),
        (pickle.dumps({"0": np.zeros(3)}), r"it holds numpy.*, which is no plain data"),
        (pickle.dumps([1, 2]), "holds a list, not masks by id"),
        (pickle.dumps({"0": [None]})[:-4], "mask_dict.pkl is not read: "),
        (b"", "mask_dict.pkl is not read: Ran out of input"),
    ],
)
def test_a_pickle_of_anything_else_is_refused_and_not_run(tmp_path, monkeypatch, content, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mask_dict.pkl").write_bytes(content)
    with pytest.raises(DataError, match=says):
        MaskIndex.open(tmp_path / "mask_dict.pkl")
    assert not (tmp_path / "harmed").exists()


def test_an_id_without_a_list_of_masks_is_damaged(tmp_path):
    (tmp_path / "mask_dict.pkl").write_bytes(pickle.dumps({"0": 3}))
    assert MaskIndex.open(tmp_path / "mask_dict.pkl").summaries["0"].damage == "it holds no list of masks"
