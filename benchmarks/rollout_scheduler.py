"""Python's share of a decoding step: vLLM's scheduler and output processing against `RolloutScheduler`, without a GPU.

    python -m benchmarks.rollout_scheduler     # 128 responses of 512 tokens, 6 images a prompt; about a minute

Tokens come from a formula, whose time is left out. What is measured is the process's CPU time, so that other work on
the machine disturbs less; the preparation of a model's inputs, which needs a GPU, is not in it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from veason.command_line import HelpFormatter, parse_arguments

ROUNDS = 3  # of which the first is left out


def main() -> None:
    parse_arguments(argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter))
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    import vllm

    from benchmarks.grpo_job import write_policy
    from benchmarks.scheduled_engine import EngineSizes, open_engine

    with tempfile.TemporaryDirectory() as folder:
        write_policy(Path(folder), "tiny")
        print(f"vLLM {vllm.__version__}, CPU ms a step of 128 sequences")
        for plain in (True, False):
            steps = measure(open_engine(Path(folder), EngineSizes(), plain))
            name = "vLLM's own" if plain else "RolloutScheduler"
            print(f"{name:>16}: median {statistics.median(steps):.2f}, mean {statistics.fmean(steps):.2f}", flush=True)


def measure(engine: Any) -> list[float]:
    """Milliseconds of each step of `ROUNDS` - 1 rollouts of 16 x 8 x 512 tokens."""
    from benchmarks.scheduled_engine import image_prompt
    from verl.workers.rollout_engine import GenerationRequest, RequestSampling

    vllm_engine = engine.llm.llm_engine
    executor, step = type(vllm_engine.engine_core.engine_core.model_executor), vllm_engine.step
    steps: list[float] = []

    def timed_step() -> Any:
        before, elsewhere = time.process_time(), executor.seconds
        outputs = step()
        steps.append(1e3 * (time.process_time() - before - (executor.seconds - elsewhere)))
        return outputs

    vllm_engine.step = timed_step
    requests = [GenerationRequest(uid, image_prompt(uid), RequestSampling(8, 1.0, 100 * uid)) for uid in range(16)]
    for number in range(ROUNDS):
        if number == 1:
            steps.clear()
        vllm_engine.reset_prefix_cache()
        engine.generate(requests, lambda *_: None)
    return steps


if __name__ == "__main__":
    main()
