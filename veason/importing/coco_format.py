"""COCO annotations of frames (polygons or RLE), and the form of YouTube-VIS, which has one list of masks a track.

An image is a frame: its `file_name` is <video>/<frame>, or it has `video_id` (of `videos`) and `frame_index`. An image
without annotations is a frame where every object is absent; a frame that is no image has no annotation. Annotations of
one object over time share `track_id` (or `instance_id`, `object_id`, also in CVAT's `attributes`); without them all
annotations of a category in a video are one object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from veason import masks
from veason.data.sample import read_json
from veason.errors import DataError
from veason.importing.annotations import (
    AnnotatedObject,
    AnnotatedVideo,
    BoxXYXY,
    SourceFiles,
    read_box,
    read_mask_value,
)
from veason.importing.source_clips import VIDEO_FOLDERS, SourceClip, find_clips

TRACK_KEYS = ("track_id", "instance_id", "object_id")
Masks = dict[str, dict[int, list[Any]]]  # object -> position -> its segmentations


def find_annotation(source: Path) -> Path | None:
    """The COCO file of a folder: the only JSON file in it, or in its folder annotations, that has the form of one."""
    files = [path for folder in (source, source / "annotations") for path in sorted(folder.glob("*.json"))]
    found = [path for path in files if not path.name.startswith(".") and is_coco(read_json(path))]
    if len(found) > 1:
        raise DataError(f"{found[0]} and {found[1]} are both COCO files: name one with --annotations")
    return found[0] if found else None


def is_coco(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and isinstance(content.get("annotations"), list)
        and any(isinstance(content.get(key), list) for key in ("images", "videos"))
    )


def read_coco(source: SourceFiles) -> list[AnnotatedVideo]:
    """The videos that the annotation names, without expressions.

    Raises:
        DataError: a file is missing or of another form, or names a video or a frame that is not there.
    """
    path = source.annotations or find_annotation(source.path)
    if path is None:
        raise DataError(f"no COCO file in {source.path}: a JSON object with images and annotations")
    content = read_json(path)
    if not is_coco(content):
        raise DataError(f"{path} is no COCO file: a JSON object with images and annotations")
    folder = source.videos or source.path
    clips = _find_videos(source)
    reader = _TrackReader(path, content, clips) if "images" not in content else _ImageReader(path, content, clips)
    found = []
    for name in clips:
        if name not in reader.annotated:
            continue
        given = reader.objects[name]
        objects = partial(
            _objects, path, given, frozenset(reader.annotated[name]), reader.boxes[name], reader.categories[name]
        )
        annotation = [sorted(reader.annotated[name]), given, sorted(reader.boxes[name].items())]
        found.append(AnnotatedVideo(clips[name], [], objects, annotation, reader.sizes[name]))
    if not found:
        raise DataError(f"{path} names no frame of a video in {folder}")
    return found


def _find_videos(source: SourceFiles) -> dict[str, SourceClip]:
    """The clips of the folder of videos: the given one, one that holds all that the source has, or the source."""
    clips = find_clips(source.videos or source.path, source.first_frame, (), source.kept_fps)
    inside = next((name for name in VIDEO_FOLDERS if all(clip.startswith(f"{name}/") for clip in clips)), None)
    if source.videos or inside is None:
        return clips
    return find_clips(source.path / inside, source.first_frame, (), source.kept_fps)


class _Reader:
    """What a COCO file says of each video.

    Attributes:
        annotated: video -> positions of its annotated frames.
        objects: video -> object -> position -> segmentations.
        boxes: video -> object -> position -> box, of annotations without a segmentation.
        categories: video -> object -> name.
        sizes: video -> entry that gives a size -> its height and width.
    """

    def __init__(self, path: Path, content: dict[str, Any], clips: dict[str, SourceClip]) -> None:
        self.path, self.clips = path, clips
        self.annotated: dict[str, set[int]] = defaultdict(set)
        self.objects: dict[str, Masks] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        self.boxes: dict[str, dict[str, dict[int, BoxXYXY]]] = defaultdict(lambda: defaultdict(dict))
        self.categories: dict[str, dict[str, str]] = defaultdict(dict)
        self.sizes: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
        self.names = {each.get("id"): str(each.get("name", "")) for each in content.get("categories", [])}
        self.videos = {each.get("id"): each for each in content.get("videos", [])}

    def video(self, name: str, where: str) -> str:
        """The name of a clip that an annotation means: with or without suffix; the only one where it gives none."""
        plain = PurePosixPath(name.replace("\\", "/"))
        if plain.name:
            below = PurePosixPath(*plain.parts[1:]) if plain.parts[0] in VIDEO_FOLDERS and plain.parts[1:] else plain
            paths = [each.as_posix() for path in (plain, below) for each in (path, path.with_suffix(""))]
            for candidate in (*paths, plain.name, plain.stem):
                if candidate in self.clips:
                    return candidate
        elif len(self.clips) == 1:
            return next(iter(self.clips))
        first = next(iter(self.clips))
        found = f"{len(self.clips)} found, the first is {first!r}; --videos gives their folder"
        raise DataError(f"{where}: there is no video {name!r} ({found})")

    def frame(self, video: str, name: str | int, where: str) -> int:
        position = self.clips[video].frame(name)
        if position is None:
            raise DataError(f"{where}: video {video!r} has no frame {name!r}")
        return position

    def read_size(self, video: str, entry: Mapping[str, Any], where: str) -> None:
        """Keeps the size for which the masks of an image or a video were made, where the file gives it."""
        height, width = entry.get("height"), entry.get("width")
        if height is None or width is None:
            return
        if not isinstance(height, (int, float)) or not isinstance(width, (int, float)):
            raise DataError(f"{where}: height {height!r} and width {width!r} are no numbers of pixels")
        self.sizes[video][where] = height, width

    def track(self, video: str, annotation: dict[str, Any]) -> str:
        """The object of an annotation: its track, or else its category."""
        attributes = annotation.get("attributes")
        places = (annotation, attributes if isinstance(attributes, dict) else {})
        category = self.names.get(annotation.get("category_id"), "")
        track = next((place[key] for place in places for key in TRACK_KEYS if place.get(key) is not None), None)
        name = str(track) if track is not None else "_".join(category.split()) or "1"
        if category:
            self.categories[video][name] = category
        return name


class _ImageReader(_Reader):
    """Annotations of images."""

    def __init__(self, path: Path, content: dict[str, Any], clips: dict[str, SourceClip]) -> None:
        super().__init__(path, content, clips)
        frames: dict[Any, tuple[str, int]] = {}
        for number, image in enumerate(content["images"]):
            where = f"{path}: image {image.get('id', number) if isinstance(image, dict) else number}"
            if not isinstance(image, dict) or "id" not in image:
                raise DataError(f"{where} has no id")
            frames[image["id"]] = self._frame_of(image, where)
            video, position = frames[image["id"]]
            self.annotated[video].add(position)
            self.read_size(video, image, f"{where} ({image['file_name']})" if image.get("file_name") else where)
        for number, annotation in enumerate(content["annotations"]):
            where = f"{path}: annotation {annotation.get('id', number) if isinstance(annotation, dict) else number}"
            if not isinstance(annotation, dict) or annotation.get("image_id") not in frames:
                raise DataError(f"{where}: its image_id is that of no image")
            video, position = frames[annotation["image_id"]]
            track = self.track(video, annotation)
            if annotation.get("segmentation"):
                self.objects[video][track][position].append(annotation["segmentation"])
            elif annotation.get("bbox"):
                self.boxes[video][track][position] = _corners(annotation["bbox"], where)
            else:
                raise DataError(f"{where} has neither a segmentation nor a bbox")

    def _frame_of(self, image: dict[str, Any], where: str) -> tuple[str, int]:
        file = PurePosixPath(str(image.get("file_name", "")).replace("\\", "/"))
        index = next((image[key] for key in ("frame_index", "frame_id") if image.get(key) is not None), None)
        if image.get("video_id") in self.videos:
            entry = self.videos[image["video_id"]]
            name = str(entry.get("file_name") or entry.get("name") or file.parent)
        else:
            name = str(file.parent)
        video = self.video("" if name == "." else name, where)
        in_folder = self.clips[video].frame(file.stem) if self.clips[video].pictures and file.name else None
        if in_folder is not None:
            return video, in_folder
        if index is not None:  # counted from 0, whatever the names of pictures
            if not isinstance(index, int) or not 0 <= index < self.clips[video].total:
                raise DataError(f"{where}: video {video!r} has no frame {index!r}")
            return video, index
        return video, self.frame(video, file.stem, where)


class _TrackReader(_Reader):
    """Annotations of videos: `file_names`, and per annotation `segmentations`, one a file."""

    def __init__(self, path: Path, content: dict[str, Any], clips: dict[str, SourceClip]) -> None:
        super().__init__(path, content, clips)
        frames: dict[Any, tuple[str, list[int]]] = {}
        for entry in content["videos"]:
            where = f"{path}: video {entry.get('id')}"
            files = [PurePosixPath(str(file)) for file in entry.get("file_names") or ()]
            if not files:
                raise DataError(f"{where} has no file_names")
            video = self.video("" if str(files[0].parent) == "." else str(files[0].parent), where)
            frames[entry.get("id")] = video, [self.frame(video, file.stem, where) for file in files]
            self.annotated[video].update(frames[entry.get("id")][1])
            self.read_size(video, entry, where)
        for number, annotation in enumerate(content["annotations"]):
            where = f"{path}: annotation {annotation.get('id', number)}"
            if annotation.get("video_id") not in frames:
                raise DataError(f"{where}: its video_id is that of no video")
            video, positions = frames[annotation["video_id"]]
            segmentations = annotation.get("segmentations")
            if not isinstance(segmentations, list) or len(segmentations) != len(positions):
                count = len(segmentations) if isinstance(segmentations, list) else "no"
                raise DataError(f"{where} has {count} segmentations for {len(positions)} frames")
            # an annotation of a video is one object
            category = self.names.get(annotation.get("category_id"), "")
            track = str(annotation.get("id", number))
            if category:
                self.categories[video][track] = category
            for position, segmentation in zip(positions, segmentations):
                if segmentation:
                    self.objects[video][track][position].append(segmentation)


def _corners(box: Any, where: str) -> BoxXYXY:
    """COCO's [x, y, width, height] as corners."""
    try:
        x, y, width, height = (float(side) for side in box)
    except (TypeError, ValueError):
        raise DataError(f"{where}: bbox {str(box)[:60]} is not [x, y, width, height]") from None
    corners = read_box([x, y, x + width, y + height], where)
    assert corners is not None
    return corners


def _objects(
    path: Path,
    given: Masks,
    annotated: frozenset[int],
    boxes: Mapping[str, Mapping[int, BoxXYXY]],
    categories: Mapping[str, str],
) -> dict[str, AnnotatedObject]:
    def mask(track: str, position: int, height: int, width: int) -> masks.Rle | None:
        where = f"{path}: object {track}, frame {position}"
        parts = given[track].get(position, ())
        return masks.union(read_mask_value(part, height, width, where, path.parent) for part in parts)

    found = {}
    for track in {**given, **boxes}:
        if track in given:  # a frame with a box alone does not say where the object is
            known = annotated - (set(boxes.get(track, ())) - set(given[track]))
            found[track] = AnnotatedObject(known, partial(mask, track), categories.get(track))
        else:
            all_boxes = {position: boxes[track].get(position) for position in annotated}
            found[track] = AnnotatedObject(annotated, None, categories.get(track), all_boxes)
    return found
