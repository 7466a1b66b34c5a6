"""TRL's GRPOTrainer on the job of `benchmarks.grpo_step`, started by it in a process of its own.

    pip install trl==1.16.0
    python -m benchmarks.grpo_trl --policy FOLDER --events FILE --prompts 4 --rollouts 8 --tokens 256 --steps 1

Made as quick as TRL offers: vLLM in its own process and always awake, all rollouts in one generation, fp32 weights with
bf16 autocast as ours (all in bf16 where a GPU has no room for that beside vLLM, which is less work than ours), gradient
checkpointing, and the fastest attention that transformers finds installed. The reward is a number at no cost. The first
step warms up.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.grpo_job import GIB, BenchData
from veason.command_line import HelpFormatter, parse_arguments
from verl.workers.prompt_builder import PromptBuilder

ENGINE_GIB = 24  # for vLLM: weights, cache, activations
LARGE_GPU_GIB = 120  # a GPU with room for fp32 weights, gradients, optimizer and reference beside that


@dataclass(frozen=True)
class TRLSizes:
    """Of the job; the names are `benchmarks.grpo_job.GRPOJob`'s."""

    prompts: int
    rollouts: int
    tokens: int
    steps: int
    side: int


def fastest_attention() -> str:
    """The fastest implementation that transformers can use with what is installed."""
    for package, name in (("flash_attn_interface", "flash_attention_3"), ("flash_attn", "flash_attention_2")):
        if importlib.util.find_spec(package) is not None and torch.cuda.is_available():
            return name
    return "sdpa"


def make_dataset(sizes: TRLSizes) -> Any:
    """Conversations with their images, in TRL's form: enough for the first step and those that are timed."""
    import datasets
    import pyarrow as pa

    text = datasets.Value("string")
    features = datasets.Features(
        {
            "prompt": datasets.List({"role": text, "content": datasets.List({"type": text, "text": text})}),
            "images": datasets.List(datasets.Image()),
        }
    )
    data, rows = BenchData(sizes.side), []
    for index in range(sizes.prompts * (1 + sizes.steps)):
        example = data.example(index, 0)
        turns = [
            {
                "role": turn["role"],
                "content": [{"type": part["type"], "text": part.get("text")} for part in turn["content"]],
            }
            for turn in example.messages
        ]
        rows.append(features.encode_example({"prompt": turns, "images": example.images}))
    table = datasets.table.InMemoryTable(pa.Table.from_pylist(rows, schema=features.arrow_schema))
    # with a fingerprint given, nothing has to be pickled to compute one
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features), fingerprint="noise")


def generation_options(use_vllm: bool, forbidden: list[int], tokens: int) -> dict[str, Any]:
    """Every response of full length, and no image token without an image."""
    if use_vllm:
        return {"ignore_eos": True, "logit_bias": dict.fromkeys(forbidden, float("-inf")), "detokenize": False}
    return {"min_new_tokens": tokens, "suppress_tokens": forbidden}


def make_trainer(policy: Path, sizes: TRLSizes, use_vllm: bool, output: str) -> Any:
    from trl import GRPOConfig, GRPOTrainer

    cuda = torch.cuda.is_available()
    total = torch.cuda.get_device_properties(0).total_memory / GIB if cuda else LARGE_GPU_GIB
    responses = sizes.prompts * sizes.rollouts
    batch = min(8 if total >= LARGE_GPU_GIB else 4, responses)  # sequences of a forward pass
    config = GRPOConfig(
        output_dir=output,
        max_steps=1 + sizes.steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=responses // batch,
        steps_per_generation=responses // batch,
        num_generations=sizes.rollouts,
        max_completion_length=sizes.tokens,
        beta=5e-3,
        learning_rate=1e-6,
        loss_type="grpo",
        bf16=cuda,
        use_cpu=not cuda,
        gradient_checkpointing=True,
        model_init_kwargs={
            "attn_implementation": fastest_attention(),
            "dtype": "float32" if total >= LARGE_GPU_GIB else "bfloat16",
        },
        use_vllm=use_vllm,
        vllm_mode="colocate",
        vllm_gpu_memory_utilization=min(0.9, ENGINE_GIB / total) if cuda else 0.2,
        vllm_max_model_length=8192,
        generation_kwargs=generation_options(use_vllm, PromptBuilder(str(policy)).forbidden_tokens, sizes.tokens),
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    return GRPOTrainer(str(policy), no_reward, config, train_dataset=make_dataset(sizes))


def no_reward(prompts: list[Any], **_: Any) -> list[float]:
    """Numbers that differ inside a group."""
    return [float(number % 7) for number in range(len(prompts))]


def watch_steps(trainer: Any, record_event: Callable[..., None]) -> None:
    """Tells of the end of each step, and of its mean response."""
    from transformers import TrainerCallback

    class StepTimeCallback(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            record_event(event="step")

        def on_log(self, *_: Any, logs: dict[str, Any], **__: Any) -> None:
            if "completions/mean_length" in logs:
                record_event(event="length", tokens=logs["completions/mean_length"])

    trainer.add_callback(StepTimeCallback())


def command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "benchmarks.grpo_trl", *arguments]


def measure(policy: Path, sizes: TRLSizes, limit: int, vllm: bool) -> tuple[dict[str, float], str]:
    """Runs this module in a process of its own and ends it after `limit` seconds.

    Returns:
        {"timing_s/step": of the timed steps} or, where they did not end in time, {"timing_s/over": a lower bound of
        one}, or nothing where it failed or was ended before; and what was run, or why it was not.
    """
    if importlib.util.find_spec("trl") is None:
        return {}, "not installed: pip install trl==1.16.0"
    events, log = policy.parent / "trl.jsonl", policy.parent / "trl.log"
    events.unlink(missing_ok=True)
    arguments = [f"--{name}={value}" for name, value in asdict(sizes).items()]
    arguments += [f"--policy={policy}", "--events", str(events), *([] if vllm else ["--transformers"])]
    with log.open("w") as output:
        process = subprocess.Popen(command(arguments), stdout=output, stderr=output, start_new_session=True)
        start = time.time()
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seen = [json.loads(line) for line in events.read_text().splitlines()] if events.exists() else []
    moments = [each["time"] for each in seen if each["event"] in ("ready", "step")]
    about = next((each["what"] for each in seen if each["event"] == "ready"), "it did not start")
    lengths = [f"{each['tokens']:.0f}" for each in seen if each["event"] == "length"]
    if process.returncode not in (0, -signal.SIGKILL):
        return {}, f"{about}; it failed:\n{log.read_text()[-3000:]}"
    steps = ", ".join(f"{after - before:.1f} s" for before, after in pairwise(moments))
    about += (
        f"; started in {moments[0] - start:.0f} s; steps of {steps or '-'}; responses of {', '.join(lengths)} tokens"
        if moments
        else ""
    )
    if len(moments) == 2 + sizes.steps:
        return {"timing_s/step": (moments[-1] - moments[1]) / sizes.steps}, about
    about += f"; ended after {limit} s, {limit + start - (moments[-1] if moments else start):.0f} s into what followed"
    return ({"timing_s/over": start + limit - moments[-1]} if len(moments) > 1 else {}), about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--prompts", type=int, default=4, help="prompts of a step")
    parser.add_argument("--rollouts", type=int, default=8, help="responses to a prompt")
    parser.add_argument("--tokens", type=int, default=256, help="of a response")
    parser.add_argument("--steps", type=int, default=1, help="timed, after one that warms up")
    parser.add_argument("--side", type=int, default=560, help="of a frame, in pixels")
    parser.add_argument("--events", type=Path, required=True, help="file that gets a JSON object for each event")
    parser.add_argument("--transformers", action="store_true", help="generate with transformers instead of vLLM")
    args = parse_arguments(parser)
    sizes = TRLSizes(args.prompts, args.rollouts, args.tokens, args.steps, args.side)
    import trl

    def record_event(**event: Any) -> None:
        with args.events.open("a") as file:
            file.write(json.dumps(event | {"time": time.time()}) + "\n")

    with tempfile.TemporaryDirectory() as output:
        trainer = make_trainer(args.policy, sizes, not args.transformers, output)
        watch_steps(trainer, record_event)
        engine = "generation by transformers" if args.transformers else "vLLM in its process"
        model = trainer.model
        record_event(
            event="ready",
            what=f"TRL {trl.__version__}, {model.dtype}, {engine}, attention {model.config._attn_implementation}",
        )
        trainer.train()


if __name__ == "__main__":
    main()
