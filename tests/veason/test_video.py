"""Videos as sequences of frames: every frame is the right one in any order, and memory is bounded."""

from __future__ import annotations

import resource
import struct
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.veason.videos import FPS, brighter, moving, read_all, write_folder, write_video
from veason.errors import DataError
from veason.video.sources import open_folder, open_video
from veason.video.video_file import VideoFile

TOTAL = 24


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three seconds that grow brighter."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", brighter(TOTAL))


@pytest.mark.parametrize(
    ("fps", "kept"), [(None, range(24)), (8, range(24)), (4, range(0, 24, 2)), (1, range(0, 24, 8)), (100, range(24))]
)
def test_frames_a_second(clip, fps, kept):
    frames = open_video(clip, fps)
    assert np.stack(frames).shape == (len(kept), 56, 90, 3) and frames.fps == min(fps or FPS, FPS)
    assert frames.shape == (56, 90, 3)
    np.testing.assert_array_equal(frames[-1], frames[len(frames) - 1])
    np.testing.assert_allclose([frame.mean() for frame in frames], [10 * number for number in kept], atol=4)


def test_a_gap_is_no_reason_for_a_burst(tmp_path):
    # a second, nothing for nine, two seconds
    times = [*range(8), *range(80, 96)]
    frames = (np.full((64, 64, 3), 2 * time, np.uint8) for time in times)
    path = write_video(tmp_path / "gap.mp4", frames, times)
    np.testing.assert_allclose([frame.mean() for frame in open_video(path, 1)], [0, 160, 176], atol=4)


CODECS = {
    "h264.mp4": {},
    "open_gop.mp4": {"x264-params": "open-gop=1:keyint=8:bframes=3:log-level=none"},
    "intra_refresh.mp4": {"x264-params": "intra-refresh=1:keyint=10:log-level=none"},
    "ten_bits.mkv": {"pixels": "yuv420p10le"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "motion_jpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "mpeg2.mpg": {"codec": "mpeg2video", "g": "9", "bf": "2", "fps": 25},  # has no times that can be sought
    "no_times.h264": {},
    "palette.gif": {"codec": "gif", "pixels": "rgb8"},
}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_every_order_gives_the_frames_of_the_file(tmp_path, name, cache_bytes):
    path = write_video(tmp_path / name, moving(40), **CODECS[name])
    expected = read_all(path)
    frames = VideoFile(path, cache_bytes=cache_bytes)
    assert len(frames) == len(expected) == 40
    forward = list(range(40))
    for order in (forward, forward[::-1], [5, 39, 0, 17, 16, 18, 3], np.random.default_rng(1).permutation(40)):
        for number in order:
            np.testing.assert_array_equal(frames[int(number)], expected[number])
    assert len(frames.cache) == (40 if cache_bytes else 2)
    frames.close()
    np.testing.assert_array_equal(frames[7], expected[7])


def test_reading_backward_decodes_each_group_of_pictures_a_few_times(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", moving(60), **{"x264-params": "keyint=20:scenecut=0:log-level=none"})
    frames = VideoFile(path, cache_bytes=12 * 96 * 64 * 3 // 2)
    decoded = []
    remember = frames._remember
    monkeypatch.setattr(frames, "_remember", lambda number, frame: (decoded.append(number), remember(number, frame)))
    for number in range(59, -1, -1):
        frames[number]
    assert len(decoded) <= 2 * 60 and max(decoded.count(number) for number in range(60)) <= 3


def test_threads_read_side_by_side(clip):
    frames, wrong = VideoFile(clip, cache_bytes=0), []

    def read(numbers):
        wrong.extend(number for number in numbers if abs(frames[number].mean() - 10 * number) > 4)

    threads = [threading.Thread(target=read, args=(range(start, 24, 3),)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_file_that_changes_is_noticed(tmp_path):
    path = write_video(tmp_path / "clip.mp4", moving(30))
    frames = VideoFile(path)
    write_video(path, brighter(30, 64, 96, step=5))
    with pytest.raises(DataError, match="has changed since it was opened"):
        for number in (29, 3, 29, 0):
            frames.close()
            frames[number]


def test_nothing_is_written_and_memory_is_bounded(tmp_path):
    """Ten seconds of 720p took 763 MB of temporary files; now none, and a bounded part of it in memory."""
    path = write_video(tmp_path / "clip.mp4", moving(250, 720, 1280), preset="ultrafast", fps=25)
    before = sorted(tmp_path.rglob("*"))

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

    start, most = resident(), 0.0
    frames = VideoFile(path, cache_bytes=32 << 20)
    for number in [*range(0, 250, 10), *range(249, 150, -1)]:
        assert frames[number].shape == (720, 1280, 3)
        most = max(most, resident() - start)
    assert most < 300 and sorted(tmp_path.rglob("*")) == before


def test_frames_without_times_are_named(clip, monkeypatch):
    class Untimed:
        def __init__(self, container):
            self.container, self.streams = container, container.streams

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.container.close()

        def decode(self, stream):
            for frame in self.container.decode(stream):
                frame.pts = None
                yield frame

    opened = av.open
    monkeypatch.setattr(av, "open", lambda path: Untimed(opened(path)))
    with pytest.raises(DataError, match=r"clip\.mp4: a frame has no time"):
        open_video(clip, fps=1)
    assert len(open_video(clip)) == TOTAL


def test_a_video_is_seen_as_a_player_shows_it(tmp_path):
    """A camera held upright writes lying frames and a matrix that turns them clockwise."""
    lying = np.zeros((64, 96, 3), np.uint8)
    lying[:, :48] = 255  # the left half is bright
    path = write_video(tmp_path / "upright.mp4", [lying])
    content, one = path.read_bytes(), 1 << 16
    plain, turned = (
        struct.pack(">9i", *matrix, 0, 0, 0, 1 << 30) for matrix in ((one, 0, 0, 0, one), (0, one, 0, -one, 0))
    )
    track = content.index(b"tkhd")
    assert content[track:].count(plain) == 1
    path.write_bytes(content[:track] + content[track:].replace(plain, turned))
    frames = open_video(path)
    (frame,) = frames
    assert frame.shape == frames.shape == (96, 64, 3) and frame[:40].min() > 200 and frame[56:].max() < 50


def test_what_is_no_video_is_named(tmp_path):
    with pytest.raises(DataError, match="video is missing"):
        open_video(tmp_path / "none.mp4")
    with pytest.raises(DataError, match="cannot be read as a video"):
        open_video(__file__)
    with pytest.raises(DataError, match="is empty"):
        open_video(" ")
    with av.open(str(tmp_path / "sound.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match="holds no video"):
        open_video(tmp_path / "sound.m4a")


@pytest.mark.parametrize("cut", ["end", "middle"])
def test_a_damaged_file_is_named(tmp_path, cut):
    path = write_video(tmp_path / "whole.mp4", moving(60))
    with av.open(str(path)) as source, av.open(str(tmp_path / "f.mp4"), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    content = bytearray((tmp_path / "f.mp4").read_bytes())
    half = len(content) // 2
    if cut == "end":
        del content[half:]
    else:
        content[half : half + 2000] = bytes(2000)
    (tmp_path / "f.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"f\.mp4 is (cut short or damaged|damaged): \d+ .*frames can be decoded"):
        open_video(tmp_path / "f.mp4")


def test_a_folder_is_read_in_natural_order_without_hidden_files(tmp_path):
    names = ["frame10.png", "frame9.png", "frame1.png", "FRAME2.PNG", "frame1b.jpg"]
    for number, name in enumerate(names):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / name)
    (tmp_path / "._frame1.png").write_bytes(b"\x00\x05\x16\x07 of macOS")
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "notes.txt").touch()
    found = [path.name for path in open_folder(tmp_path).paths]
    assert found == ["frame1.png", "frame1b.jpg", "FRAME2.PNG", "frame9.png", "frame10.png"]
    frames = open_video(tmp_path, fps=3)
    assert len(frames) == 5 and frames[0].shape == (6, 8, 3) and frames.fps == 3


def test_a_folder_is_checked_whole(tmp_path):
    folder = write_folder(tmp_path / "in", 4)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "._a.jpg").touch()
    with pytest.raises(DataError, match="no pictures"):
        open_video(tmp_path / "none")
    content = (folder / "002.jpg").read_bytes()
    (folder / "002.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"frame cannot be read: .*002\.jpg"):
        open_video(folder)
    Image.new("RGB", (91, 56)).save(folder / "002.jpg")
    with pytest.raises(DataError, match=r"of one size; 000\.jpg and .*002\.jpg have 90 x 56 and 91 x 56 pixels"):
        open_video(folder)
