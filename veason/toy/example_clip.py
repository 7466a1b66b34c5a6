"""Renders the toy clip of the repository: a video of the toy world as a file that any player shows.

    python -m veason.toy.example_clip --output examples/toy_clip.mp4

The same drawing every time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from veason.command_line import HelpFormatter, parse_arguments
from veason.toy.world import make_video

NAME, SEED, FRAMES = "example/clip_0010", 7, 24
FPS = 4  # shown so; to the policy a frame is a second, as in the toy world


def write_clip(path: str | Path, frames: np.ndarray, fps: int = FPS) -> None:
    """Write frames, uint8 [T, H, W, 3] RGB, as H.264 in MP4."""
    import av

    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "14", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--output", required=True, help="the clip, an MP4 file")
    write_clip(parse_arguments(parser).output, make_video(NAME, SEED, FRAMES).frames)


if __name__ == "__main__":
    main()
