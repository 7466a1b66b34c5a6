"""Any video: a file and a folder, several expressions, what is written; and what is said when something is missing."""

import json
import resource
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from tests.veason.scripted_parts import BoxTracker, ScriptedPolicy
from veason import predict
from veason.answers import format_answer
from veason.errors import DataError
from veason.pipeline import Segmenter
from veason.toy import tiny_tracker
from veason.tracking.sam2.tracker import Sam2Tracker
from veason.video import decode_video, open_folder

TOTAL, HEIGHT, WIDTH, FPS = 24, 57, 91, 8  # odd sides: the overlay is cut to even ones


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three seconds that grow brighter."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 90, 56, "yuv420p"
        for number in range(TOTAL):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.full((56, 90, 3), 10 * number, np.uint8), format="rgb24"))
            )
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("fps", "kept"), [(None, range(24)), (8, range(24)), (4, range(0, 24, 2)), (1, range(0, 24, 8)), (100, range(24))]
)
def test_frames_a_second(clip, tmp_path, fps, kept):
    frames, pace = decode_video(clip, tmp_path / "frames", fps)
    assert np.stack(frames).shape == (len(kept), 56, 90, 3) and pace == min(fps or FPS, FPS)
    np.testing.assert_array_equal(frames[-1], frames[len(frames) - 1])
    np.testing.assert_allclose([frame.mean() for frame in frames], [10 * number for number in kept], atol=4)


def test_a_gap_is_no_reason_for_a_burst(tmp_path):
    with av.open(str(tmp_path / "gap.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in [*range(8), *range(80, 96)]:  # a second, nothing for nine, two seconds
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 2 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    frames, _ = decode_video(tmp_path / "gap.mp4", tmp_path / "frames", fps=1)
    np.testing.assert_allclose([frame.mean() for frame in frames], [0, 160, 176], atol=4)


def test_frames_without_times_are_named(clip, tmp_path, monkeypatch):
    class Untimed:
        def __init__(self, container):
            self.container, self.streams = container, container.streams

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.container.close()

        def decode(self, **_):
            for frame in self.container.decode(video=0):
                frame.pts = None
                yield frame

    opened = av.open
    monkeypatch.setattr(av, "open", lambda path: Untimed(opened(path)))
    with pytest.raises(DataError, match=r"clip\.mp4: a frame has no time"):
        decode_video(clip, tmp_path / "frames", fps=1)
    assert len(decode_video(clip, tmp_path / "frames")[0]) == TOTAL


def test_everything_is_written(tmp_path):
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(TOTAL):
        cv2.imwrite(str(tmp_path / "in" / f"frame{number}.jpg"), rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
    texts = [format_answer("the \ud800 one", 5, [[56, 56, 280, 280]]), "no idea"]
    segmenter = Segmenter(ScriptedPolicy(*texts), BoxTracker())
    predict.predict(segmenter, open_folder(tmp_path / "in"), ["the duck", "the pond"], tmp_path / "out", 10)
    first, second = (json.loads((tmp_path / "out" / name / "result.json").read_text()) for name in ("00", "01"))
    assert (first["expression"], first["keyframe"], first["thinking"], first["failure"]) == (
        "the duck",
        5,
        "the \ud800 one",
        None,
    )
    assert (second["expression"], second["failure"]) == ("the pond", "no_answer")
    (x1, y1, x2, y2) = first["boxes"][0]
    assert first["frames"] == [f"frame{number}" for number in range(TOTAL)]  # 2 before 10
    for name, rle in zip(first["frames"], first["masks"], strict=True):
        png = cv2.imread(str(tmp_path / "out" / "00" / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(coco.decode(rle) * 255, png)
        assert (png[y1:y2, x1:x2] == 255).all() and (png > 0).sum() == (y2 - y1) * (x2 - x1)
    assert len(first["masks"]) == len(second["masks"]) == TOTAL and not any(coco.area(rle) for rle in second["masks"])
    assert (tmp_path / "out" / "00" / "keyframe.jpg").is_file() and not (
        tmp_path / "out" / "01" / "keyframe.jpg"
    ).exists()
    with av.open(str(tmp_path / "out" / "00" / "overlay.mp4")) as overlay:
        shown = [frame.to_ndarray(format="rgb24") for frame in overlay.decode(video=0)]
    assert len(shown) == TOTAL and shown[0].shape == (56, 90, 3)


def test_memory_does_not_grow_with_the_video(tmp_path):
    """160 frames that would take 49 MB, and 16 MB of masks, through a real tracker to files."""
    resident = []

    class Frames(Sequence):
        def __len__(self):
            return 160

        def __getitem__(self, index):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages * resource.getpagesize() / 1e6)
            return np.full((320, 320, 3), index % 256, np.uint8)

    tracker = Sam2Tracker(tiny_tracker.build_tracker_model(tiny_tracker.TrackerSize(image_size=32)), max_frames=16)
    segmenter = Segmenter(ScriptedPolicy(), tracker)
    prediction = segmenter.parse(format_answer("", 100, [[100, 100, 400, 400]]), (160, 320, 320))
    rles = predict.write_masks(tmp_path, segmenter.track(Frames(), prediction), [str(n) for n in range(160)])
    assert len(rles) == len(list(tmp_path.iterdir())) == 160 <= len(resident) < 170
    assert max(resident[60:]) - max(resident[:60]) < 12


def write_model_config(folder):
    vision = {"patch_size": 14, "spatial_merge_size": 2}
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl", "vision_config": vision}))


def test_what_is_missing_is_named(clip, tmp_path, capsys, monkeypatch):
    words = [
        "--video",
        str(clip),
        "--expression",
        "x",
        "--model",
        str(tmp_path),
        "--sam2",
        "s.pt",
        "--out",
        str(tmp_path / "out"),
    ]
    assert predict.main(words) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "no checkpoint at" in line and "Qwen/Qwen2.5-VL-3B-Instruct" in line
    write_model_config(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert predict.main(words) == 2
    assert "sam2_checkpoint=s.pt is no file: download SAM 2 weights" in capsys.readouterr().err
    (tmp_path / "s.pt").touch()
    words[words.index("s.pt")] = str(tmp_path / "s.pt")
    monkeypatch.setattr(predict, "build_segmenter", lambda _: pytest.fail("loaded"))
    assert predict.main([*words, "--size", "500"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "frames of 500 x 500 pixels" in line
    assert predict.main([*words, "--sampled_frames", "64"]) == 2  # the clip has 24
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "24 frames of 560 x 560 pixels are 9600 tokens" in line
    for flag, fit in (("--model", "Qwen/Qwen2.5-VL-3B-Instruct"), ("--sam2", "facebook/sam2.1-hiera-large")):
        place = words.index(flag)
        assert predict.main(words[:place] + words[place + 2 :]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and f"{flag} is not given: " in line and fit in line
    with pytest.raises(DataError, match="video is missing"):
        decode_video(tmp_path / "none.mp4", tmp_path / "frames")
    with pytest.raises(DataError, match="cannot be read as a video"):
        decode_video(__file__, tmp_path / "frames")
    with pytest.raises(DataError, match="no pictures"):
        open_folder(tmp_path)


def test_a_video_is_seen_as_a_player_shows_it(tmp_path):
    """A camera held upright writes lying frames and a matrix that turns them clockwise."""
    path = tmp_path / "upright.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        lying = np.zeros((64, 96, 3), np.uint8)
        lying[:, :48] = 255  # the left half is bright
        container.mux(stream.encode(av.VideoFrame.from_ndarray(lying, format="rgb24")))
        container.mux(stream.encode(None))
    content, one = path.read_bytes(), 1 << 16
    plain, turned = (
        struct.pack(">9i", *matrix, 0, 0, 0, 1 << 30) for matrix in ((one, 0, 0, 0, one), (0, one, 0, -one, 0))
    )
    track = content.index(b"tkhd")
    assert content[track:].count(plain) == 1
    path.write_bytes(content[:track] + content[track:].replace(plain, turned))
    (frame,) = decode_video(path, tmp_path / "frames")[0]
    assert frame.shape == (96, 64, 3) and frame[:40].min() > 200 and frame[56:].max() < 50


def test_nothing_of_an_earlier_call_is_left(tmp_path):
    for name, count in (("in", 4), ("shorter", 3)):
        (tmp_path / name).mkdir()
        for number in range(count):
            cv2.imwrite(str(tmp_path / name / f"{number:03d}.jpg"), np.zeros((56, 90, 3), np.uint8))
    good = format_answer("here", 1, [[56, 56, 280, 280]])
    frames, shorter, out = open_folder(tmp_path / "in"), open_folder(tmp_path / "shorter"), tmp_path / "out"
    predict.predict(Segmenter(ScriptedPolicy(good, good), BoxTracker()), frames, ["one", "two"], out, 10)
    predict.predict(Segmenter(ScriptedPolicy("no idea"), BoxTracker()), shorter, ["one"], out, 10)
    assert (
        not (out / "01").exists()
        and not (out / "00" / "keyframe.jpg").exists()
        and len(list((out / "00" / "masks").iterdir())) == 3
    )
