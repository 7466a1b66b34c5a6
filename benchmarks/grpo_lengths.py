"""Responses of log-normal lengths in `benchmarks.grpo_step`, beside those of one length."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from benchmarks.grpo_table import peak_gib, print_rows, table_row
from verl.metric_types import Metrics

SPREAD = 0.5  # standard deviation of the logarithm
MEAN, LONGEST = 400 / 512, 2  # times the tokens of the job's one length: 400 and 1,024
MOST = 1.25  # target: the seconds per response token, over those of responses of one length


def draw_length(seed: int, mean: float, longest: int) -> int:
    """A response's length, the same whatever generates it.

    Args:
        seed: of the response's sampling.
        mean: of the log-normal distribution, tokens.
        longest: tokens; longer draws are cut.
    """
    location = math.log(mean) - SPREAD**2 / 2
    return min(longest, max(1, round(random.Random(seed).lognormvariate(location, SPREAD))))


def force_lengths(engine: Any, mean: float, longest: int) -> None:
    """Makes every request to come end after the tokens that its seed draws.

    Args:
        engine: `vllm.LLM.llm_engine`, in this process. The responses of a prompt are requests of their own there, with
            consecutive seeds.
    """
    scheduler = engine.engine_core.engine_core.scheduler
    add_request = scheduler.add_request

    def add_with_length(request: Any) -> None:
        request.max_tokens = draw_length(request.sampling_params.seed, mean, longest)
        add_request(request)

    scheduler.add_request = add_with_length


def measure_lengths(
    step: Callable[[str], Metrics], steps: int, sequences: int, fixed: Metrics, device: str
) -> list[Metrics]:
    """Steps with such lengths, printed one by one, then the most memory and the seconds per token beside `fixed`.

    Args:
        step: runs a step of this name. sequences: responses of a step.
        fixed: metrics of a step with responses of one length.
    """
    rows = []
    for number in range(steps):
        row = step(f"free lengths, step {number + 1}")
        rows.append(row)
        print(f"    {row['response/mean']:.0f} tokens a response, peak {peak_gib(row):.1f} GiB", flush=True)
    timed = rows[1:] or rows  # the first compiles for new shapes
    seconds, tokens = sum(row["timing_s/step"] for row in timed), sum(row["response/mean"] for row in timed)
    slower = seconds / tokens / (fixed["timing_s/step"] / fixed["response/mean"])
    generated = sequences * tokens / sum(row["timing_s/rollout"] for row in timed)
    print_rows(
        [
            table_row("free lengths, seconds per response token over those of one length", slower, MOST, "at most"),
            f"| free lengths, mean of {len(timed)} steps, s | {seconds / len(timed):.2f} | | |",
            f"| free lengths, tokens a response | {tokens / len(timed):.0f} | | |",
            f"| free lengths, response tokens a second of the rollout | {generated:.0f} | | |",
            f"| free lengths, peak of {len(rows)} steps, GiB | {max(map(peak_gib, rows)):.1f} | | |",
        ],
        device,
    )
    return rows
