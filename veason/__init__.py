"""Video reasoning segmentation: the task itself, without an engine to train it.

from veason import Segmenter, VLLMPolicy, build_tracker
"""

from typing import Any

_MODULES = {
    "Segmenter": "veason.inference.segmenter",
    "VLLMPolicy": "veason.inference.vllm_policy",
    "build_tracker": "veason.tracking",
}
__all__ = ["Segmenter", "VLLMPolicy", "build_tracker"]


def __getattr__(name: str) -> Any:
    """Import the names above when they are first used: a data script needs no vLLM."""
    if name not in _MODULES:
        raise AttributeError(f"module 'veason' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
