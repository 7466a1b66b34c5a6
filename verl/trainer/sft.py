"""Supervised fine-tuning on the answers of a data set: the workers, the packing and the checkpoints of GRPO, without
rollouts and rewards.

    python3 -m verl.trainer.sft config=configs/sft_qwen2_5_vl_3b_lora.yaml
    python3 -m verl.trainer.sft config=configs/toy/sft_demo.yaml trainer.load_checkpoint_path=latest

Prompts carry no loss, only the answers do. `sft.generate` also lets the policy answer some held-out prompts, scored by
`worker.reward.compute_score`, which should be a rule that needs no SAM 2 (no_sam2).
"""

from __future__ import annotations

import sys
from collections import deque
from functools import cached_property
from typing import ClassVar

from verl.config import Config
from verl.protocol import GroupRequest
from verl.trainer.loop import Loop
from verl.trainer.step_metrics import group_metrics


class SFT(Loop):
    """One step is one optimizer step on `data.rollout_batch_size` examples."""

    learns_responses: ClassVar[bool] = True

    def step(self) -> dict[str, float]:
        order, size = self.prompts.order, self.config.data.rollout_batch_size
        for _ in range(len(self.coming), min(self.plan.steps - self.done, 1 + max(1, self.config.sft.num_workers))):
            position = order.position + len(self.coming) * size
            requests = [order.request(place) for place in range(position, position + size)]
            self.coming.append(self.share(requests, self.prompts.lengths))
            self.engine.read_ahead(self.coming[-1])  # coming steps' examples are read while this one computes
        order.draw(size)
        return self.engine.fine_tune(self.coming.popleft())

    @cached_property
    def coming(self) -> deque[list[list[GroupRequest]]]:
        """The shares of the steps that are being read."""
        return deque()

    def validate(self, step: int) -> dict[str, float]:
        """The loss on the held-out answers and, on request, the score of generated ones."""
        held_out, lengths = self.prompts.validation, self.prompts.val_lengths
        figures: dict[str, float] = {}
        if held_out:
            with self.clock("validation loss"):
                loss = self.engine.evaluate_loss(self.share(held_out, lengths))
            figures = {name if name.startswith("memory/") else f"val/{name}": value for name, value in loss.items()}
        asked = held_out[: self.config.sft.generate]
        if asked:
            with self.clock("validation answers"):
                self.engine.rollout(self.share(asked, lengths), validation=True)
                groups = self.engine.score([request.uid for request in asked])
            self.engine.drop([request.uid for request in asked])
            self.run_log.generations(step, groups)
            figures |= group_metrics(groups, "val/")
        return figures


def train(config: Config) -> None:
    """Fine-tunes as configured."""
    from verl.trainer.main import check_reward, compose, run_loop

    actor = config.worker.actor
    actor.global_batch_size, actor.ppo_epochs = (
        config.data.rollout_batch_size,
        1,
    )  # a step is one update, which the schedule counts
    actor.use_kl_loss = False  # so that generating for validation loads no reference model
    generates = config.sft.generate > 0
    packages = {"vllm": "sft.generate"} | check_reward(config) if generates else {}
    run_loop(config, SFT, compose(config), packages, rollouts=generates, held_out=config.sft.val_ratio)


if __name__ == "__main__":
    from verl.trainer.main import run

    sys.exit(run(sys.argv[1:], "verl.trainer.sft"))  # by its name: workers must find what they unpickle
