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

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from veason.data.annotation import as_mapping, as_name, as_names, as_object_number, shorten
from veason.data.layouts import PngBenchmark, Targets
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

    @classmethod
    def split_file(cls, root: Path, split: str) -> str:
        released = super().split_file(root, split)
        return released if (root / released).is_file() else "groundmore_test.json"

    def read_videos(self) -> dict[str, dict[str, Any]]:
        self._positions: dict[str, dict[str, int]] = {}  # video -> frame -> its position in the whole video
        self._questions: dict[str, Mapping[str, Any]] = {}  # video -> exp_id -> question
        videos = {}
        for video, meta in super().read_videos().items():
            try:
                names = self._frame_names(as_name(video, "its name"))
                questions = as_mapping(as_mapping(meta, "its entry").get("questions"), "its list of questions")
            except DataError as error:
                self.reject(video, video, f"{self.meta_path}: video {video}: {error}")
                continue
            self._questions[video] = questions
            self._positions[video] = {name: position for position, name in enumerate(names)}
            frames = [names[position] for position in evaluation_frames(len(names), SCORED_FRAMES)]
            videos[video] = {"frames": frames, "expressions": dict(questions)}
        return videos

    def _frame_names(self, video: str) -> tuple[str, ...]:
        folder = self.frame_folder(video)
        files = [path for path in folder.iterdir() if path.suffix == self.suffix] if folder.is_dir() else []
        if not files:
            raise DataError(f"frame folder is missing or has no {self.suffix}: {folder}")
        return as_names([file.stem for file in files], "its frames")

    def _read_action(self, video: str, question: dict[str, Any]) -> tuple[int, int]:
        """The first and the last position of a question's action in the video."""
        try:
            clip = parse_seconds(f"{video[-9:-7]}:{video[-7:-5]}")
            first, after = parse_seconds(question["action_start"]), parse_seconds(question["action_end"])
        except (ValueError, AttributeError) as error:
            raise DataError(f"its video's name and its action have no times ({error})") from error
        return (first - clip) * FRAMES_PER_SECOND, (after - clip) * FRAMES_PER_SECOND - 1

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

    def parse_targets(self, video: str, meta: dict[str, Any], expression: dict[str, Any]) -> Targets:
        self._read_action(video, expression)
        return 1, (as_object_number(expression["obj_id"], "its obj_id"),)

    def category(self, expression: dict[str, Any]) -> str | None:
        if expression["q_type"] not in QUESTIONS:
            raise DataError(f"its q_type is {shorten(expression['q_type'])}; it can be {', '.join(QUESTIONS)}")
        return expression["q_type"]

    def build_index(self) -> None:
        """Nothing: a PNG is named by its position in the whole video, and few of them are scored."""

    def read_masks(self, sample: VideoSample, frame_indices: Sequence[int]) -> list[list[Rle | None]]:
        first, last = self._read_action(sample.video, self._questions[sample.video][sample.exp_id])
        acting = [index for index in frame_indices if first <= self._position(sample, index) <= last]
        read = [dict(zip(acting, track)) for track in super().read_masks(sample, acting)]
        return [[track.get(index) for index in frame_indices] for track in read]


def parse_seconds(text: str) -> int:
    """Seconds of a time written as [[hh:]mm:]ss. Raises ValueError for anything else."""
    total = 0
    for part in text.split(":"):
        total = 60 * total + int(part)
    return total
