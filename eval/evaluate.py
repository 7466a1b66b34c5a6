"""Runs a policy over a benchmark: masks of every sample, one record each, and the table.

    python -m eval.evaluate benchmark=reasonvos model_path=CHECKPOINT data_path=ReasonVOS output_path=outputs/run \\
        sam2_checkpoint=sam2.1_hiera_large.pt
    python -m eval.evaluate benchmark=mevis split=valid_u limit=20 model_path=CHECKPOINT data_path=MeViS \\
        output_path=outputs/few sam2_checkpoint=sam2.1_hiera_large.pt

One Ray actor per GPU (or `workers=` CPU processes) takes samples from one queue; the tracker follows the boxes through
the whole video. A run that was stopped is continued by the same command. What a policy writes never ends a run; what
the disk or a GPU does wrong does.
"""

from __future__ import annotations

import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError
from tqdm import tqdm

from eval.evaluation_folder import EvaluationFolder
from eval.evaluation_options import (
    MIN_BATCH,
    EvaluateConfig,
    apply_checkpoint_settings,
    check_frames,
    parse_overrides,
    print_help_if_asked,
)
from eval.evaluation_plan import show_evaluation_plan
from eval.metrics import MetricsConfig, complete_from_run, compute_metrics
from eval.prediction_record import PredictionRecord
from eval.remote_worker import RemoteEvaluationWorker
from veason.answer_parsers import POINTS
from veason.checkpoints import resolve_model
from veason.data import open_benchmark
from veason.data.selection import LEFT_OUT, SampleSelection, read_exclusions, select_samples, write_left_out
from veason.errors import DataError
from veason.files import file_hash, folder_hash
from veason.frames import check_pixel_multiple
from veason.model_info import read_model_info
from veason.prompts import load_template
from veason.tracking import check_takes_points, check_tracker
from verl.config import ConfigError
from verl.process_output import driver_log_path, redirect_library_messages
from verl.single_controller import ClusterError, connect_ray
from verl.trainer.run_info import PACKAGES, installed_versions

# Options that do not change the results, and those that the header records in another form.
EXECUTION_OPTIONS = (
    "workers",
    "batch_size",
    "max_cached_frames",
    "gpu_memory_utilization",
    "kv_cache_gib",
    "enforce_eager",
)
NOT_RECORDED = (*EXECUTION_OPTIONS, "compute_metrics", "output_path", "prompt_template", "settings", "idx", "num_parts")
PLAN = "--plan"
SWITCHES = """\
--plan    show the options, samples, memory, time and disk, and exit
--help    this list
"""


def evaluate(config: EvaluateConfig) -> list[PredictionRecord]:
    """Run or continue one evaluation. Returns its records in the benchmark's order.

    Raises:
        ConfigError: no model_path for a tracker that needs a policy.
        DataError: no checkpoint, no tracker, a frame size that the policy would not see, more frames than a prompt can
            hold, a benchmark that does not fit its annotation, samples whose files are missing, or an output folder
            that holds another run or in which one is at work.
        RuntimeError: a worker died; what is done stays done.
    """
    config, lines = apply_checkpoint_settings(config)
    for line in lines:
        print(line, flush=True)
    model = None if config.model_path is None else resolve_model(config.model_path)
    for check in option_checks(replace(config, model_path=model)):
        check()
    benchmark = open_benchmark(config.benchmark, config.data_path, config.split, check=False)
    selection = select_samples(
        benchmark, read_exclusions(config.exclude), config.limit, config.on_missing, read_masks=config.compute_metrics
    )
    samples = {index: benchmark.samples[index].sample_id for index in selection.indices}
    check_frames(replace(config, model_path=model), max(len(benchmark.samples[index].frames) for index in samples))
    folder = EvaluationFolder(config.output_path)
    with folder.locked():
        done = folder.begin(make_header(config, benchmark.split, selection, model))
        write_left_out(folder.path, selection)
        print(f"{config.benchmark} ({benchmark.split}): {len(samples)} samples, {len(done)} done before", flush=True)
        if selection.summary:
            print(f"{selection.summary}, see {folder.path / LEFT_OUT}", flush=True)
        if left := [index for index, name in samples.items() if name not in done]:
            run_workers(config, left)
        records = folder.finish(samples.values())
    failures = Counter(record.failure for record in records if record.failure)
    causes = ", ".join(f"{count} {cause}" for cause, count in failures.most_common()) or "none"
    print(f"empty masks: {causes}; everything in {config.output_path}", flush=True)
    return records


def option_checks(config: EvaluateConfig) -> list[Callable[[], Any]]:
    """What is checked before anything is loaded, beside `apply_checkpoint_settings`; each raises DataError."""
    return [
        partial(check_tracker, config.tracker, config.all_tracker_options),
        partial(check_frame_size, config),
        partial(check_points, config),
    ]


def check_frame_size(config: EvaluateConfig) -> None:
    """Refuse a frame size that the policy would not see; without a checkpoint nothing is known of it."""
    folder = Path(config.model_path or "")
    if config.model_path and (folder / "config.json").is_file() and config.keyframe_resize is not None:
        check_pixel_multiple(config.keyframe_resize, read_model_info(folder).pixel_multiple)


def check_points(config: EvaluateConfig) -> None:
    """Refuse a tracker that takes no points where answers have them."""
    if config.answer_parser == POINTS:
        check_takes_points(config.tracker, f"answer_parser={POINTS}")


def run_workers(config: EvaluateConfig, indices: Sequence[int]) -> None:
    """Distribute the samples over one actor per GPU, or `config.workers` processes; all of them end with the call.

    Raises:
        DataError: as a worker raised it.
        ClusterError: the Ray cluster of RAY_ADDRESS cannot be joined.
        RuntimeError: a worker died, or could not start (weights that do not fit, no memory).
    """
    connect_ray(config.workers or 1)
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if gpus and (config.workers or 1) > gpus:
        raise ConfigError(f"workers={config.workers}, but there are {gpus} GPUs: one worker has one")
    count = min(config.workers or gpus or 1, len(indices))
    actor = ray.remote(num_gpus=1 if gpus else 0, num_cpus=0)(RemoteEvaluationWorker)
    workers = [actor.remote(config, rank) for rank in range(count)]
    queue = sample_batches(indices, config.batch_size, count)
    busy: dict[ray.ObjectRef, int] = {}
    started: set[int] = set()  # workers that have finished a batch

    def submit(rank: int) -> None:
        if batch := next(queue, None):
            busy[workers[rank].run.remote(batch)] = rank

    try:
        for rank in range(count):
            submit(rank)
        # where it is no terminal, a line a minute
        pause = 0.1 if sys.stderr.isatty() else 60.0
        with tqdm(total=len(indices), unit="sample", smoothing=0.1, mininterval=pause) as bar:
            while busy:
                (ready,), _ = ray.wait(list(busy), num_returns=1)
                rank = busy.pop(ready)
                try:
                    bar.update(len(ray.get(ready)))
                except RayTaskError as error:  # Ray's own text is a worker's whole traceback
                    if isinstance(error.cause, DataError):
                        raise error.cause from None
                    raise
                except RayActorError as error:
                    state = "died; finished samples are kept, the same command continues"
                    state = state if rank in started else "could not start"
                    raise RuntimeError(f"worker {rank} of {count} {state}. {error}") from error
                started.add(rank)
                submit(rank)
    finally:
        for worker in workers:
            ray.kill(worker)


def sample_batches(indices: Sequence[int], largest: int, workers: int) -> Iterator[list[int]]:
    """Runs of neighbouring samples, smaller towards the end so that all workers finish at about the same time."""
    divisor = 1 if workers == 1 else 2 * workers
    start = 0
    while start < len(indices):
        size = min(largest, max(MIN_BATCH, (len(indices) - start) // divisor))
        yield list(indices[start : start + size])
        start += size


def make_header(config: EvaluateConfig, split: str, selection: SampleSelection, model: str | None) -> dict[str, Any]:
    """What is needed to repeat a run: settings, prompt, hashes of the weights (of the folder `model`; None: there is no
    policy), versions.
    """
    settings = asdict(config)
    for key in NOT_RECORDED:
        settings.pop(key)
    weights, tracker = Path(config.sam2_checkpoint or ""), Path(config.tracker_options.get("checkpoint") or "nowhere")
    return {
        **settings,
        "split": split,
        "samples": len(selection.indices),
        "left_out": len(selection.left_out),
        "prompt": load_template(config.prompt_template) if model else None,
        "coordinate_range": read_model_info(model).coordinate_range if model else None,
        "model_sha256": folder_hash(model) if model else None,
        "sam2_sha256": file_hash(weights) if config.tracker == "sam2" and weights.is_file() else None,
        "tracker_sha256": folder_hash(tracker) if config.tracker != "sam2" and tracker.is_dir() else None,
        "versions": installed_versions((*PACKAGES, "opencv-python-headless")),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "workers": config.workers,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def main(arguments: Sequence[str]) -> int:
    if print_help_if_asked(EvaluateConfig, __doc__, arguments, SWITCHES):
        return 0
    try:
        words = [word for word in arguments if word != PLAN]
        config = parse_overrides(EvaluateConfig, words)
        if PLAN in arguments:
            return show_evaluation_plan(config, words, option_checks)
        with redirect_library_messages(driver_log_path(config.output_path)):
            evaluate(config)
        if config.compute_metrics:
            benchmark = open_benchmark(config.benchmark, config.data_path, config.split, check=False)
            if benchmark.has_ground_truth:
                print(compute_metrics(complete_from_run(MetricsConfig(config.output_path, config.data_path))))
    except (ConfigError, DataError, ClusterError) as error:
        print(f"eval.evaluate: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
