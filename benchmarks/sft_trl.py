"""TRL's SFTTrainer on the job of `benchmarks.sft_step`, started by it in a process of its own.

    pip install trl==1.16.0
    python -m benchmarks.sft_trl --policy FOLDER

Made as quick as TRL offers for pictures (it neither packs nor unpads them): bf16 weights, LoRA by peft on the same
layers, its fused output layer, the fastest attention that transformers finds installed, Liger's kernels where they are,
pictures prepared in four processes. A step is one pass, without gradient accumulation, so that it ends in time; each
variant's first warms up. Prints a JSON object per line.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.grpo_job import GIB
from benchmarks.grpo_trl import fastest_attention
from benchmarks.sft_job import TINY, SFTJob
from veason.command_line import HelpFormatter, parse_arguments
from verl.models.families import load_family
from verl.models.lora import LoraOptions

READERS = 4
EXAMPLES = 4096


@dataclass(frozen=True)
class TRLVariant:
    """How TRL is set: Liger's kernels, gradient checkpointing, sequences of a pass (and of an optimizer step)."""

    liger: bool
    checkpointing: bool
    sequences: int

    def __str__(self) -> str:
        kernels = "with Liger's kernels" if self.liger else "without Liger's kernels"
        checkpointing = f"{'' if self.checkpointing else 'no '}gradient checkpointing"
        return f"{kernels}, {checkpointing}, {self.sequences} sequences a pass"


def variants() -> list[TRLVariant]:
    liger = torch.cuda.is_available() and importlib.util.find_spec("liger_kernel") is not None
    passes = ((True, 4), (False, 2))
    return [
        TRLVariant(use, checkpointing, sequences)
        for use in ([True, False] if liger else [False])
        for checkpointing, sequences in passes
    ]


def make_dataset(job: SFTJob) -> Any:
    """Prompts and answers in TRL's form, made by the processes that prepare them."""
    import datasets

    def examples(shards: list[list[int]]) -> Iterator[dict[str, Any]]:
        data = job.data()
        for index in itertools.chain(*shards):
            example = data.example(index, 0)
            answer = [{"role": "assistant", "content": [{"type": "text", "text": example.response}]}]
            yield {"prompt": example.messages, "completion": answer, "images": example.images}

    shards = [list(range(reader, EXAMPLES, READERS)) for reader in range(READERS)]
    return datasets.IterableDataset.from_generator(examples, gen_kwargs={"shards": shards})


def make_trainer(policy: Path, job: SFTJob, variant: TRLVariant, output: str) -> Any:
    from trl import SFTConfig, SFTTrainer

    cuda = torch.cuda.is_available()
    config = SFTConfig(
        output_dir=output,
        max_steps=1 + job.steps,
        per_device_train_batch_size=variant.sequences,
        learning_rate=1e-4,
        lr_scheduler_type="cosine",
        max_length=None,
        bf16=cuda,
        use_cpu=not cuda,
        gradient_checkpointing=variant.checkpointing,
        use_liger_kernel=variant.liger,
        dataloader_num_workers=READERS,
        model_init_kwargs={"attn_implementation": fastest_attention(), "dtype": "bfloat16" if cuda else "float32"},
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    lora = LoraOptions(64, 128, load_family(policy).lora_target_pattern).peft_config()
    return SFTTrainer(str(policy), config, train_dataset=make_dataset(job), peft_config=lora)


def log_step_times(trainer: Any, variant: TRLVariant) -> None:
    """Prints how long each step takes, from the end of the one before."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.last, self.warm = time.perf_counter(), False

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            spent = time.perf_counter() - self.last
            rate = {"samples": variant.sequences / spent} if self.warm else {}
            log(variant=str(variant), step=spent, **rate)
            self.last, self.warm = time.perf_counter(), True

    trainer.add_callback(Clock())


def measure(policy: Path, job: SFTJob, variant: TRLVariant) -> None:
    """Runs one variant and says how fast it was."""
    with tempfile.TemporaryDirectory() as output:
        try:
            trainer = make_trainer(policy, job, variant, output)
            log_step_times(trainer, variant)
            trainer.train()
        except Exception as error:  # what one variant lacks another may do without
            log(variant=str(variant), failed=f"{type(error).__name__}: {str(error)[:300]}")
            return
    peak = torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else None
    log(variant=str(variant), peak_gib=peak, loss=trainer.state.log_history[-1].get("train_loss"))


def log(**metrics: Any) -> None:
    print(json.dumps(metrics), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--steps", type=int, default=2, help="timed, after one that warms up; two at most")
    parser.add_argument("--tiny", action="store_true", help="a tiny job, to check that it runs")
    args = parse_arguments(parser)
    import trl

    job = TINY if args.tiny else SFTJob(steps=min(args.steps, 2))
    log(ready=f"TRL {trl.__version__}, attention {fastest_attention()}")
    for variant in variants():
        measure(args.policy, job, variant)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
