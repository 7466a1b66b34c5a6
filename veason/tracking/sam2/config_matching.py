"""Whether SAM 2 weights are those of a model file, told from names and shapes alone: nothing is loaded or computed."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from veason.errors import DataError
from veason.tracking.sam2.loading import find_config, shipped_configs

Shapes = Mapping[str, tuple[int, ...]]  # name of a tensor -> its shape
FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)
SHOWN = 3  # differing tensors that a message names


def check_weights_match(config: str | os.PathLike, checkpoint: str | os.PathLike) -> None:
    """Refuse weights that are not of the model that a file describes.

    Raises:
        DataError: in one line that names both, what differs, and the model file of the sam2 package that would fit.
    """
    wanted, found = model_shapes(find_config(config)), weight_shapes(checkpoint)
    differing = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    if not differing:
        return
    described = "; ".join(
        f"{name} {list(found[name]) if name in found else 'is missing'}"
        + (f" instead of {list(wanted[name])}" if name in wanted and name in found else "")
        + ("" if name in wanted else " is not of the model")
        for name in differing[:SHOWN]
    )
    fitting = matching_config(found)
    advice = f"; these weights fit sam2_config={fitting}" if fitting else ""
    raise DataError(
        f"sam2_checkpoint={checkpoint} does not fit sam2_config={config}: {len(differing)} tensors differ "
        f"({described}){advice}"
    )


def infer_config(checkpoint: str | os.PathLike) -> str:
    """The model file of the sam2 package that weights belong to. Raises DataError: there is none, or no weights."""
    fitting = matching_config(weight_shapes(checkpoint))
    if fitting is None:
        raise DataError(
            f"sam2_checkpoint={checkpoint} fits no model file of the sam2 package; give its own as sam2_config"
        )
    return fitting


def matching_config(found: Shapes) -> str | None:
    """The name of the first model file inside the sam2 package whose tensors have these names and shapes."""
    return next((name for name in shipped_configs() if model_shapes(find_config(name)) == dict(found)), None)


class OnMetaDevice(TorchFunctionMode):
    """Tensors made by the factories of layers have no values; the few that sam2 reads while it builds a model do."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FACTORIES and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@lru_cache
def model_shapes(config: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of the model that a file describes. Raises DataError: no SAM 2 model."""
    from hydra.errors import HydraException
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        settings = OmegaConf.load(config)
        with OnMetaDevice():
            model: Any = instantiate(settings.model, _recursive_=True)
        return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    except (HydraException, OmegaConfBaseException, YAMLError, AttributeError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"sam2_config={config} describes no SAM 2 model ({reason})") from error


def weight_shapes(checkpoint: str | os.PathLike) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a file, whose values are not read. Raises DataError: no weights."""
    path = Path(checkpoint)
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "pt") as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        state = torch.load(path, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(path))
        state = state.get("model", state)
        return {name: tuple(tensor.shape) for name, tensor in state.items()}
    except Exception as error:  # the libraries' own kinds are many: pickle, zip, safetensors, OSError
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"sam2_checkpoint={path} holds no weights ({type(error).__name__}: {reason})") from error
