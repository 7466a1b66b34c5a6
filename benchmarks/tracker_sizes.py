"""What the sizes of SAM 2.1 cost: parameters, memory, seconds a frame, for docs/models.md.

    python -m benchmarks.tracker_sizes
    OMP_WAIT_POLICY=passive python -m benchmarks.tracker_sizes --frames 4 --sizes t,l   # threads that wait cost nothing

Random weights and frames: neither time nor memory depends on them. A clip is tracked with one box, after one frame that
is not counted. On a CPU the seconds are those of one core, summed over the cores, which other programs beside it do not
change; n idle cores need about an n-th of them.
"""

from __future__ import annotations

import argparse
import gc
import resource
import time

import numpy as np
import torch

from veason.command_line import parse_arguments
from veason.tracking.sam2.tracker import Sam2Tracker
from veason.tracking.tracker_prompts import BoxPrompt

SIZES = {"t": "tiny", "s": "small", "b+": "base plus", "l": "large"}
FRAME = (480, 854)  # height, width


def measure(size: str, frames: int, device: str) -> dict[str, float]:
    """Parameters in millions, seconds a frame, and peak memory in GiB.

    On a CPU these are processor seconds of all threads, and the memory of the process.
    """
    tracker = Sam2Tracker.from_files(f"configs/sam2.1/sam2.1_hiera_{size}.yaml", "random", device)
    rng = np.random.default_rng(0)
    clip = [rng.integers(0, 256, (*FRAME, 3), dtype=np.uint8) for _ in range(frames)]
    prompt = BoxPrompt(0, np.array([[100.0, 100.0, 300.0, 300.0]]))
    tracker.track_groups_on_device([(clip[:1], [prompt])], FRAME)
    clock = time.perf_counter if device == "cuda" else time.process_time
    start = clock()
    tracker.track_groups_on_device([(clip, [prompt])], FRAME)
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = (clock() - start) / frames
    parameters = sum(parameter.numel() for parameter in tracker.network.model.parameters())
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"parameters": parameters / 1e6, "seconds": seconds, "memory": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=8, help="of the clip (8)")
    parser.add_argument("--sizes", default=",".join(SIZES), help=f"of SAM 2.1, smallest first ({','.join(SIZES)})")
    options = parse_arguments(parser)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cpu = f"{torch.get_num_threads()} CPU cores, seconds of one core"
    where = torch.cuda.get_device_name() if device == "cuda" else cpu
    print(f"{where}, PyTorch {torch.__version__}, {options.frames} frames of {FRAME[0]} x {FRAME[1]}, one box\n")
    print("| SAM 2.1 | million parameters | seconds a frame | peak memory, GiB |\n| --- | ---: | ---: | ---: |")
    for size in options.sizes.split(","):
        row = measure(size, options.frames, device)
        print(f"| {SIZES[size]} | {row['parameters']:.1f} | {row['seconds']:.3g} | {row['memory']:.1f} |", flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
