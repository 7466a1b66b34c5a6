"""Video reasoning segmentation: the task itself, without an engine to train it.

from veason import Segmenter, VLLMPolicy, VideoTracker
"""

from typing import Any

_HOMES = {"Segmenter": "veason.pipeline", "VLLMPolicy": "veason.policy", "VideoTracker": "veason.tracking.sam2.tracker"}
__all__ = ["Segmenter", "VLLMPolicy", "VideoTracker"]


def __getattr__(name: str) -> Any:
    """The names above are imported when they are first asked for: a data script needs no SAM 2."""
    if name not in _HOMES:
        raise AttributeError(f"module 'veason' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
