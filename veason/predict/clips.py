"""Which clips are segmented and what is looked for in each: from the command line, or from a list in a file."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from veason.errors import DataError
from veason.prompts import clean_expression
from veason.results.overlay import MIN_SIDE
from veason.toy_assets import TOY_CLIP, TOY_EXPRESSION, check_shipped

BYTES_PER_PIXEL, SPARE_BYTES = 0.1, 50 << 20  # of a frame's overlay, masks and page; bytes that are left free


@dataclass(frozen=True)
class ClipRequest:
    """A video and what is looked for in it."""

    video: str
    expressions: tuple[str, ...]

    @property
    def name(self) -> str:
        return Path(self.video).stem or Path(self.video).name or "clip"


def read_clips(videos: Sequence[str], expressions: Sequence[str], listed: str | None) -> list[ClipRequest]:
    """The clips of a command line; without any the toy clip of the repository.

    Args:
        videos: paths.
        expressions: looked for in each of them, and in those of the list that name none.
        listed: a file with a path a line, or JSONL with `video` and `expressions` (or `expression`). A path is relative
            to the file's folder or, where there is no such file there, to the working folder.

    Raises:
        DataError: names the option or the line.
    """
    if listed is not None:
        if videos:
            raise DataError("--clips and a video are both given; name the videos in one of them")
        return _check([_read_line(*line, expressions) for line in _read_list(listed)], listed)
    if not videos:
        check_shipped(TOY_CLIP)
        return _check([ClipRequest(str(TOY_CLIP), tuple(expressions) or (TOY_EXPRESSION,))], "")
    return _check([ClipRequest(video, tuple(expressions)) for video in videos], "")


def output_folders(clips: Sequence[ClipRequest], out: Path) -> list[Path]:
    """Where each clip's results are written: `out` of one clip, a folder of its name in `out` of several."""
    if len(clips) == 1:
        return [out]
    found: dict[str, int] = {}
    folders = []
    for clip in clips:
        found[clip.name] = found.get(clip.name, 0) + 1
        folders.append(out / (clip.name if found[clip.name] == 1 else f"{clip.name}_{found[clip.name]}"))
    return folders


def check_videos(clips: Sequence[ClipRequest], listed: str | None = None) -> None:
    """Refuse, before the first video is decoded, a path that is not there. Raises DataError, which names it."""
    for clip in clips:
        if Path(clip.video).expanduser().exists():
            continue
        if listed is not None:
            tried = f"relative to {Path(listed).parent.resolve()} and to the working folder"
            raise DataError(f"{listed}: there is no video {clip.video} ({tried})")
        swapped = next((text for text in clip.expressions if Path(text).expanduser().exists()), None)
        hint = f"; {swapped} exists: the video comes first, then the expression" if swapped is not None else ""
        raise DataError(f"video is missing: {clip.video}{hint}")


def check_output_folder(out: Path, needed: int) -> None:
    """Check that the output folder can be written and `needed` bytes fit, and make nothing. Raises DataError."""
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise DataError(f"--out {out}: {there if there != out.absolute() else 'this'} is a file, not a folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise DataError(f"--out {out} cannot be written: {error.strerror}") from error
    free = shutil.disk_usage(there).free
    if free < needed:
        raise DataError(f"--out {out}: {free >> 20} MB are free, and about {needed >> 20} MB are needed")


def make_output_folder(out: Path) -> None:
    """Make the output folder, once everything has been checked. Raises DataError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--out {out} cannot be written: {error.strerror}") from error


def estimate_bytes(total: int, shape: Sequence[int], expressions: int) -> int:
    """An estimate of what the results of a clip take on the disk."""
    height, width = shape[:2]
    scale = max(1, -(-MIN_SIDE // min(height, width)))
    return round(total * height * width * scale**2 * BYTES_PER_PIXEL * expressions) + SPARE_BYTES


def _read_list(listed: str) -> list[tuple[str, str, Path, bool]]:
    """(place, text, folder, whether JSON) of each line that is not empty and no comment."""
    path = Path(listed).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"--clips {path} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--clips {path} cannot be read ({error})") from error
    is_json = path.suffix == ".jsonl"
    found = [
        (f"{path} line {number}", line.strip(), path.parent, is_json)
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not found:
        raise DataError(f"--clips {path} names no clip")
    return found


def _read_line(place: str, text: str, folder: Path, is_json: bool, expressions: Sequence[str]) -> ClipRequest:
    if not is_json:
        return ClipRequest(_find(text, folder), tuple(expressions))
    try:
        entry = json.loads(text)
        video, own = entry["video"], entry.get("expressions", entry.get("expression", list(expressions)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{place} is not like {{"video": "clip.mp4", "expressions": ["the dog"]}}') from error
    own = [own] if isinstance(own, str) else own
    if not isinstance(video, str) or not isinstance(own, list) or not all(isinstance(each, str) for each in own):
        raise DataError(f"{place}: video is a path and expressions are a list of texts")
    return ClipRequest(_find(video, folder), tuple(own))


def _find(video: str, folder: Path) -> str:
    """A path of a list: that of a file in the list's folder where there is one, else as it is written."""
    beside = folder / Path(video).expanduser()
    return str(beside) if beside.exists() and video.strip() else video


def _check(clips: list[ClipRequest], listed: str) -> list[ClipRequest]:
    for clip in clips:
        if not clip.video.strip():
            raise DataError("the path of the video is empty")
        if not clip.expressions:
            where = f" in {listed}" if listed else ""
            raise DataError(
                f'no expression is given for {clip.video}{where}: say what to find, as in "the dog on the left"'
            )
        for expression in clip.expressions:
            if not clean_expression(expression):
                raise DataError(f"the expression {expression!r} for {clip.video} is empty")
    return clips
