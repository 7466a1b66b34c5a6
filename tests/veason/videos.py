"""Small video files for tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

FPS = 8


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    times: Sequence[int] | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    fps: int = FPS,
    **options: str,
) -> Path:
    """A video file of uint8 [H, W, 3] frames; `times` are in frames where there are gaps between them."""
    with av.open(str(path), "w") as container:
        stream = None
        for number, picture in enumerate(frames):
            if stream is None:
                stream = container.add_stream(codec, rate=fps, options=options)
                stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], pixels
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format=pixels)
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def brighter(total: int, height: int = 56, width: int = 90, step: int = 10) -> Iterable[np.ndarray]:
    """Frames that grow brighter by `step` each."""
    return (np.full((height, width, 3), step * number, np.uint8) for number in range(total))


def moving(total: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """A bright bar over noise, so that every frame differs from its neighbours."""
    rng = np.random.default_rng(0)
    frames = []
    for number in range(total):
        frame = rng.integers(0, 60, (height, width, 3), np.uint8)
        frame[:, 2 * number : 2 * number + 10] = 220
        frames.append(frame)
    return frames


def read_all(path: Path) -> list[np.ndarray]:
    """Every frame as FFmpeg decodes them in order."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def write_folder(folder: Path, count: int, size: tuple[int, int] = (56, 90), name: str = "{:03d}.jpg") -> Path:
    """A folder of pictures of `size` (height, width)."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(folder / name.format(number))
    return folder
