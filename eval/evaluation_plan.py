"""`--plan` of an evaluation: its options with where each comes from, samples, memory, time and disk; nothing starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from eval.evaluation_options import (
    CHECKPOINT_SETTINGS,
    EvaluateConfig,
    apply_checkpoint_settings,
    check_frames,
    given_keys,
)
from veason.data import VideoBenchmark, find_benchmark, open_benchmark
from veason.data.selection import read_exclusions, select_samples
from veason.errors import DataError, OptionError
from veason.registry import load_by_name
from veason.tracking import TRACKERS, supported_options
from verl.config import ConfigError
from verl.config.key_reference import as_yaml
from verl.trainer.baseline_runs import BaselineRun, find_measured_run

INCOMPLETE = 3  # exit status: the options are sound, and something that the run needs is not on this machine
GIB = float(1 << 30)
TRACKER_FRAME_BYTES = 16e6  # of a frame's features, see EvaluateConfig.max_cached_frames
LARGE_SAM2, LARGE_SAM2_GIB = ("sam2_hiera_l", "sam2.1_hiera_l"), 1.4  # SAM 2 large, measured (docs/performance.md)
MASK_BYTES = 4e3  # of a PNG of one object at 480 x 854, about
CLIP_FRAMES = 60  # of the measured clips


def show_evaluation_plan(
    config: EvaluateConfig,
    arguments: Sequence[str],
    checks: Callable[[EvaluateConfig], Sequence[Callable[[], Any]]],
) -> int:
    """Print the plan. Returns 0, or `INCOMPLETE` where something is missing.

    Args:
        arguments: of the command line.
        checks: of the options; each raises DataError or ConfigError for what is missing.

    Raises:
        DataError: the benchmark, the tracker or one of its options is unknown.
    """
    find_benchmark(config.benchmark)
    load_by_name(config.tracker, TRACKERS, "tracker")
    given, missing = given_keys(EvaluateConfig, arguments), list[str]()
    lines: list[str] = []
    try:
        config, lines = apply_checkpoint_settings(config, download=False)
    except DataError as error:
        missing.append(str(error))
    print("options:")
    for item in fields(EvaluateConfig):
        default = item.default if isinstance(item.default, str) else ""
        variable = f"${default.split(':')[1].split(',')[0]}" if default.startswith("${oc.env:") else "default"
        variable = "checkpoint's settings, or default" if item.name in CHECKPOINT_SETTINGS else variable
        source = "command line" if item.name in given else variable
        print(f"  {f'{item.name}={as_yaml(getattr(config, item.name))}':70}  {source}")
    print("\n".join(lines))
    for check in checks(config):
        try:
            check()
        except OptionError:
            raise
        except (DataError, ConfigError) as error:
            missing.append(str(error))
    print()
    try:
        benchmark = open_benchmark(config.benchmark, config.data_path, config.split, check=False)
        exclude = read_exclusions(config.exclude)
        selection = select_samples(benchmark, exclude, config.limit, config.on_missing)
    except DataError as error:
        missing.append(str(error))
        print("samples: not known, since the data is not here")
    else:
        print("\n".join(work_lines(config, benchmark, selection.indices)))
        longest = max(len(benchmark.samples[index].frames) for index in selection.indices)
        if Path(config.model_path or "nowhere").is_dir():
            try:
                check_frames(config, longest)
            except DataError as error:
                missing.append(str(error))
    print("\n".join(memory_lines(config)))
    if missing:
        print("\nnot on this machine, so the run would not start here:")
        print("\n".join(f"  {line}" for line in missing))
    return INCOMPLETE if missing else 0


def work_lines(config: EvaluateConfig, benchmark: VideoBenchmark, indices: Sequence[int]) -> list[str]:
    """Samples, time and disk."""
    samples = [benchmark.samples[index] for index in indices]
    videos, frames = len({sample.video for sample in samples}), sum(len(sample.frames) for sample in samples)
    workers = config.workers or max(1, gpu_count())
    lines = [
        f"samples: {len(samples)} of {benchmark.name} ({benchmark.split}), {videos} videos, {frames} masks to write",
        f"workers: {workers}, {'a GPU each' if gpu_count() else 'on the CPU'}",
    ]
    baseline = find_measured_run("eval.evaluate", "3b")
    if baseline is not None and gpu_count():
        lines += time_lines(baseline, len(samples), frames, workers)
    else:
        lines.append("time: not known, nothing like it was measured on a CPU")
    folder = Path(config.output_path)
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    return [*lines, f"disk: about {frames * MASK_BYTES / 1e9:.2f} GB of masks; {free / 1e9:.0f} GB are free in {there}"]


def time_lines(baseline: BaselineRun, samples: int, frames: int, workers: int) -> list[str]:
    """Hours, scaled from a measured run by samples, frames and workers."""
    policy, tracking = baseline.seconds["policy"], baseline.seconds["tracking"]
    seconds = (samples * policy + frames / CLIP_FRAMES * tracking) / workers
    measured = f"{baseline.step_seconds} s a sample on {baseline.gpus} {baseline.device}, {baseline.date}"
    return [f"time: about {seconds / 60:.0f} min with a 3B policy (from {measured}), start-up of minutes aside"]


def memory_lines(config: EvaluateConfig) -> list[str]:
    """Memory of one worker by part."""
    if config.model_path is None:
        return [f"memory of a worker: {config.tracker} alone, which is given the expressions; not measured"]
    cache = "measured at the start" if config.kv_cache_gib is None else f"{config.kv_cache_gib} GiB"
    return [
        f"memory of a worker: policy {weights_gib(config.model_path):.2f} GiB on the disk, its cache {cache} "
        f"(at most {config.gpu_memory_utilization:.0%} of the GPU with the policy)",
        f"                    {tracker_line(config)}",
    ]


def tracker_line(config: EvaluateConfig) -> str:
    """The memory of the tracker that is configured, as far as it is known."""
    if config.tracker not in TRACKERS:
        return f"tracker {config.tracker}: not known, a tracker of your own"
    options = supported_options(config.tracker, config.all_tracker_options)
    checkpoint, model = options.get("checkpoint"), Path(str(options.get("config"))).stem
    frames = f"frames of one video up to {config.max_cached_frames * TRACKER_FRAME_BYTES / GIB:.1f} GiB at 1024 pixels"
    if config.tracker == "sam2" and model in LARGE_SAM2:
        return f"tracker sam2 ({model}): {LARGE_SAM2_GIB} GiB, {frames}"
    weights = "weights not known"
    if checkpoint and Path(checkpoint).exists():
        weights = f"weights {weights_gib(checkpoint):.2f} GiB on the disk"
    if config.tracker != "sam2":
        model = Path(str(checkpoint)).name
    return f"tracker {config.tracker} ({model}): {weights}, {frames}"


def weights_gib(path: str) -> float:
    """The size of a file of weights, or of those in a folder."""
    files = Path(path).glob("*.safetensors") if Path(path).is_dir() else [Path(path)]
    return sum(file.stat().st_size for file in files if file.is_file()) / GIB


def gpu_count() -> int:
    """CUDA devices of this machine."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
