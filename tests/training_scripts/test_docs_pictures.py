"""The pictures of the documentation show what the code computes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grpo_reward.reward_score import score_response
from grpo_reward.rules import find_rule
from tests.veason.scripted_parts import BoxTracker, ScriptedPolicy
from training_scripts.docs_pictures import result_picture, scored_answer, write_pictures
from veason.answers import format_answer
from veason.inference.segmenter import Segmenter
from veason.visualization.drawing import PALETTE

ROOT = Path(__file__).parents[2]


def test_all_pictures_are_drawn_and_shown(tmp_path: Path) -> None:
    drawn = {file.name: Image.open(file).size for file in write_pictures(tmp_path)}
    shipped = {file.name: Image.open(file).size for file in (ROOT / "docs" / "pictures").glob("*.png")}
    assert drawn.items() <= shipped.items()
    pages = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("reward.md", "packed_groups.md"))
    assert [name for name in drawn if f"pictures/{name}" not in pages] == []


def test_the_result_of_the_readme_is_in_the_colours_of_the_overlay() -> None:
    answer = format_answer("it is there", 2, [[56, 56, 280, 280]])
    drawn = result_picture(Segmenter(ScriptedPolicy(answer), BoxTracker()))
    shipped = np.asarray(Image.open(ROOT / "docs" / "pictures" / "result.png").convert("RGB"))
    assert drawn.shape == shipped.shape
    for picture in (drawn, shipped):  # the legend below each of three frames
        legend = np.abs(picture[323:327].astype(int) - PALETTE[0]).max(-1).max(0) < 8
        assert np.count_nonzero(np.diff(legend.astype(int)) == 1) == 3
    with pytest.raises(SystemExit, match="found nothing"):
        result_picture(Segmenter(ScriptedPolicy("no idea"), BoxTracker()))


def test_the_page_quotes_the_scores_of_the_pictures() -> None:
    _, reward_input = scored_answer()
    parts = score_response(find_rule("video_match_keyframe_sft_sam_mod"), reward_input).parts
    page = (ROOT / "docs" / "reward.md").read_text(encoding="utf-8")
    quoted = dict(re.findall(r"^\| \[`(\w+)`\]\([^)]*\) \|[^|]*\| ([\d.]+) \|", page, re.MULTILINE))
    assert {name: float(value) for name, value in quoted.items()} == pytest.approx(parts, abs=0.005)
