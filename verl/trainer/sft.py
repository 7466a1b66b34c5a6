"""Supervised fine-tuning on the responses of a data set: the workers, the packing and the checkpoints of GRPO, without
rollouts and rewards.

    python3 -m verl.trainer.sft config=configs/sft_qwen2_5_vl_3b_lora.yaml
    python3 -m verl.trainer.sft config=configs/toy/sft_demo.yaml trainer.resume_mode=auto

Prompts carry no loss, only the responses do. With `sft.val_generations` the policy also answers some held-out prompts,
scored by `worker.reward.compute_score`, which should be a rule without a tracker (no_sam2).
"""

from __future__ import annotations

import sys
from collections import deque
from functools import cached_property
from typing import ClassVar

from verl.config import Config
from verl.config.derived_values import sft_config
from verl.metric_types import Metrics
from verl.protocol import GroupRequest
from verl.trainer.step_metrics import group_metrics
from verl.trainer.training_loop import TrainingLoop


class SFT(TrainingLoop):
    """One step is one optimizer step on `data.rollout_batch_size` examples."""

    is_supervised: ClassVar[bool] = True

    def step(self) -> Metrics:
        sampler, size = self.prompts.sampler, self.config.data.rollout_batch_size
        coming = min(self.plan.steps - self.global_step, 1 + max(1, self.config.sft.num_workers))
        for _ in range(len(self.prefetched), coming):
            start = sampler.position + len(self.prefetched) * size
            requests = [sampler.request(position) for position in range(start, start + size)]
            self.prefetched.append(self.balance_over_replicas(requests, self.prompts.lengths))
            self.backend.prefetch_sft_batch(self.prefetched[-1])  # they are loaded while this one computes
        sampler.draw(size)
        return self.check_update(self.backend.fine_tune(self.prefetched.popleft()))

    @cached_property
    def prefetched(self) -> deque[list[list[GroupRequest]]]:
        """The batches of this and coming steps that are being loaded."""
        return deque()

    def validate(self, step: int) -> Metrics:
        """The loss on the held-out responses and, on request, the score of generated ones."""
        requests, lengths = self.prompts.validation, self.prompts.val_lengths
        metrics: Metrics = {}
        if requests:
            with self.timer("validation loss"):
                losses = self.backend.evaluate_loss(self.balance_over_replicas(requests, lengths))
            metrics = {name if name.startswith("memory/") else f"val/{name}": value for name, value in losses.items()}
        asked = requests[: self.config.sft.val_generations]
        if asked:
            uids = [request.uid for request in asked]
            with self.timer("validation answers"):
                self.backend.rollout(self.balance_over_replicas(asked, lengths), validation=True)
                groups = self.backend.collect_scores(uids)
            self.backend.drop(uids)
            self.run_log.val_generations(step, groups)
            if self.plan.log_rollouts_freq > 0:
                self.log_rollouts(step, groups)
            metrics |= group_metrics(groups, "val/")
        return metrics


def train(config: Config) -> None:
    """Fine-tunes as configured."""
    from verl.trainer.main import check_reward, run_loop

    config = sft_config(config)
    needs_rollout = config.sft.val_generations > 0
    packages = {"vllm": "sft.val_generations"} | check_reward(config) if needs_rollout else {}
    run_loop(config, SFT, packages, needs_rollout, val_ratio=config.sft.val_ratio)


if __name__ == "__main__":
    from verl.trainer.main import run

    sys.exit(run(sys.argv[1:], "verl.trainer.sft"))  # by its name: workers must find what they unpickle
