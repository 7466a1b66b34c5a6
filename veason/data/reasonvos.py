"""ReasonVOS (Bai et al., NeurIPS 2024): questions about one object, over videos of four sources.

    ROOT/JPEGImages/<video>/<frame>.jpg
    ROOT/meta_expressions.json      videos -> video -> source, frames, expressions [{obj_id, exp_id, exp_text, is_sent}]
    ROOT/Annotations/<source>_<video>_<obj_id>/<frame>.png     ground truth, if it is at hand: not 0 is the object

An exp_id may come again for another object of the same video. The layout is that of the official download
(github.com/showlab/VideoLISA, benchmark_check.py and evaluation/reason_vos); a file meta_expressions_.json, from which
the published evaluation of Veason-R1 reads, is preferred where there is one.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from veason.data.annotation import as_id, as_name
from veason.data.layouts import PngBenchmark, Targets
from veason.data.sample import VideoSample
from veason.errors import DataError
from veason.metrics.scores import PaperRows, paper_table

PUBLISHED = "meta_expressions_.json"  # the name in Veason-R1's multi_gpu_eval_keyframe_sft_mod_reason_vos.py


class ReasonVOS(PngBenchmark):
    name = "reasonvos"
    splits: ClassVar[dict[str, str]] = {"test": "meta_expressions.json"}
    file_patterns = (PUBLISHED, "meta_expressions.json")
    text_key = "exp_text"
    numbered = False
    paper: ClassVar[dict[str, PaperRows]] = dict.fromkeys(
        splits,
        paper_table(
            "J|F|J&F",
            ("VideoLISA-3.8B", 45.1, 49.9, 47.5),
            ("GLUS-7B", 47.5, 52.4, 49.9),
            ("Veason-R1-3B (paper)", 51.8, 58.5, 55.2),
            ("Veason-R1-7B (paper)", 56.0, 63.8, 59.9),
            ("VideoSEG-O3-4B", None, None, 62.9),
            ("AgentRVOS, Qwen3-VL-8B", 65.5, 71.8, 68.6),
            ("AgentRVOS, GPT-5", 73.1, 78.0, 75.5),
        ),
    )
    note = "Rows: Veason-R1 (CVPR 2026); Dmmm1997/VideoSEG-O3, README.md; AgentRVOS (arXiv 2603.23489), training-free."

    official_size: ClassVar[dict[str, tuple[str, int]]] = {"test": ("expressions", 458)}  # arXiv:2409.19603

    @classmethod
    def split_file(cls, root: Path, split: str) -> str:
        return PUBLISHED if (root / PUBLISHED).is_file() else super().split_file(root, split)

    @cached_property
    def has_ground_truth(self) -> bool:
        return (self.root / "Annotations").is_dir()

    def parse_targets(self, video: str, meta: dict[str, Any], expression: dict[str, Any]) -> Targets:
        if "source" not in meta:
            raise DataError("its video has no 'source'")
        source, number = as_name(meta["source"], "its source"), as_id(expression["obj_id"], "its obj_id")
        return 1, (as_name(f"{source}_{video}_{number}", "its folder of masks", folders=True),)

    def sample_prefix(self, video: str, object_ids: tuple[str, ...]) -> str:
        return object_ids[0]

    def mask_folder(self, sample: VideoSample) -> Path:
        return self.root / "Annotations" / sample.object_ids[0]

    def object_mask(self, values: np.ndarray, object_id: str) -> np.ndarray:
        return values != 0
