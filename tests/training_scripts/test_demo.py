"""The demo's table and sentence, what a stage writes, and the folders that it may clear."""

import subprocess
import sys
from pathlib import Path

import pytest

from training_scripts.demo import DEMO_MARKER, Demo, clear_folder, comparison_table, run_logged, summary_sentence
from training_scripts.toy.recipes import ToyPaths

ROOT = Path(__file__).parents[2]


def test_the_table_and_the_sentence_report_both_directions(tmp_path: Path) -> None:
    demo = Demo(ToyPaths(Path("policy"), Path("tracker"), tmp_path, tmp_path), 12, {"GRPO": 90.0})
    better = {"reward, 0 to 5": (1.0, 3.0), "J&F, percent": (50.0, 51.25)}
    assert comparison_table(better)[2:] == [
        "| reward, 0 to 5   |        1.00 |       3.00 |  +2.00 |",
        "| J&F, percent     |       50.00 |      51.25 |  +1.25 |",
    ]
    assert summary_sentence(demo, better) == (
        "In 12 steps of GRPO from policy the mean reward of greedy answers increased from 1.00 to 3.00 and the J&F "
        "increased from 50.0 to 51.2 (on held-out videos; 1.5 minutes for all stages)."
    )
    worse = summary_sentence(demo, {"reward, 0 to 5": (2.0, 1.5), "J&F, percent": (50.0, 50.0)})
    assert "did NOT increase from 2.00 to 1.50" in worse and "did NOT increase from 50.0 to 50.0" in worse


PROGRAM = "import sys; print('out'); sys.stdout.flush(); sys.stderr.write('10%\\r20%\\n'); sys.exit(3)"


def test_a_stage_is_on_the_console_and_in_its_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_logged([sys.executable, "-c", PROGRAM], tmp_path / "stage.log") == 3
    assert "out\n" in capfd.readouterr().out
    assert (tmp_path / "stage.log").read_text() == "out\n20%\n"  # of a bar the last state


def test_a_stage_has_a_terminal_where_the_demo_has_one(tmp_path: Path) -> None:
    inner = "import sys; print(sys.stderr.isatty())"
    code = (
        f"import sys; from pathlib import Path; from training_scripts.demo import run_logged; "
        f"run_logged([sys.executable, '-c', {inner!r}], Path({str(tmp_path / 'log')!r}))"
    )
    spawn = f"import pty, sys; pty.spawn([sys.executable, '-c', {code!r}])"
    subprocess.run([sys.executable, "-c", spawn], cwd=ROOT, check=True, stdin=subprocess.DEVNULL, timeout=120)
    assert (tmp_path / "log").read_text() == "True\n"


def test_a_folder_of_other_files_is_not_cleared(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="no demo made"):
        clear_folder(tmp_path)
    (tmp_path / DEMO_MARKER).touch()
    clear_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"logs", DEMO_MARKER}
