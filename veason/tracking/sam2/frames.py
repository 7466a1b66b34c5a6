"""The frames of one clip on their way through the image encoder: in chunks, each read while the chunk before it is
used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from veason.tracking.sam2.network import Features, Network, join_features, to_device
from veason.tracking.sam2.pixels import prepare_frames

BATCH = 8  # frames of 1024 pixels encoded at once: what fills a GPU; more only takes memory


class FrameWindow:
    """The features of up to `capacity` frames; asked for one that it does not hold, it goes on with the next chunk.

    Args:
        read_frame: frame index -> uint8 [H, W, 3] RGB.
        order: all frames, in the order in which they will be wanted.
    """

    def __init__(self, network: Network, read_frame: Callable[[int], np.ndarray], order: Sequence[int], capacity: int):
        self.network, self.read_frame, self.order = network, read_frame, list(order)
        self.capacity = max(1, min(capacity, len(self.order)))
        self.place = {frame: number for number, frame in enumerate(self.order)}
        self.rows: dict[int, int] = {}
        self.features: Features
        self.reader = ThreadPoolExecutor(
            1, thread_name_prefix="frames"
        )  # starts its thread with the first chunk that is read ahead
        self.ahead: tuple[int, Future] | None = None  # the chunk being read: its start in `order`, and its frames

    def __call__(self, frames: Sequence[int]) -> Features:
        """The features of `frames`, one row each; they lie in one chunk, which any clip shorter than `capacity` is."""
        if any(frame not in self.rows for frame in frames):
            self._load(min(self.place[frame] for frame in frames) // self.capacity * self.capacity)
        return self.features[to_device([self.rows[frame] for frame in frames], self.network.device)]

    def _load(self, start: int) -> None:
        chunk = self.order[start : start + self.capacity]
        if self.ahead is not None and self.ahead[0] == start:
            pixels = self.ahead[1].result()
        else:
            pixels = self._read(chunk)
        following = start + self.capacity
        if following < len(self.order):
            self.ahead = following, self.reader.submit(self._read, self.order[following : following + self.capacity])
        if self.rows:
            del self.features  # its memory, before the next chunk's
        size = BATCH * self.network.room
        batches = (self._encode(pixels[first : first + size]) for first in range(0, len(pixels), size))
        self.features = join_features(batches, len(pixels))
        self.rows = {frame: row for row, frame in enumerate(chunk)}

    def _encode(self, frames: Sequence[np.ndarray]) -> Features:
        return self.network.see(prepare_frames(frames, self.network.size, self.network.device))

    def _read(self, chunk: Sequence[int]) -> list[np.ndarray]:
        return [self.read_frame(frame) for frame in chunk]
