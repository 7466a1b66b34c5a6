"""What a run asks of this machine, checked before any model is loaded: packages, GPUs, the checkpoint."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from verl.config import Config, ConfigError, override
from verl.models.hub_download import MODEL_PATH_KEY, TOKENIZER_PATH_KEY, is_hub_name, local_model_folder

INSTALL = "run `make venv`, or pip install -r requirements.txt"
SHARDS = "model_world_size_*_rank_*.pt"  # of other verl's, EasyR1's and the published checkpoints
DOWNLOAD = "download one (hf download Qwen/Qwen2.5-VL-3B-Instruct --local-dir ...)"


def resolve_on_machine(config: Config, packages: Mapping[str, str]) -> Config:
    """A copy with the device of trainer.device=auto and the folder of the model's download filled in.

    Args:
        packages: import name -> what needs it.

    Raises:
        ConfigError: something is missing here; one line that says how to get it.
    """
    check_packages(packages)
    return resolve_model(resolve_device(config))


def check_packages(packages: Mapping[str, str]) -> None:
    """Raises ConfigError for a package (import name -> what needs it) that is not installed."""
    for package, purpose in packages.items():
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{package} is not installed ({purpose}): {INSTALL}")


def resolve_device(config: Config) -> Config:
    """A copy with the device of trainer.device=auto. Raises ConfigError for GPUs that are not there."""
    import torch  # here: see verl.trainer.main

    trainer, device = config.trainer, config.trainer.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    one_machine = trainer.nnodes == 1 and "RAY_ADDRESS" not in os.environ  # a cluster's GPUs are Ray's to count
    if device == "cuda" and one_machine:
        _check_gpus(trainer.n_gpus_per_node, torch.cuda.device_count())
    return override(config, {"trainer.device": device})


def resolve_model(config: Config, download: bool = True) -> Config:
    """A copy with the folder of the model's download.

    Args:
        download: get a model of the hub that is not here yet.

    Raises:
        ConfigError: there is no such checkpoint.
    """
    model = config.worker.actor.model
    folder = _find_model(model.model_path, download)
    tokenizer = folder if model.tokenizer_path == model.model_path else model.tokenizer_path
    return override(config, {MODEL_PATH_KEY: folder, TOKENIZER_PATH_KEY: tokenizer})


def _check_gpus(wanted: int, present: int) -> None:
    if present == 0:
        raise ConfigError(
            f"this recipe needs {wanted} CUDA GPU{'s' * (wanted > 1)} and this machine shows none: run it where they "
            "are, or on the CPU with trainer.device=cpu (config=configs/toy/demo.yaml is sized for that)"
        )
    if present < wanted:
        raise ConfigError(
            f"trainer.n_gpus_per_node={wanted}, but this machine shows {present}: set "
            f"trainer.n_gpus_per_node={present} (and worker.rollout.tensor_parallel_size to a divisor of it), or widen "
            "CUDA_VISIBLE_DEVICES"
        )


def _find_model(path: str | None, download: bool) -> str:
    """The checkpoint's folder, which for a hub name is that of its download."""
    if not path:
        raise ConfigError(f"{MODEL_PATH_KEY} is not set: add {MODEL_PATH_KEY}=... to the command")
    folder = Path(path)
    if is_hub_name(path):
        folder = Path(_download(path, download))
    if not folder.exists():
        tune = "fine-tune one (python3 -m verl.trainer.sft)"
        raise ConfigError(f"no checkpoint at {MODEL_PATH_KEY}={path}: {tune} or {DOWNLOAD}")
    missing = [what for what in ("config.json", "*.safetensors") if not any(folder.glob(what))]
    if not missing:
        return str(folder)
    shards = next((place for place in (folder, folder.parent) if any(place.glob(SHARDS))), None)
    if shards is not None:
        merge = f"`python -m verl.merge_shards {shards} --output FOLDER` merges them"
        raise ConfigError(f"{MODEL_PATH_KEY}={path} has no *.safetensors, {shards} holds FSDP shards: {merge}")
    raise ConfigError(
        f"{MODEL_PATH_KEY}={path} is no Hugging Face checkpoint, it has no {' and no '.join(missing)}: {DOWNLOAD}"
    )


def _download(name: str, allowed: bool) -> str:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return local_model_folder(name, allowed)
    except LocalEntryNotFoundError as error:
        if not allowed:
            raise ConfigError(
                f"{MODEL_PATH_KEY}={name} is not downloaded yet: the run would get it from the hub"
            ) from error
        raise _not_found(name, error) from error
    except Exception as error:  # the hub's, the network's, the cache's
        raise _not_found(name, error) from error


def _not_found(name: str, error: Exception) -> ConfigError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    where = f"neither a folder nor on the hub or in its cache ({reason})"
    return ConfigError(f"no checkpoint at {MODEL_PATH_KEY}={name}, {where}: {DOWNLOAD}")
