"""What a trained checkpoint's folder says about itself: its files, its recipe, its evaluations."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from veason.checkpoints import check_complete
from veason.errors import DataError
from veason.files import folder_hash

CHECKPOINT_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model")  # of a Hugging Face checkpoint
# What a reader of a card wants of a training's configuration. Paths are not shown: they are of one machine.
RECIPE = (
    "data.name",
    "data.rollout_batch_size",
    "data.sampled_frames",
    "data.keyframe_resize",
    "worker.actor.optim.lr",
    "worker.actor.global_batch_size",
    "worker.actor.use_kl_loss",
    "worker.actor.kl_loss_coef",
    "worker.actor.model.lora_rank",
    "worker.rollout.n",
    "worker.rollout.temperature",
    "worker.reward.compute_score",
    "algorithm.adv_estimator",
)


@dataclass(frozen=True)
class CheckpointEvaluation:
    """The scores of one run of `eval.evaluate`."""

    benchmark: str  # its name, such as revos
    split: str  # of the benchmark
    samples: int  # how many expressions were scored
    scores: dict[str, float]  # column -> percent
    settings: dict[str, Any]  # of the run's header


@dataclass(frozen=True)
class TrainedCheckpoint:
    """A complete checkpoint in the form of transformers."""

    folder: Path  # of the weights
    files: list[Path]  # what is uploaded, by name
    config: dict[str, Any]  # config.json
    step: int | None = None  # of the training that saved it; None where its folder does not say
    recipe: dict[str, Any] = field(default_factory=dict)  # key -> value of the training's configuration, as in `RECIPE`
    start: str | None = None  # the path or name of the model that the training started from


def read_checkpoint(path: str | Path) -> TrainedCheckpoint:
    """A checkpoint: its own folder, `global_step_N`, or a run's folder (its newest weights). Raises DataError."""
    given = Path(path).expanduser()
    folders = (given, given / "actor" / "huggingface", given / "huggingface")
    folder = next((each for each in folders if (each / "config.json").is_file()), None)
    if folder is None:
        raise DataError(f"no checkpoint at {given}: neither it, actor/huggingface nor huggingface has a config.json")
    folder = folder.resolve()
    if not any(folder.glob("*.safetensors")):
        raise DataError(f"the checkpoint {folder} has no weights: *.safetensors is missing")
    check_complete(folder)
    files = sorted({file for pattern in CHECKPOINT_FILES for file in folder.glob(pattern)})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    state = folder.parents[1] / "trainer.json"  # <run>/global_step_N/actor/huggingface
    if folder.name != "huggingface" or not state.is_file():
        return TrainedCheckpoint(folder, files, config)
    saved = json.loads(state.read_text(encoding="utf-8"))
    found = {key: _value(saved.get("config", {}), key) for key in RECIPE}
    recipe = {key: value for key, value in found.items() if value is not None}
    start = _value(saved.get("config", {}), "worker.actor.model.model_path")
    return TrainedCheckpoint(folder, files, config, saved.get("step"), recipe, start)


def read_evaluation(folder: str | Path, checkpoint: TrainedCheckpoint) -> CheckpointEvaluation:
    """The scores of an evaluation's folder. Raises DataError: it is not scored, or of other weights."""
    folder = Path(folder).expanduser()
    predictions, metrics = folder / "predictions.jsonl", folder / "metrics.json"
    for file, remedy in ((predictions, "name an output_path of eval.evaluate"), (metrics, "run eval.metrics first")):
        if not file.is_file():
            raise DataError(f"{file} is missing: {remedy}")
    try:
        with open(predictions, encoding="utf-8") as lines:
            header = json.loads(lines.readline())["header"]
        content = json.loads(metrics.read_text(encoding="utf-8"))
        scores = {name: cell["value"] for name, cell in content["table"].items() if cell["value"] is not None}
        evaluated, samples = header["model_sha256"], len(content["samples"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} holds no evaluation that can be read ({type(error).__name__}: {error})") from error
    if evaluated != folder_hash(checkpoint.folder):
        raise DataError(f"{folder} is an evaluation of other weights than {checkpoint.folder}")
    return CheckpointEvaluation(content["benchmark"], content["split"] or header["split"], samples, scores, header)


def _value(config: dict[str, Any], key: str) -> Any:
    """A value by its dotted key; None where it is missing."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
