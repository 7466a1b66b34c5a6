"""What a run will do, settled before any model is loaded: the machine, the packages, the checkpoint, the number of
steps.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verl.config import Config, ConfigError
from verl.config.worker_sections import ModelConfig
from verl.trainer.checkpoint import find_checkpoint, read_state

INSTALL = "run `make venv`, or pip install -r requirements.txt"


@dataclass(frozen=True)
class Plan:
    """Attributes:
    steps: training steps of the whole run, resumed ones included.
    updates_per_step: optimizer steps per training step.
    passes: passes over a group per stage: "reference" (the reference model's, and the actor's own where a step has
        several updates) and "update" (forward and backward).
    checkpoint: where the run goes on from; None starts afresh.
    start: steps that the checkpoint already has.
    test_freq, save_freq: every so many steps; -1 is never.
    val_only: nothing is trained.
    workers: in all.
    config: the configuration as plain dictionaries, for the records.
    """

    steps: int
    updates_per_step: int
    passes: dict[str, int]
    checkpoint: Path | None
    start: int
    test_freq: int
    save_freq: int
    val_only: bool
    workers: int
    config: dict[str, Any]

    def validates(self, step: int) -> bool:
        """Whether a validation follows this step: every test_freq steps, and after the last."""
        return self.test_freq > 0 and (step % self.test_freq == 0 or step == self.steps)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows this step: every save_freq steps, and after the last."""
        return step == self.steps or (self.save_freq > 0 and step % self.save_freq == 0)


def make_plan(config: Config, samples: int) -> Plan:
    """Counts steps, finds the checkpoint to go on from, and tells the optimizer's schedule how long it is (`config` is
    filled in).

    Args:
        samples: training samples per episode.

    Raises:
        ConfigError: the data gives no whole batch. CheckpointError: see `find_checkpoint`.
    """
    data, trainer, actor = config.data, config.trainer, config.worker.actor
    steps = trainer.total_episodes * samples // data.rollout_batch_size
    if steps == 0:
        raise ConfigError(
            f"data.rollout_batch_size={data.rollout_batch_size} is more than the {trainer.total_episodes * samples} "
            "prompts of "
            f"trainer.total_episodes={trainer.total_episodes}"
        )
    if trainer.max_steps is not None:
        steps = min(steps, trainer.max_steps)
    updates = actor.ppo_epochs * (data.rollout_batch_size // actor.global_batch_size)
    actor.optim.training_steps = steps * updates
    checkpoint = find_checkpoint(trainer.load_checkpoint_path, trainer.save_checkpoint_path or "")
    return Plan(
        steps=steps,
        updates_per_step=updates,
        passes={
            "reference": int(actor.use_kl_loss and actor.kl_loss_coef != 0) + int(updates > 1),
            "update": actor.ppo_epochs,
        },
        checkpoint=checkpoint,
        start=read_state(checkpoint)["step"] if checkpoint is not None else 0,
        test_freq=trainer.test_freq,
        save_freq=trainer.save_freq,
        val_only=trainer.val_only,
        workers=trainer.nnodes * trainer.n_gpus_per_node,
        config=asdict(config),
    )


def check_machine(config: Config, packages: dict[str, str]) -> None:
    """Settles trainer.device, and refuses a run for which something is missing on this machine, in one line that says
    how to mend it.

    Args:
        packages: import name -> what needs it.

    Raises:
        ConfigError
    """
    import torch  # late: see verl.trainer.main

    for package, purpose in packages.items():
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{package} is not installed ({purpose}): {INSTALL}")
    trainer = config.trainer
    if trainer.device == "auto":
        trainer.device = "cuda" if torch.cuda.is_available() else "cpu"
    one_machine = trainer.nnodes == 1 and "RAY_ADDRESS" not in os.environ  # a cluster's GPUs are Ray's to count
    if trainer.device == "cuda" and one_machine:
        _check_gpus(trainer.n_gpus_per_node)
    _find_model(config.worker.actor.model)


def _check_gpus(wanted: int) -> None:
    import torch

    present = torch.cuda.device_count()
    if present == 0:
        raise ConfigError(
            f"this recipe needs {wanted} CUDA GPU{'s' * (wanted > 1)} and this machine shows none: run it where they "
            "are, "
            "or on the CPU with trainer.device=cpu (config=configs/toy/demo.yaml is sized for that)"
        )
    if present < wanted:
        raise ConfigError(
            f"trainer.n_gpus_per_node={wanted}, but this machine shows {present}: set "
            f"trainer.n_gpus_per_node={present} "
            "(and worker.rollout.tensor_parallel_size to a divisor of it), or widen CUDA_VISIBLE_DEVICES"
        )


def _find_model(model: ModelConfig) -> None:
    """Checks the checkpoint's folder; a hub name becomes the folder of its download."""
    path = model.model_path
    if not path:
        raise ConfigError(
            "worker.actor.model.model_path is not set: add worker.actor.model.model_path=... to the command"
        )
    folder = Path(path)
    if not folder.exists():
        if (
            path.startswith(("/", ".", "~")) or path.count("/") != 1 or folder.parent.exists()
        ):  # a hub name is owner/name
            raise ConfigError(
                f"no checkpoint at worker.actor.model.model_path={path}: fine-tune one (python3 -m verl.trainer.sft) "
                f"or {_DOWNLOAD}"
            )
        model.model_path = _download(path)
        model.tokenizer_path = model.model_path if model.tokenizer_path == path else model.tokenizer_path
        return
    missing = [what for what in ("config.json", "*.safetensors") if not any(folder.glob(what))]
    if missing:
        raise ConfigError(
            f"worker.actor.model.model_path={path} is no Hugging Face checkpoint, it has no "
            f"{' and no '.join(missing)}: {_DOWNLOAD}"
        )


def _download(name: str) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return snapshot_download(name)
    except (OSError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"no checkpoint at worker.actor.model.model_path={name}, neither a folder nor on the hub ({reason}): "
            f"{_DOWNLOAD}"
        ) from error


_DOWNLOAD = "download one (hf download Qwen/Qwen2.5-VL-3B-Instruct --local-dir ...)"
