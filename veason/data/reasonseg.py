"""ReasonSeg (Lai et al., LISA, CVPR 2024): questions about one image, which is a clip of one frame here.

    ROOT/{train,val,test}/<image>.jpg
    ROOT/{train,val,test}/<image>.json     text [...], is_sentence, shapes [{label, points}]

A shape is a polygon with the label target, ignore or flag (not used). Larger ones are drawn first, a later one
over an earlier one. Pixels of ignored regions count for nobody. Each target polygon is one object. Evaluation asks
the first text of an image, training all. Source: dvlab-research/LISA `utils/data_processing.py`, `utils/dataset.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from veason import masks
from veason.data.annotation import as_list, as_mapping, shorten
from veason.data.base import VideoBenchmark
from veason.data.mask_scores import score_masks
from veason.data.sample import VideoSample
from veason.errors import DataError, MissingFileError
from veason.files import check_file
from veason.frames import MAX_SIDE, frame_size
from veason.masks import Rle
from veason.metrics.image_iou import IGNORED, image_iou, total_iou
from veason.metrics.scores import Column, PaperRows, SampleScore, every_sample, of_category, paper_table
from veason.video.natural_order import natural_key

LENGTHS = {"Short": of_category("short"), "Long": of_category("long")}  # of the queries, as the paper splits them


class ReasonSeg(VideoBenchmark):
    name = "reasonseg"
    masks_validated = True
    lists_every_frame = False  # the images of a split share a folder
    splits: ClassVar[dict[str, str]] = {split: split for split in ("val", "test", "train")}
    columns = (
        Column("gIoU", "gIoU", (every_sample,)),
        *(Column(f"{title} gIoU", "gIoU", (group,)) for title, group in LENGTHS.items()),
    )
    paper: ClassVar[dict[str, PaperRows]] = {
        "val": paper_table(
            "gIoU|cIoU",
            ("LISA-7B-LLaVA1.5", 53.6, 52.3),
            ("LISA-13B-LLaVA1.5", 57.7, 60.3),
            ("Seg-Zero-3B", 62.6, 58.5),
            ("Seg-Zero-7B", 62.6, 62.0),
        ),
        "test": paper_table(
            "gIoU|cIoU",
            ("LISA-7B-LLaVA1.5", 48.7, 48.8),
            ("LISA-13B-LLaVA1.5", 53.8, 50.8),
            ("Seg-Zero-3B", 56.1, 48.6),
            ("Seg-Zero-7B", 57.5, 52.0),
            ("RSAgent", 66.5, None),
            ("GenSeg-R1-4B", 68.4, None),
        ),
    }
    official_size: ClassVar[dict[str, tuple[str, int]]] = {  # dvlab-research/LISA, README.md
        "val": ("expressions", 200),
        "test": ("expressions", 779),
    }
    note = (
        "Rows: Seg-Zero (arXiv 2503.06520), Table 6; RSAgent (arXiv 2512.24023) and GenSeg-R1 (arXiv 2602.09701), "
        "abstracts."
    )

    @classmethod
    def matches(cls, root: Path) -> bool:
        first = (next((root / split).glob("*.json"), None) for split in cls.splits)
        return any(path is not None and path.with_suffix(".jpg").is_file() for path in first)

    def read_samples(self) -> Iterator[VideoSample]:
        self._cached: tuple[str, np.ndarray, list[np.ndarray]] | None = None
        if not self.meta_path.is_dir():
            raise MissingFileError(f"annotation file is missing: {self.meta_path}")
        for path in sorted(self.meta_path.glob("*.json"), key=lambda path: natural_key(path.stem)):
            image, picture = path.stem, path.with_suffix(".jpg")
            try:
                content = read_annotation(path)
                size = frame_size(picture) if picture.is_file() else (0, 0)  # `problems` names a missing one
            except DataError as error:
                self.reject(image, image, str(error))
                continue
            targets = tuple(str(number) for number, _ in enumerate(_shapes(content, "target")))
            kind = "long" if content["is_sentence"] else "short"
            texts = content["text"] if self.split == "train" else content["text"][:1]
            for number, text in enumerate(texts):
                ids, place = (f"{image}/{number}", image, str(number)), (self.meta_path, (image,))
                yield VideoSample(*ids, text, *place, *size, 1 if targets else 2, targets, kind)

    def frame_problems(self, sample: VideoSample) -> list[str]:
        picture = self.frame_path(sample, 0)
        return [] if picture.is_file() else [f"frame is missing: {picture}"]

    def ground_truth_path(self, sample: VideoSample) -> Path:
        return self.meta_path / f"{sample.video}.json"

    def label_map(self, sample: VideoSample) -> tuple[np.ndarray, list[np.ndarray]]:
        """1 on the target, 255 on ignored regions, 0 elsewhere, uint8 [H, W]; and each target polygon's own pixels.

        The last image's is kept.
        """
        if self._cached is None or self._cached[0] != sample.video:
            content = read_annotation(self.ground_truth_path(sample))
            self._cached = (sample.video, *draw_label_map(content, sample.height, sample.width))
        return self._cached[1:]

    def read_masks(self, sample: VideoSample, frame_indices: Sequence[int]) -> list[list[Rle | None]]:
        labels, polygons = self.label_map(sample)
        objects = [masks.encode((labels == 1) & (polygons[int(number)] != 0)) for number in sample.object_ids]
        return [[rle] * len(frame_indices) for rle in objects]

    def score_sample(
        self, sample: VideoSample, pred: np.ndarray, present: np.ndarray, foreground: np.ndarray | None
    ) -> SampleScore:
        labels = self.label_map(sample)[0]
        counted = np.where(labels == IGNORED, np.uint8(0), pred)
        score = score_masks(sample, counted, present, self.masks(sample), foreground)
        iou, intersection, union = image_iou(pred[0], labels)
        score.metrics |= {"gIoU": iou * bool(present[0]), "intersection": intersection, "union": union}
        return score

    @classmethod
    def extra_metrics(cls, scores: Sequence[SampleScore]) -> dict[str, float]:
        groups = {"cIoU": every_sample} | {f"{title} cIoU": group for title, group in LENGTHS.items()}
        return {
            title: 100 * total_iou([score.metrics for score in scores if group(score)])
            for title, group in groups.items()
        }


def read_annotation(path: Path) -> dict[str, Any]:
    """An image's annotation; some files of the release are in Windows' code page 1252 instead of UTF-8.

    Raises:
        DataError: the file is missing, is no JSON, or text, is_sentence or shapes are not what they should be.
    """
    check_file(path, "annotation file")
    raw = path.read_bytes()
    try:
        try:
            content = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError:
            content = json.loads(raw.decode("cp1252"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"annotation file is not JSON: {path} ({error})") from error
    try:
        content = as_mapping(content, "it")
        as_list(content.get("text"), "its text")
        if content.get("is_sentence") not in (0, 1):  # true and false are
            raise DataError(f"is_sentence is {shorten(content.get('is_sentence'))}, neither true nor false")
        for shape in as_list(content.get("shapes"), "its list of shapes", empty=True):
            _check_shape(as_mapping(shape, "a shape"))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return dict(content)


def _check_shape(shape: Mapping[str, Any]) -> None:
    if not isinstance(shape.get("label"), str):
        raise DataError(f"a shape's label is {shorten(shape.get('label'))}, not a text")
    try:
        points = np.array(shape.get("points"), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"a shape's points are no list of pairs ({error})") from error
    if points.ndim != 2 or points.shape[1] != 2 or not (np.abs(points) < MAX_SIDE).all():
        raise DataError("a shape's points are no list of pairs in a picture")


def _shapes(content: dict[str, Any], kind: str | None = None) -> list[dict[str, Any]]:
    """The polygons that count, in the file's order; of one kind only: "target" or "ignore"."""
    used = [shape for shape in content["shapes"] if shape["label"].lower() != "flag"]
    return [shape for shape in used if kind is None or ("ignore" in shape["label"].lower()) == (kind == "ignore")]


def draw_label_map(content: dict[str, Any], height: int, width: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The label map of an annotation, and the pixels of each target polygon in the file's order, uint8 [H, W].

    A polygon's outline belongs to it. Larger polygons are drawn first.
    """
    import cv2  # here: training on videos needs no OpenCV

    shapes, filled = _shapes(content), []
    for shape in shapes:
        points = [np.array(shape["points"], dtype=np.int32)]
        pixels = np.zeros((height, width), np.uint8)
        cv2.polylines(pixels, points, isClosed=True, color=1, thickness=1)
        cv2.fillPoly(pixels, points, color=1)
        filled.append(pixels)
    labels = np.zeros((height, width), np.uint8)
    for number in np.argsort([pixels.sum() for pixels in filled])[::-1].astype(int):
        labels[filled[number] != 0] = IGNORED if "ignore" in shapes[number]["label"].lower() else 1
    return labels, [pixels for shape, pixels in zip(shapes, filled) if "ignore" not in shape["label"].lower()]
