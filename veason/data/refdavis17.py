"""Ref-DAVIS17 (Khoreva et al., ACCV 2018), in the layout that the field converts it to.

    ROOT/{train,valid}/JPEGImages/<video>/<frame>.jpg
    ROOT/{train,valid}/Annotations/<video>/<frame>.png                 object numbers
    ROOT/{train,valid}/mask_dict.pkl                                   or VISA's masks (see `veason.data.ref_vos`)
    ROOT/meta_expressions/{train,valid}/meta_expressions.json          expressions -> exp_id -> exp, obj_id

Every object is described four times: by two annotators, each after the first frame alone and after the full video.
Expressions stand object by object, so the number of the description is exp_id mod 4. A score is the mean over the four.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.optimize import linear_sum_assignment

from veason.data.annotation import VOID
from veason.data.mask_scores import ReadPrediction, blank_score, mean_present
from veason.data.ref_vos import PICKLED, RefVOSBenchmark
from veason.data.sample import VideoSample
from veason.masks import read_mask
from veason.metrics.scores import SampleFilter, SampleScore, j_and_f
from veason.metrics.vos_metrics import boundary_f, jaccard

ANNOTATORS = 4


def _by_annotator(number: int) -> SampleFilter:
    return lambda score: score.annotator == number


class RefDAVIS17(RefVOSBenchmark):
    name = "refdavis17"
    splits: ClassVar[dict[str, str]] = {
        split: f"meta_expressions/{split}/meta_expressions.json" for split in ("valid", "train")
    }
    file_patterns = ("valid/Annotations", f"valid/{PICKLED}")
    columns = j_and_f(*map(_by_annotator, range(ANNOTATORS)))

    @classmethod
    def matches(cls, root: Path) -> bool:
        return super().matches(root) and (root / "meta_expressions").is_dir()

    def read_samples(self) -> Iterator[VideoSample]:
        for sample in super().read_samples():
            if sample.exp_id.isdecimal() and sample.exp_id.isascii():
                yield sample
            else:
                reason = f"the id {sample.exp_id!r} is no number, which tells the annotator"
                self.reject(sample.sample_id, sample.video, f"{self.meta_path}: video {sample.video}: {reason}")

    def annotator(self, sample: VideoSample) -> int:
        """Which of the four descriptions of its object a sample is, 0 to 3."""
        return int(sample.exp_id) % ANNOTATORS

    def score_video(self, samples: Sequence[VideoSample], read: ReadPrediction) -> list[SampleScore]:
        """One video by the field's protocol, for each annotator on its own.

        The annotator's masks are put into one picture (where two claim a pixel, the first object has it), then matched
        to the ground-truth objects one to one for the best mean of J and F, as in DAVIS's unsupervised task; void
        pixels count for nobody, and VISA's masks have none.
        """
        first = samples[0]
        self.checked_masks(first)  # of one size
        if self.pickled is not None:
            void = np.zeros((len(first.frames), first.height, first.width), bool)
        else:
            paths = (self.mask_folder(first) / f"{frame}.png" for frame in first.frames)
            void = np.stack([read_mask(path) == VOID for path in paths])
        scores = []
        for annotator in sorted({self.annotator(sample) for sample in samples}):
            described = [sample for sample in samples if self.annotator(sample) == annotator]
            scores += self._score_annotator(annotator, described, void, read)
        order = {sample.sample_id: position for position, sample in enumerate(samples)}
        return sorted(scores, key=lambda score: order[score.sample_id])

    def _score_annotator(
        self, annotator: int, samples: Sequence[VideoSample], void: np.ndarray, read: ReadPrediction
    ) -> list[SampleScore]:
        chosen = sorted(samples, key=lambda sample: int(sample.object_ids[0]))
        stored, present = zip(*(read(sample) for sample in chosen))
        free, claimed = ~void, []
        for values in stored:
            claimed.append((values != 0) & free)
            free = free & (values == 0)
        true = [(self.masks(sample)[0] != 0) & ~void for sample in chosen]
        j = np.array([[mean_present(jaccard(p, t), on) for t in true] for p, on in zip(claimed, present)])
        f = np.array([[mean_present(boundary_f(p, t), on) for t in true] for p, on in zip(claimed, present)])
        scores = []
        for p, t in zip(*linear_sum_assignment(-(j + f) / 2)):
            score = blank_score(chosen[t])
            score.annotator, score.J, score.F = annotator, float(j[p, t]), float(f[p, t])
            score.missing = int((~present[t]).sum())
            scores.append(score)
        return scores
