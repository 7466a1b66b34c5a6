"""MeViS v2 (Ding et al., TPAMI 2025): MeViS with more expressions, some of them without a target.

The files are those of MeViS; an expression without a target has empty `obj_id` and `anno_id`. The splits have 27,502
(train), 907 (valid_u) and 2,523 (valid) expressions (henghuiding/MeViS, README.md); a server scores `valid`.

J and F are over all expressions as in the authors' `tools/eval_mevis.py`, where an empty mask about an absent target
scores 1. N-acc. is the share of expressions without a target that get an empty mask in every frame, T-acc. the share of
the others that get a mask in some frame. The challenges' final score is the mean of J&F, N-acc. and T-acc.: the rows of
"MLLM-Assisted Audio VOS: A 3rd Place Report for the MeViS-Audio Track, 8th LSVOS Challenge", Table 1, add up so.
Whether the server's J&F is over all expressions or over those with a target is not published; here it is over all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from veason.data.layouts import MaskDictBenchmark, Targets
from veason.data.mevis import MeViS, has_absent_targets
from veason.data.sample import VideoSample
from veason.metrics.scores import Column, PaperRows, SampleScore, j_and_f, of_type

ABSENT = of_type(2)


def with_target(score: SampleScore) -> bool:
    return not ABSENT(score)


class MeViSv2(MeViS):
    name = "mevis2"
    columns = (
        *j_and_f(),
        Column("N-acc.", "presence", (ABSENT,)),
        Column("T-acc.", "presence", (with_target,)),
        Column("Target J&F", "JF", (with_target,)),
    )
    paper: ClassVar[dict[str, PaperRows]] = {}  # published rows are on the server's splits
    official_size: ClassVar[dict[str, tuple[str, int]]] = {
        "valid_u": ("expressions", 907),
        "valid": ("expressions", 2523),
    }
    note = ""

    @classmethod
    def matches(cls, root: Path) -> bool:
        return super(MeViS, cls).matches(root) and has_absent_targets(root)

    def parse_targets(self, video: str, meta: dict[str, Any], expression: dict[str, Any]) -> Targets:
        _, objects = MaskDictBenchmark.parse_targets(self, video, meta, expression)
        return 2 if self.has_ground_truth and not objects else None, objects

    def score_sample(
        self, sample: VideoSample, pred: np.ndarray, present: np.ndarray, foreground: np.ndarray | None
    ) -> SampleScore:
        score = super().score_sample(sample, pred, present, foreground)
        found = bool((pred[present] != 0).any())
        score.metrics["presence"] = float(present.any() and found == bool(sample.object_ids))
        return score

    @classmethod
    def extra_metrics(cls, scores: Sequence[SampleScore]) -> dict[str, float]:
        absent, present = ([score for score in scores if ABSENT(score) is kind] for kind in (True, False))
        if not absent or not present:
            return {"Final": float("nan")}
        quality = np.mean([score.JF for score in scores])
        correct = [np.mean([score.metrics["presence"] for score in group]) for group in (absent, present)]
        return {"Final": 100 * float(np.mean([quality, *correct]))}
