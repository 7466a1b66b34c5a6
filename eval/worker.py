"""What each process of an evaluation does: one policy, one tracker, and the samples that it is handed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch

from eval.options import EvaluateConfig
from eval.run_folder import RunFolder
from veason.data import VideoSample, open_benchmark
from veason.errors import DataError
from veason.frames import evaluation_frames
from veason.pipeline import Frames, Reading, Segmenter
from veason.policy import Question, Sampling, VLLMPolicy
from veason.video import FrameFiles

READERS = 8  # threads that read the frames of the next questions
MASK_BYTES = (
    2 << 30
)  # masks of one video that are tracked at once, at a byte a pixel; with the last one's, twice as much is held
GIB = 1 << 30


class Tracked(NamedTuple):
    """A sample on its way to the disk: its masks as (index, bool [H, W]), each index once."""

    sample: VideoSample
    reading: Reading
    masks: Iterator[tuple[int, np.ndarray]]
    seconds: dict[str, float]


class EvaluationWorker:
    """Segments samples and writes their masks and records. A Ray actor in `eval.evaluate`, a plain object in a test.

    Args:
        config: of the run.
        rank: this worker's number, also its name in the run's folder.
        segmenter: built from `config` unless given.
    """

    def __init__(self, config: EvaluateConfig, rank: int, segmenter: Segmenter | None = None) -> None:
        self.rank = rank
        self.benchmark = open_benchmark(
            config.benchmark, config.data_path, config.split, check=False
        )  # the driver has checked it
        self.folder = RunFolder(config.output_path)
        self.segmenter = segmenter or build_segmenter(config)

    def run(self, indices: Sequence[int]) -> list[str]:
        """Segment the samples at these places in the benchmark; the policy is asked about all of them at once. Returns
        their ids.
        """
        samples = [self.benchmark.samples[index] for index in indices]
        # Samples of one video stand together. While the tracker has one, the next is read and the last one's masks are
        # written.
        videos = groupby(samples, key=lambda sample: (sample.frame_dir, sample.frames))
        groups = [part for _, group in videos for part in parts(list(group))]
        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(1) as writer:
            answers, share = self._ask(groups, readers)
            written: Future[None] | None = None
            ahead = self._read(groups[0], readers)
            for number, group in enumerate(groups):
                frames = [frame.result() for frame in ahead] if ahead else self._frames(group[0])
                ahead = self._read(groups[number + 1], readers) if number + 1 < len(groups) else None
                tracked = self._track(group, frames, answers, share)
                if written:
                    written.result()  # so no more than two videos' masks are held
                written = writer.submit(self._write, tracked)
                if self._is_long(group):
                    written.result()  # its masks come from the tracker as they are written
            if written:
                written.result()
        return [sample.sample_id for sample in samples]

    def _ask(
        self, groups: Sequence[Sequence[VideoSample]], readers: ThreadPoolExecutor
    ) -> tuple[dict[str, str], float]:
        """The policy's answers by sample_id, and the seconds of each one's share."""
        started = time.perf_counter()

        def questions(group: Sequence[VideoSample]) -> list[Question]:
            expressions, names = [sample.expression for sample in group], [sample.sample_id for sample in group]
            return self.segmenter.questions(self._frames(group[0]), expressions, names)

        asked = [question for several in readers.map(questions, groups) for question in several]
        answers = self.segmenter.policy.answers(asked)
        return dict(zip((question.name for question in asked), answers)), (time.perf_counter() - started) / len(asked)

    def _is_long(self, group: Sequence[VideoSample]) -> bool:
        """Whether a group's video is too long to hold."""
        return len(group[0].frames) > self.segmenter.tracker.max_frames

    def _read(self, group: Sequence[VideoSample], readers: ThreadPoolExecutor) -> list[Future[np.ndarray]] | None:
        """The frames of a group's video, on their way; None for a long one."""
        if self._is_long(group):
            return None
        files = self._frames(group[0])
        return [readers.submit(files.__getitem__, index) for index in range(len(files))]

    def _track(
        self, group: Sequence[VideoSample], frames: Frames, answers: dict[str, str], policy_seconds: float
    ) -> list[Tracked]:
        """Track the samples of one video. Raises DataError when its files have another size than its annotation says."""
        started = time.perf_counter()
        first, shape = group[0], (len(frames), group[0].height, group[0].width)
        if (found := frames[0].shape[:2]) != shape[1:]:  # boxes would be scaled to one size and tracked in another
            path = self.benchmark.frame_path(first, 0)
            raise DataError(
                f"{first.sample_id}: {path} is {found[0]}x{found[1]}, its annotation says {first.height}x{first.width}"
            )
        readings = [self.segmenter.read(answers[sample.sample_id], shape) for sample in group]
        masks = self.segmenter.track_all(frames, readings)
        seconds = {
            "policy": round(policy_seconds, 4),
            "tracker": round((time.perf_counter() - started) / len(group), 4),
        }
        return [Tracked(*parts, seconds) for parts in zip(group, readings, masks)]

    def _write(self, tracked: Sequence[Tracked]) -> None:
        """Masks, then records, of one video; through a long one the tracker works meanwhile."""
        for sample, reading, masks, seconds in tracked:
            started = time.perf_counter()
            self.folder.write_masks(sample.result_dir, sample.frames, masks, self.rank)
            took = {**seconds, "write": round(time.perf_counter() - started, 4)}
            self.folder.append(make_record(sample, reading, self.segmenter.sampled_frames, took), self.rank)

    def _frames(self, sample: VideoSample) -> FrameFiles:
        return FrameFiles([self.benchmark.frame_path(sample, index) for index in range(len(sample.frames))])


def parts(group: list[VideoSample]) -> Iterator[list[VideoSample]]:
    """The samples of one video, so many at a time that their masks fit into `MASK_BYTES`."""
    first = group[0]
    size = max(1, MASK_BYTES // (len(first.frames) * first.height * first.width))
    return (group[start : start + size] for start in range(0, len(group), size))


def build_segmenter(config: EvaluateConfig) -> Segmenter:
    """The policy and the tracker of a run, on this process's GPU or on the CPU."""
    from veason.tracking.sam2.tracker import VideoTracker

    sampling = Sampling(
        config.temperature,
        config.top_p,
        config.repetition_penalty,
        max_tokens=config.max_response_length,
        seed=config.seed,
    )
    fixed = (
        {}
        if config.kv_cache_gib is None
        else {"kv_cache_memory_bytes": int(config.kv_cache_gib * GIB), "skip_mm_profiling": True}
    )
    policy = VLLMPolicy(
        config.model_path,
        sampling,
        dtype=config.dtype,
        max_prompt_tokens=config.max_prompt_length,
        max_images=config.sampled_frames,
        memory=config.gpu_memory_utilization,
        enforce_eager=config.enforce_eager,
        **fixed,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tracker = VideoTracker.from_files(
        config.sam2_config, config.sam2_checkpoint, device, max_frames=config.tracker_frames
    )
    return Segmenter(policy, tracker, config.sampled_frames, config.keyframe_resize, config.prompt_template)


def make_record(
    sample: VideoSample, reading: Reading, sampled_frames: int, seconds: dict[str, float]
) -> dict[str, Any]:
    """One line of predictions.jsonl."""
    return {
        "sample_id": sample.sample_id,
        "video": sample.video,
        "exp_id": sample.exp_id,
        "expression": sample.expression,
        "type_id": sample.type_id,
        "num_objects": sample.num_objects,
        "frames": len(sample.frames),
        "size": [sample.height, sample.width],
        "result_dir": sample.result_dir,
        "shown": evaluation_frames(len(sample.frames), sampled_frames),
        "answer": reading.text,
        "thinking": reading.thinking,
        "keyframe": reading.keyframe,
        "boxes": [list(box) for box in reading.boxes],  # pixels of the video
        "failure": reading.failure,
        "seconds": seconds,
    }
