"""What the demo says at its end, whichever way reward and J&F went."""

from pathlib import Path

import pytest

from training_scripts.demo import DEMO_MARK, fresh_folder, verdict


def test_the_last_lines_say_what_happened() -> None:
    rose = verdict((1.0, 3.0), (50.0, 51.25))
    assert rose == [
        "Mean reward of greedy answers about unseen videos before and after, of 5: 1.00 -> 3.00, it rose by 2.00.",
        "J&F on unseen videos before and after, in percent: 50.0 -> 51.2, it rose by 1.2.",
    ]
    fell = verdict((2.0, 1.5), (50.0, 50.0))
    assert "did NOT rise (-0.50)" in fell[0] and "did NOT rise (0.0)" in fell[1]


def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="no demo made"):
        fresh_folder(tmp_path)
    (tmp_path / DEMO_MARK).touch()
    fresh_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"logs", DEMO_MARK}
