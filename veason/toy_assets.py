"""What the repository ships to try the programs with: toy models, and a toy clip."""

from __future__ import annotations

from pathlib import Path

from veason.errors import DataError

ROOT = Path(__file__).parents[1]
TOY_POLICY, TOY_TRACKER = ROOT / "weights" / "toy_policy", ROOT / "weights" / "toy_tracker"
# made by veason.toy: write_clip(TOY_CLIP, make_video("example/clip_0010", seed=7, frames=24).frames, fps=4)
TOY_CLIP = ROOT / "examples" / "toy_clip.mp4"
TOY_EXPRESSION = "the shape that is in view all the time"
TOY_MAX_TOKENS = 384  # of an answer of the toy policy
TOY_NOTICE = "no model is given: the toy models of the repository, which know drawn shapes only"
TOY_SENTENCE = "Made by the toy models, which know drawn shapes only: in other videos they find nothing sensible."


def toy_tracker_options() -> dict[str, str]:
    """The options of the sam2 tracker for the toy tracker's files."""
    return {"config": str(TOY_TRACKER / "sam2_tiny.yaml"), "checkpoint": str(TOY_TRACKER / "sam2_tiny.safetensors")}


def check_shipped(*paths: Path) -> None:
    """Refuse to go on without files that a clone of the repository has and an installed package has not."""
    for path in paths:
        if not path.exists():
            raise DataError(
                f"{path} is missing: a clone of the repository has it; give a model and a video of your own"
            )
