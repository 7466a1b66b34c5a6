"""The weights that can be had: base policies, the authors' Veason-R1, trackers, and the toy models of this repository.

Parameters are counted on models of that configuration; licences are those that the model cards declare. docs/models.md
has memory and times that were measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from veason.toy_assets import TOY_POLICY, TOY_TRACKER

AUTHORS = "github.com/SitongGong/Veason-R1"
BYTES = {"policy": 2, "tracker": 4}  # of a parameter in memory: bf16, fp32
GIB = 1 << 30


@dataclass(frozen=True)
class WeightsInfo:
    """Weights of a policy or a tracker."""

    name: str  # for people
    role: str  # policy or tracker
    source: str  # the name on the hub, a folder of this repository, or where the link is
    parameters: float  # how many, in millions
    licence: str  # as its model card declares it
    note: str = ""  # what to know before choosing it

    @property
    def memory(self) -> float:
        """GiB that the weights take when they are loaded: policies in bf16, trackers in fp32."""
        return self.parameters * 1e6 * BYTES[self.role] / GIB

    @property
    def on_hub(self) -> bool:
        return "/" in self.source and self.source != AUTHORS and not self.source.startswith("weights/")


_QWEN = "not trained for this: SFT first"
KNOWN_WEIGHTS = (
    WeightsInfo("toy policy", "policy", "weights/toy_policy", 6.7, "Apache-2.0", "knows drawn shapes only"),
    WeightsInfo("Qwen2.5-VL-3B", "policy", "Qwen/Qwen2.5-VL-3B-Instruct", 3754.6, "Qwen research", _QWEN),
    WeightsInfo("Qwen2.5-VL-7B", "policy", "Qwen/Qwen2.5-VL-7B-Instruct", 8292.2, "Apache-2.0", _QWEN),
    WeightsInfo("Qwen3-VL-2B", "policy", "Qwen/Qwen3-VL-2B-Instruct", 2127.5, "Apache-2.0", _QWEN),
    WeightsInfo("Qwen3-VL-4B", "policy", "Qwen/Qwen3-VL-4B-Instruct", 4437.8, "Apache-2.0", _QWEN),
    WeightsInfo("Qwen3-VL-8B", "policy", "Qwen/Qwen3-VL-8B-Instruct", 8767.1, "Apache-2.0", _QWEN),
    WeightsInfo("Veason-R1-3B", "policy", AUTHORS, 3754.6, "the authors'", "docs/released_weights.md"),
    WeightsInfo("Veason-R1-7B", "policy", AUTHORS, 8292.2, "the authors'", "docs/released_weights.md"),
    WeightsInfo("toy tracker", "tracker", "weights/toy_tracker", 4.2, "Apache-2.0", "for drawn shapes"),
    WeightsInfo("SAM 2.1 tiny", "tracker", "facebook/sam2.1-hiera-tiny", 39.0, "Apache-2.0"),
    WeightsInfo("SAM 2.1 small", "tracker", "facebook/sam2.1-hiera-small", 46.1, "Apache-2.0"),
    WeightsInfo("SAM 2.1 base plus", "tracker", "facebook/sam2.1-hiera-base-plus", 80.9, "Apache-2.0"),
    WeightsInfo("SAM 2.1 large", "tracker", "facebook/sam2.1-hiera-large", 224.4, "Apache-2.0", "the recipe's"),
)
SHIPPED = {"weights/toy_policy": TOY_POLICY, "weights/toy_tracker": TOY_TRACKER}


def is_downloaded(weights: WeightsInfo, cached: Mapping[str, int]) -> bool | None:
    """Whether weights are in the repository or among those `cached` (name -> bytes); None where nothing tells."""
    if weights.source in SHIPPED:
        return SHIPPED[weights.source].is_dir()
    return weights.source in cached if weights.on_hub else None


def weights_table(cached: Mapping[str, int], known: Iterable[WeightsInfo] = KNOWN_WEIGHTS) -> list[str]:
    """The list in lines of equal columns."""
    rows = [("weights", "where from", "parameters", "GiB", "licence", "here", "")]
    for each in known:
        here = {True: "yes", False: "no", None: "?"}[is_downloaded(each, cached)]
        count = f"{each.parameters / 1000:.2f} billion" if each.parameters >= 1000 else f"{each.parameters:g} million"
        rows.append((each.name, each.source, count, f"{each.memory:.2f}", each.licence, here, each.note))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def cached_models(cache: Path | None = None) -> dict[str, int]:
    """The models in the hub's cache, or in another folder, and their bytes."""
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    try:
        repositories = scan_cache_dir(cache or constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return {}
    return {each.repo_id: each.size_on_disk for each in repositories if each.repo_type == "model"}
