"""Supervised fine-tuning on the answers of a data set: the workers, the packing and the checkpoints of GRPO, without rollouts and rewards.

    python3 -m verl.trainer.sft config=configs/sft_qwen2_5_vl_3b_lora.yaml
    python3 -m verl.trainer.sft config=configs/sft_demo.yaml trainer.load_checkpoint_path=latest

Prompts carry no loss, only the answers do. `sft.generate` also lets the policy answer some held-out prompts, scored by
`worker.reward.compute_score`, which should be a rule that needs no SAM 2 (no_sam2).
"""

from __future__ import annotations

import sys

from verl.config import Config
from verl.trainer.data_order import batches
from verl.trainer.loop import Loop
from verl.trainer.metrics import group_metrics


class SFT(Loop):
    """One step is one optimizer step on `data.rollout_batch_size` examples."""

    def step(self) -> dict[str, float]:
        order, size = self.prompts.order, self.config.data.rollout_batch_size
        left = self.plan.steps * size - order.position
        now, *coming = (self.share(part, self.prompts.lengths) for part in batches(order.peek(min(2 * size, left)), size))
        for shares in (now, *coming):  # the next step's examples are read while this one computes
            self.engine.read_ahead(shares)
        order.draw(size)
        return self.engine.fine_tune(now)

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

    generates = config.sft.generate > 0
    packages = {"vllm": "sft.generate"} | check_reward(config) if generates else {}
    run_loop(config, SFT, compose(config), packages, rollouts=generates, held_out=config.sft.val_ratio)


if __name__ == "__main__":
    from verl.trainer.main import run

    sys.exit(run(sys.argv[1:], "verl.trainer.sft"))  # by its name: workers must find what they unpickle
