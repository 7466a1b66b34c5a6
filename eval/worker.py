"""What each process of an evaluation does: one policy, one tracker, and the samples that it is handed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from eval.config import EvaluateConfig
from eval.run_folder import RunFolder
from veason.datasets import VideoSample, open_benchmark
from veason.pipeline import Reading, Segmenter
from veason.policy import Sampling, VLLMPolicy
from veason.video import FrameFiles

READERS = 8  # threads that read the frames of the next questions


class EvaluationWorker:
    """Segments samples and writes their masks and records. A Ray actor in `eval.evaluate`, a plain object in a test.

    Args:
        config: of the run.
        rank: this worker's number, also its name in the run's folder.
        segmenter: built from `config` unless given.
    """

    def __init__(self, config: EvaluateConfig, rank: int, segmenter: Segmenter | None = None) -> None:
        self.rank = rank
        self.benchmark = open_benchmark(config.benchmark, config.data_path, config.split, check=False)  # the driver has checked it
        self.folder = RunFolder(config.output_path)
        self.segmenter = segmenter or build_segmenter(config)

    def run(self, indices: Sequence[int]) -> list[str]:
        """Segment the samples at these places in the benchmark; the policy is asked about all of them at once. Returns their ids."""
        samples = [self.benchmark.samples[index] for index in indices]
        videos = [self._frames(sample) for sample in samples]
        started = time.perf_counter()
        with ThreadPoolExecutor(READERS) as pool:
            asked = pool.map(self.segmenter.question, videos, [s.expression for s in samples], [s.sample_id for s in samples])
            answers = self.segmenter.policy.answers(list(asked))
        share = (time.perf_counter() - started) / len(samples)
        for sample, frames, answer in zip(samples, videos, answers):
            started = time.perf_counter()
            reading = self.segmenter.read(answer, (len(frames), sample.height, sample.width))
            self.folder.write_masks(sample.result_dir, sample.frames, self.segmenter.track(frames, reading), self.rank)
            seconds = {"policy": round(share, 4), "tracker": round(time.perf_counter() - started, 4)}
            self.folder.append(make_record(sample, reading, self.segmenter.sampled_frames, seconds), self.rank)
        return [sample.sample_id for sample in samples]

    def _frames(self, sample: VideoSample) -> FrameFiles:
        return FrameFiles([self.benchmark.frame_path(sample, index) for index in range(len(sample.frames))])


def build_segmenter(config: EvaluateConfig) -> Segmenter:
    """The policy and the tracker of a run, on this process's GPU or on the CPU."""
    from veason.tracker import VideoTracker

    sampling = Sampling(config.temperature, config.top_p, config.repetition_penalty, config.max_response_length, config.seed)
    policy = VLLMPolicy(
        config.model_path,
        sampling,
        dtype=config.dtype,
        max_prompt_tokens=config.max_prompt_length,
        max_images=config.sampled_frames,
        memory=config.gpu_memory_utilization,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tracker = VideoTracker.from_files(config.sam2_config, config.sam2_checkpoint, device)
    return Segmenter(policy, tracker, config.sampled_frames, config.keyframe_resize, config.prompt_template)


def make_record(sample: VideoSample, reading: Reading, sampled_frames: int, seconds: dict[str, float]) -> dict[str, Any]:
    """One line of predictions.jsonl."""
    from veason.frames import evaluation_frames

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
