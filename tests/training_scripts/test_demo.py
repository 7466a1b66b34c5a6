"""The demo's summary, and the folders that it may clear."""

from pathlib import Path

import pytest

from training_scripts.demo import DEMO_MARKER, clear_folder, summary


def test_the_summary_reports_both_directions() -> None:
    assert summary((1.0, 3.0), (50.0, 51.25)) == [
        "Mean reward of greedy answers on held-out videos (0 to 5): 1.00 -> 3.00, increased by 2.00.",
        "J&F on held-out videos, percent: 50.0 -> 51.2, increased by 1.2.",
    ]
    worse = summary((2.0, 1.5), (50.0, 50.0))
    assert "did NOT increase (-0.50)" in worse[0] and "did NOT increase (0.0)" in worse[1]


def test_a_folder_of_other_files_is_not_cleared(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="no demo made"):
        clear_folder(tmp_path)
    (tmp_path / DEMO_MARKER).touch()
    clear_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"logs", DEMO_MARKER}
