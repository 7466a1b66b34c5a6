"""One process of an evaluation: a policy, a tracker, and the samples that it is given."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from eval.evaluation_folder import EvaluationFolder
from eval.evaluation_options import CHECKPOINT_SETTINGS, EvaluateConfig
from eval.prediction_record import PredictionRecord
from veason.data import VideoSample, open_benchmark
from veason.errors import DataError
from veason.inference.prediction import Prediction
from veason.inference.segmenter import Frames, Segmenter
from veason.inference.vllm_policy import ChatPrompt, SamplingOptions, VLLMPolicy
from veason.inference_settings import InferenceSettings
from veason.tracking import build_tracker, takes_text
from veason.video.sources import FrameFiles

READER_THREADS = 8  # threads that read the frames of the next prompts
MASK_BYTES = 2 << 30  # of one video's masks that are tracked at once, a byte per pixel; twice as much is held
GIB = 1 << 30


class TrackedSample(NamedTuple):
    """A sample whose masks are to be written: (index, bool [H, W]), each index once."""

    sample: VideoSample
    prediction: Prediction
    masks: Iterator[tuple[int, np.ndarray]]
    seconds: dict[str, float]


class EvaluationWorker:
    """Segments samples and writes their masks and records. A Ray actor in `eval.evaluate`, a plain object in a test.

    Args:
        config: of the run.
        rank: this worker's number, which names its files in the run's folder.
        segmenter: built from `config` unless given.
    """

    def __init__(self, config: EvaluateConfig, rank: int, segmenter: Segmenter | None = None) -> None:
        self.rank = rank
        # the driver has checked it
        self.benchmark = open_benchmark(config.benchmark, config.data_path, config.split, check=False)
        self.folder = EvaluationFolder(config.output_path)
        self.segmenter = segmenter or build_segmenter(config)

    def run(self, indices: Sequence[int]) -> list[str]:
        """Segment the samples at these indices, which the policy answers as one batch; returns their ids."""
        samples = [self.benchmark.samples[index] for index in indices]
        # Samples of one video are grouped. While one group is tracked, the next one's frames are read and the last
        # one's masks are written.
        videos = groupby(samples, key=lambda sample: (sample.frame_dir, sample.frames))
        groups = [part for _, group in videos for part in split_by_memory(list(group))]
        with ThreadPoolExecutor(READER_THREADS) as readers, ThreadPoolExecutor(1) as writer:
            answers, seconds = self._answer(groups, readers)
            written: Future[None] | None = None
            prefetched = self._prefetch(groups[0], readers)
            for number, group in enumerate(groups):
                frames = [frame.result() for frame in prefetched] if prefetched else self._frames(group[0])
                prefetched = self._prefetch(groups[number + 1], readers) if number + 1 < len(groups) else None
                tracked = self._track(group, frames, answers, seconds)
                if written:
                    written.result()  # so no more than two videos' masks are held
                written = writer.submit(self._write, tracked)
                if self._is_long(group):
                    written.result()  # its masks come from the tracker as they are written
            if written:
                written.result()
        return [sample.sample_id for sample in samples]

    def _answer(
        self, groups: Sequence[Sequence[VideoSample]], readers: ThreadPoolExecutor
    ) -> tuple[dict[str, str], float]:
        """The policy's answers by sample_id, and the seconds per answer; empty answers where there is no policy."""
        if self.segmenter.takes_text:
            return {sample.sample_id: "" for group in groups for sample in group}, 0.0
        started = time.perf_counter()

        def build_prompts(group: Sequence[VideoSample]) -> list[ChatPrompt]:
            expressions, names = [sample.expression for sample in group], [sample.sample_id for sample in group]
            return self.segmenter.build_prompts(self._frames(group[0]), expressions, names)

        batch = [prompt for several in readers.map(build_prompts, groups) for prompt in several]
        assert self.segmenter.policy is not None
        answers = self.segmenter.policy.generate(batch)
        by_id = dict(zip((prompt.name for prompt in batch), answers))
        return by_id, (time.perf_counter() - started) / len(batch)

    def _is_long(self, group: Sequence[VideoSample]) -> bool:
        """Whether a group's video is streamed instead of held."""
        return len(group[0].frames) > self.segmenter.tracker.max_frames

    def _prefetch(self, group: Sequence[VideoSample], readers: ThreadPoolExecutor) -> list[Future[np.ndarray]] | None:
        """Begin to read the frames of a group's video; None for a long one."""
        if self._is_long(group):
            return None
        files = self._frames(group[0])
        return [readers.submit(files.__getitem__, index) for index in range(len(files))]

    def _track(
        self, group: Sequence[VideoSample], frames: Frames, answers: dict[str, str], policy_seconds: float
    ) -> list[TrackedSample]:
        """Track the samples of one video."""
        started = time.perf_counter()
        shape = (len(frames), group[0].height, group[0].width)
        expressions = [sample.expression for sample in group]
        predictions = self.segmenter.parse_answers(expressions, [answers[sample.sample_id] for sample in group], shape)
        masks = self.segmenter.track_all(frames, predictions)
        seconds = {
            "policy": round(policy_seconds, 4),
            "tracker": round((time.perf_counter() - started) / len(group), 4),
        }
        return [TrackedSample(*parts, seconds) for parts in zip(group, predictions, masks)]

    def _write(self, tracked: Sequence[TrackedSample]) -> None:
        """Write masks, then records, of one video; the masks of a long one are tracked as they are written."""
        for sample, prediction, masks, seconds in tracked:
            started = time.perf_counter()
            self.folder.write_masks(sample.result_dir, sample.frames, masks, self.rank)
            took = {**seconds, "write": round(time.perf_counter() - started, 4)}
            record = PredictionRecord.make(sample, prediction, self.segmenter.shown_frames(len(sample.frames)), took)
            self.folder.append(record, self.rank)

    def _frames(self, sample: VideoSample) -> FrameFiles:
        paths = [self.benchmark.frame_path(sample, index) for index in range(len(sample.frames))]
        return SampleFrames(sample.sample_id, paths, (sample.height, sample.width))


class SampleFrames(FrameFiles):
    """The frames of a sample, of the annotated size: boxes would be scaled to one size and tracked in another."""

    def __init__(self, sample_id: str, paths: Sequence[Path], size: tuple[int, int]) -> None:
        super().__init__(paths, size=size)
        self.sample_id = sample_id

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        try:
            return super().__getitem__(index)
        except DataError as error:
            raise DataError(f"{self.sample_id}: {error}") from error


def split_by_memory(group: list[VideoSample]) -> Iterator[list[VideoSample]]:
    """The samples of one video, as many at a time that their masks fit into `MASK_BYTES`."""
    first = group[0]
    size = max(1, MASK_BYTES // (len(first.frames) * first.height * first.width))
    return (group[start : start + size] for start in range(0, len(group), size))


def build_segmenter(config: EvaluateConfig) -> Segmenter:
    """The policy, if the tracker needs one, and the tracker of a run, on this process's GPU or on the CPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if takes_text(config.tracker):
        return Segmenter(
            None, build_tracker(config.tracker, device, config.max_cached_frames, **config.all_tracker_options)
        )
    used = InferenceSettings().with_overrides(**{key: getattr(config, key) for key in CHECKPOINT_SETTINGS})
    sampling = SamplingOptions(
        config.temperature,
        config.top_p,
        used.repetition_penalty,
        max_tokens=config.max_response_length,
        seed=config.seed,
    )
    cache = {}
    if config.kv_cache_gib is not None:
        cache = {"kv_cache_memory_bytes": int(config.kv_cache_gib * GIB), "skip_mm_profiling": True}
    policy = VLLMPolicy(
        config.model_path or "",
        sampling,
        dtype=config.dtype,
        max_prompt_tokens=config.max_prompt_length,
        max_images=used.sampled_frames,
        gpu_memory_utilization=config.gpu_memory_utilization,
        enforce_eager=config.enforce_eager,
        **cache,
    )
    tracker = build_tracker(config.tracker, device, config.max_cached_frames, **config.all_tracker_options)
    return Segmenter(
        policy,
        tracker,
        used.sampled_frames,
        used.keyframe_resize,
        used.prompt_template,
        used.answer_parser,
        used.timestamp_mode,
    )
