"""The image features of one clip, a chunk of frames at a time; the next chunk's frames are read meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from veason.tracking.sam2.network import ImageFeatures, Sam2Network, concat_features, to_device
from veason.tracking.sam2.preprocessing import preprocess_frames

ENCODER_BATCH = 8  # frames of 1024 pixels encoded at once: what fills a GPU; more only takes memory


def encode_frames(network: Sam2Network, frames: Sequence[np.ndarray]) -> ImageFeatures:
    """The features of uint8 [H, W, 3] RGB frames, a row each."""
    size = ENCODER_BATCH * network.batch_scale
    chunks = (frames[first : first + size] for first in range(0, len(frames), size))
    pixels = (preprocess_frames(each, network.size, network.device, network.pixels) for each in chunks)
    encoded = (network.encode_images(each) for each in pixels)
    return concat_features(encoded, len(frames))


class EncodedClip(Sequence[np.ndarray]):
    """A clip's frames with their features."""

    def __init__(self, frames: Sequence[np.ndarray], features: ImageFeatures) -> None:
        self.frames, self.features = frames, features

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        return self.frames[index]


class FeatureWindow:
    """The features of up to `capacity` frames; a frame that it does not hold makes it load the next chunk.

    Args:
        read_frame: frame index -> uint8 [H, W, 3] RGB; called in a thread for the chunks after the first.
        order: all frames, in the order in which they will be asked for.
    """

    def __init__(
        self, network: Sam2Network, read_frame: Callable[[int], np.ndarray], order: Sequence[int], capacity: int
    ):
        self.network, self.read_frame, self.order = network, read_frame, list(order)
        self.capacity = max(1, min(capacity, len(self.order)))
        self.position = {frame: number for number, frame in enumerate(self.order)}
        self.rows: dict[int, int] = {}
        self.features: ImageFeatures
        self.reader = ThreadPoolExecutor(1, thread_name_prefix="frames")  # its thread starts with the first prefetch
        self.prefetched: tuple[int, Future] | None = None  # where the chunk starts in `order`, and its frames

    def __call__(self, frames: Sequence[int]) -> ImageFeatures:
        """The features of `frames`, one row each; they lie in one chunk, which any clip shorter than `capacity` is."""
        if any(frame not in self.rows for frame in frames):
            self._load(min(self.position[frame] for frame in frames) // self.capacity * self.capacity)
        return self.features[to_device([self.rows[frame] for frame in frames], self.network.device)]

    def _load(self, start: int) -> None:
        chunk = self.order[start : start + self.capacity]
        if self.prefetched is not None and self.prefetched[0] == start:
            frames = self.prefetched[1].result()
        else:
            frames = self._read(chunk)
        following = start + self.capacity
        if following < len(self.order):
            wanted = self.order[following : following + self.capacity]
            self.prefetched = following, self.reader.submit(self._read, wanted)
        if self.rows:
            del self.features  # its memory, before the next chunk's
        self.features = encode_frames(self.network, frames)
        self.rows = {frame: row for row, frame in enumerate(chunk)}

    def _read(self, chunk: Sequence[int]) -> list[np.ndarray]:
        return [self.read_frame(frame) for frame in chunk]
