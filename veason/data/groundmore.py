"""GroundMoRe (Deng et al., CVPR 2025): questions about motion, answered by the object while its action lasts.

    ROOT/test_v2.json                               videos -> video -> questions -> exp_id -> question, answer, obj_id,
                                                    q_type, action_start, action_end ([hh:]mm:ss)
    ROOT/annotations/<video>/images/<frame>.jpg     6 frames per second
    ROOT/annotations/<video>/masks/frame_<index>.png     object numbers; no file where none is in view; the index has
                                                         six digits, or seven in <index>.png

Also read under the names of the authors' script: groundmore_test.json, groundmore_videos. A video's name ends in the
times of the clip, <mmss>_<mmss>. As in that script, 20 evenly spaced frames are scored, and outside the action the true
mask is empty. It takes the frames in the order in which the folder lists them, which is not defined; here they are
sorted. Sources: dengandong/GroundMoRe `evaluate_groundmore.py`; the release's names: Dmmm1997/VideoSEG-O3
`tools/eval/eval_groundmore.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from veason.data.layouts import PngBenchmark
from veason.data.sample import VideoSample
from veason.errors import DataError
from veason.frames import evaluation_frames
from veason.masks import Rle
from veason.metrics.scores import Column, PaperRows, j_and_f, of_category, paper_table

SCORED_FRAMES, FRAMES_PER_SECOND = 20, 6
QUESTIONS = ("Causal", "Sequential", "Counterfactual", "Descriptive")


class GroundMoRe(PngBenchmark):
    name = "groundmore"
    sparse = True
    lists_every_frame = False
    text_key = "question"
    splits: ClassVar[dict[str, str]] = {"test": "test_v2.json"}
    file_patterns = ("test_v2.json", "groundmore_test.json")
    columns = (*j_and_f(), *(Column(f"{kind} J&F", "JF", (of_category(kind),)) for kind in QUESTIONS))
    paper: ClassVar[dict[str, PaperRows]] = {
        "test": paper_table(
            "J&F|J|F|Causal J&F|Sequential J&F|Counterfactual J&F|Descriptive J&F",
            ("LISA-13B", 6.47, 6.30, 6.65, 7.60, 5.21, 4.96, 7.77),
            ("VISA", 5.31, 4.72, 5.90, 6.07, 4.48, 5.10, 5.39),
            ("SgMg", 17.49, 15.81, 19.16, 18.94, 15.46, 16.35, 18.77),
            ("SeViLA + SgMg", 22.34, 20.92, 23.75, 21.60, 21.68, 20.46, 24.53),
            ("MoRA", 23.13, 22.79, 23.46, 21.62, 22.43, 26.37, 22.63),
            ("VideoSEG-O3-4B", 31.9),
        )
    }
    note = "Rows (zero-shot): dengandong/GroundMoRe, `assets/quant_mgvr_v2.png`; Dmmm1997/VideoSEG-O3, README.md."

    def read_videos(self) -> dict[str, dict[str, Any]]:
        self._positions: dict[str, dict[str, int]] = {}  # video -> frame -> its position in the whole video
        self._actions: dict[str, tuple[int, int]] = {}  # sample_id -> first and last position of the action
        other, videos = self.root / "groundmore_test.json", {}
        if not self.meta_path.is_file() and other.is_file():
            self.meta_path = other
        for video, meta in super().read_videos().items():
            names = self._frame_names(video)
            self._positions[video] = {name: position for position, name in enumerate(names)}
            for exp_id, question in meta["questions"].items():
                self._actions[f"{video}/{exp_id}"] = self._action(video, exp_id, question)
            frames = [names[position] for position in evaluation_frames(len(names), SCORED_FRAMES)]
            videos[video] = {"frames": frames, "expressions": meta["questions"]}
        return videos

    def _frame_names(self, video: str) -> list[str]:
        folder = self.frame_folder(video)
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        if not files:
            raise DataError(f"{self.name} {video}: frame folder is missing or empty: {folder}")
        self.suffix = files[0].suffix  # type: ignore[misc]
        return [file.stem for file in files if file.suffix == self.suffix]

    def _action(self, video: str, exp_id: str, question: dict[str, Any]) -> tuple[int, int]:
        where = f"{self.meta_path}: video {video}, question {exp_id}"
        try:
            clip = video[-9:-7] + ":" + video[-7:-5]
            start, first, after = (seconds(text) for text in (clip, question["action_start"], question["action_end"]))
        except (KeyError, ValueError) as error:
            raise DataError(f"{where} has no times of its clip and its action ({error})") from error
        return (first - start) * FRAMES_PER_SECOND, (after - start) * FRAMES_PER_SECOND - 1

    def frame_folder(self, video: str) -> Path:
        return self._video_folder(video) / "images"

    def mask_folder(self, sample: VideoSample) -> Path:
        return self._video_folder(sample.video) / "masks"

    def _video_folder(self, video: str) -> Path:
        released = self.root / "annotations"
        return (released if released.is_dir() else self.root / "groundmore_videos") / video

    def mask_path(self, sample: VideoSample, index: int) -> Path:
        position, folder = self._position(sample, index), self.mask_folder(sample)
        other = folder / f"{position:07d}.png"
        return other if other.is_file() else folder / f"frame_{position:06d}.png"

    def _position(self, sample: VideoSample, index: int) -> int:
        return self._positions[sample.video][sample.frames[index]]

    def targets(
        self, video: str, meta: dict[str, Any], expression: dict[str, Any]
    ) -> tuple[int | None, tuple[str, ...]]:
        return 1, (str(expression["obj_id"]),)

    def category(self, expression: dict[str, Any]) -> str | None:
        return expression["q_type"]

    def tracks(self, sample: VideoSample, frame_indices: Sequence[int]) -> list[list[Rle | None]]:
        first, last = self._actions[sample.sample_id]
        acting = [index for index in frame_indices if first <= self._position(sample, index) <= last]
        read = [dict(zip(acting, track)) for track in super().tracks(sample, acting)]
        return [[track.get(index) for index in frame_indices] for track in read]


def seconds(text: str) -> int:
    """Seconds of a time written as [[hh:]mm:]ss. Raises ValueError for anything else."""
    total = 0
    for part in text.split(":"):
        total = 60 * total + int(part)
    return total
