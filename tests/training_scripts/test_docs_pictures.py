"""The pictures of the documentation show what the code computes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from grpo_reward.reward_score import score_context
from grpo_reward.rules import find_rule
from training_scripts.docs_pictures import draw, scored_answer

ROOT = Path(__file__).parents[2]


def test_all_pictures_are_drawn_and_shown(tmp_path: Path) -> None:
    drawn = {file.name: Image.open(file).size for file in draw(tmp_path)}
    shipped = {file.name: Image.open(file).size for file in (ROOT / "docs" / "pictures").glob("*.png")}
    assert drawn.items() <= shipped.items()
    pages = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("reward.md", "engine.md"))
    assert [name for name in drawn if f"pictures/{name}" not in pages] == []


def test_the_page_quotes_the_scores_of_the_pictures() -> None:
    _, context = scored_answer()
    parts = score_context(find_rule("video_match_keyframe_sft_sam_mod"), context).parts
    page = (ROOT / "docs" / "reward.md").read_text(encoding="utf-8")
    quoted = dict(re.findall(r"^\| \[`(\w+)`\]\([^)]*\) \|[^|]*\| ([\d.]+) \|", page, re.MULTILINE))
    assert {name: float(value) for name, value in quoted.items()} == pytest.approx(parts, abs=0.005)
