"""Memory of a long video: from a video file to masks, records and overlays, with the resident memory as it goes.

    python -m benchmarks.long_video             # 2,000 frames of 240 x 320 and two expressions, on the CPU
    python -m benchmarks.long_video --sam2_config configs/sam2.1/sam2.1_hiera_l.yaml --height 1080 --width 1920  # a GPU

`veason.predict` with every part but the policy, whose two answers are given: boxes on an early and on a late frame, so
that one expression is tracked mostly forward and the other mostly backward. Weights are random; neither time nor memory
depends on them.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import psutil
import torch

from veason.answers import format_answer
from veason.command_line import HelpFormatter
from veason.inference.model_options import MAX_FRAMES
from veason.inference.segmenter import Segmenter
from veason.inference.vllm_policy import ChatPrompt
from veason.predict.clips import ClipRequest
from veason.predict.command import predict_clip
from veason.toy import tiny_tracker
from veason.tracking.sam2.tracker import Sam2Tracker
from veason.video.sources import open_video


class ScriptedPolicy:
    """Answers with boxes on an early and on a late frame."""

    def __init__(self, frames: int) -> None:
        self.keyframes = (frames // 10, frames - frames // 10)

    def generate(self, prompts: Sequence[ChatPrompt]) -> list[str]:
        boxes = [[100, 100, 300, 300], [320, 80, 500, 400]]
        return [format_answer("It is there.", keyframe, boxes) for keyframe, _ in zip(self.keyframes, prompts)]


def write_video(path: Path, frames: int, height: int, width: int) -> None:
    """A texture that moves."""
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 255, (height, width + frames, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            picture = np.ascontiguousarray(scene[:, number : number + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def resident() -> float:
    """This process's memory, MB."""
    return psutil.Process().memory_info().rss / 1e6


class MemoryMonitor(threading.Thread):
    """Records the resident memory ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[float] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.1):
            self.samples.append(resident())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--frames", type=int, default=2000, help="frames of the video")
    parser.add_argument("--height", type=int, default=240, help="of a frame, in pixels")
    parser.add_argument("--width", type=int, default=320, help="of a frame, in pixels")
    parser.add_argument("--sam2_config", help="by default a toy tracker of 64 pixels")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        write_video(folder / "clip.mp4", options.frames, options.height, options.width)
        if options.sam2_config is None:
            tiny_tracker.write_tracker(folder, tiny_tracker.TrackerSize(image_size=64))
        tracker = Sam2Tracker.from_files(
            options.sam2_config or folder / "sam2_tiny.yaml", "random", device, max_frames=MAX_FRAMES
        )
        print(f"loaded: {resident():.0f} MB", flush=True)
        monitor, started = MemoryMonitor(), time.perf_counter()
        monitor.start()
        clip = ClipRequest(str(folder / "clip.mp4"), ("the first thing", "the second thing"))
        segmenter = Segmenter(ScriptedPolicy(options.frames), tracker)
        predict_clip(segmenter, open_video(clip.video), clip, folder / "out")
        seconds = time.perf_counter() - started
        monitor.stopped.set()
        masks = sum(1 for _ in (folder / "out").glob("*/masks/*.png"))
    tenths = [max(part) for part in np.array_split(monitor.samples, 10)]
    print(
        f"{masks} masks of {options.height} x {options.width} in {seconds:.0f} s on {device}, torch {torch.__version__}"
    )
    print("highest resident memory by tenth of the time, MB: " + " ".join(f"{part:.0f}" for part in tenths))
    pixels = options.height * options.width / 1e6
    print(f"the frames alone would take {3 * options.frames * pixels:.0f} MB, the masks {masks * pixels:.0f} MB")
    if device == "cuda":
        print(f"highest memory of the GPU: {torch.cuda.max_memory_allocated() / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
