"""Ref-SAV (Yuan et al., Sa2VA, ICCV 2025), the validation set: long and short descriptions of objects in SA-V videos.

    ROOT/videos/<video>/<frame>.jpg
    ROOT/meta_expressions_valid.json     videos -> video -> frames, height, width, expressions
                                         expressions -> exp_id -> exp, obj_id, anno_id, type_id (0 long, 1 short)
    ROOT/mask_dict.json                  anno_id -> one RLE or null per frame of the video

Source: bytedance/Sa2VA `tools/eval/eval_ref_sav.py`, `projects/sa2va/evaluation/sa2va_eval_ref_vos.py`. The training
set is a list of objects in SA-V's own MP4 files, not in this layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from veason.data.layouts import MaskDictBenchmark
from veason.metrics.scores import PaperRows, j_and_f, of_type, paper_table

LONG, SHORT = of_type(0), of_type(1)


class RefSAV(MaskDictBenchmark):
    name = "ref_sav"
    splits: ClassVar[dict[str, str]] = {"valid": "meta_expressions_valid.json"}
    file_patterns = ("meta_expressions_valid.json",)
    columns = (
        *j_and_f(LONG, prefix="Long "),
        *j_and_f(SHORT, prefix="Short "),
        *j_and_f(LONG, SHORT, prefix="Overall "),  # the mean of the two types' means
    )
    paper: ClassVar[dict[str, PaperRows]] = {
        "valid": paper_table(
            "Long J|Long F|Long J&F|Short J|Short F|Short J&F|Overall J|Overall F|Overall J&F",
            ("UniRef++", 14.1, 10.8, 12.5, 9.0, 8.2, 8.6, 11.6, 9.5, 10.5),
            ("VISA", 16.1, 12.2, 14.1, 12.3, 9.6, 9.2, 13.2, 11.3, 11.8),
            ("Sa2VA-8B", 47.7, 50.9, 49.3, 31.5, 35.0, 33.3, 39.6, 43.0, 41.3),
            ("Sa2VA-8B†", 57.0, 60.4, 58.7, 39.5, 42.9, 41.2, 48.3, 51.7, 50.0),
            ("VideoSEG-O3-4B†", *[None] * 8, 65.5),
        )
    }
    note = "Rows: Sa2VA (arXiv 2501.04001v1), Table 5; Dmmm1997/VideoSEG-O3, README.md. † trained on Ref-SAV."

    def frame_folder(self, video: str) -> Path:
        return self.folder / "videos" / video
