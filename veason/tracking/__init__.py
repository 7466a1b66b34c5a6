"""Trackers by name. Your own needs no entry here: give its `package.module:name` path.

The same two options everywhere: `worker.reward.tracker` and `worker.reward.tracker_options` in training, `tracker=` and
`tracker_options=` in the evaluation, `--tracker` and `--tracker_options` in the prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from veason.errors import DataError
from veason.registry import check_arguments, load_by_name

if TYPE_CHECKING:
    import torch

    from veason.tracking.base import Tracker

TRACKERS = {
    "sam2": "veason.tracking.sam2.tracker:Sam2Tracker",
    "sam3": "veason.tracking.sam3.tracker:Sam3Tracker",
    "sam3_text": "veason.tracking.sam3_text.tracker:Sam3TextTracker",
    "transformers": "veason.tracking.transformers.tracker:TransformersTracker",
}
PACKAGES = {"sam2": ("sam2",), "sam3": ("sam2",)}  # what a tracker needs to be installed, by import name
DEFAULT = "sam2"


def build_tracker(
    name: str = DEFAULT, device: str | torch.device = "cpu", max_frames: int | None = None, **options: Any
) -> Tracker:
    """Load a tracker.

    Args:
        name: a name of `TRACKERS`, or `package.module:name` of a `BaseTracker` class or of a function
            `(device, **options) -> Tracker`.
        max_frames: the longest clip that is tracked as a whole; the tracker's own choice when None.
        options: the tracker's own; for sam2 `config` and `checkpoint` (see `Sam2Tracker.from_files`).

    Raises:
        DataError: no such tracker, or options that it refuses.
    """
    check_tracker(name, options)
    found = load_by_name(name, TRACKERS, "tracker")
    tracker = getattr(found, "from_options", found)(device, **supported_options(name, options))
    if max_frames is not None:
        tracker.max_frames = max_frames
    return tracker


def check_tracker(name: str, options: Mapping[str, Any]) -> None:
    """Refuse an unknown tracker, or options that it does not take, before anything is loaded. Raises DataError."""
    found = load_by_name(name, TRACKERS, "tracker")
    own = supported_options(name, options)
    if hasattr(found, "check_options"):
        found.check_options(**own)
    elif callable(found):
        check_arguments(found, own, "tracker_options", given=("device",))


def takes_text(name: str) -> bool:
    """Whether a tracker finds what the expression names by itself, without a policy. Raises DataError: no such one."""
    return bool(getattr(load_by_name(name, TRACKERS, "tracker"), "takes_text", False))


def check_takes_boxes(name: str, what: str) -> None:
    """Refuse a tracker that takes no boxes. Raises DataError, which names `what` needs them."""
    if takes_text(name):
        raise DataError(f"tracker: {name} finds objects by the expression and takes no boxes: {what}")


def check_takes_points(name: str, what: str) -> None:
    """Refuse a tracker class that takes no points. Raises DataError, which names `what` needs them."""
    found = load_by_name(name, TRACKERS, "tracker")
    if isinstance(found, type) and not getattr(found, "takes_points", False):
        raise DataError(f"tracker: {name} takes boxes on one keyframe and no points: {what}")


def supported_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A tracker's options; `sam2_config` and `sam2_checkpoint`, the published names, belong to sam2 alone."""
    published = {"sam2_config": "config", "sam2_checkpoint": "checkpoint"}
    if name != "sam2":
        return {key: value for key, value in options.items() if key not in published}
    renamed = {published.get(key, key): value for key, value in options.items() if key in published and value}
    return renamed | {key: value for key, value in options.items() if key not in published}
