"""Messages of libraries go to files, errors to the screen too: tried in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from verl.process_output import last_lines

ROOT = Path(__file__).parents[2]


def run(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    program = tmp_path / "program.py"  # as a user's own code: outside of the installed packages
    program.write_text(textwrap.dedent(code))
    environment = {"PYTHONPATH": f"{ROOT}", "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )


def test_a_worker_writes_to_its_file_and_its_errors_to_the_screen_too(tmp_path: Path) -> None:
    result = run(
        """
        import logging, os, subprocess, sys, warnings
        from pathlib import Path
        from verl.process_output import redirect_output, route_library_loggers

        print("before")
        library = logging.getLogger("transformers")
        library.addHandler(logging.StreamHandler(sys.stderr))  # as transformers sets itself up
        library.propagate = False
        redirect_output(Path("logs/rank_0.log"))
        print("printed")
        os.write(2, b"from C\\n")
        subprocess.run(["echo", "from a child"])
        warnings.warn("a warning of Python")
        logging.getLogger("vllm.engine").warning("a warning of vLLM")
        library.warning("a warning of transformers")
        library.error("an error of transformers")
        sys.stdout.flush()
        os._exit(3)  # what was written is in the file, however the process ends
        """,
        tmp_path,
    )
    assert result.returncode == 3
    assert result.stdout == "before\n" and result.stderr == "ERROR transformers: an error of transformers\n"
    written = (tmp_path / "logs/rank_0.log").read_text()
    for part in (
        "printed",
        "from C",
        "from a child",
        "a warning of Python",
        "WARNING vllm.engine: a warning of vLLM",
        "WARNING transformers: a warning of transformers",
        "ERROR transformers: an error of transformers",
    ):
        assert written.count(part) == 1 + (part == "a warning of Python"), part  # Python shows the line of code too
    assert last_lines(tmp_path / "logs/rank_0.log", 1)[0].endswith("ERROR transformers: an error of transformers")
    assert last_lines(tmp_path / "nothing.log") == []


def test_the_driver_shows_warnings_of_its_own_code_and_errors(tmp_path: Path) -> None:
    result = run(
        """
        import logging, warnings
        from pathlib import Path
        import numpy
        from verl.process_output import redirect_library_messages

        def of_library(level):
            record = logging.LogRecord("numpy", level, numpy.__file__, 1, f"numpy at {level}", (), None)
            logging.getLogger("numpy").handle(record)

        with redirect_library_messages(Path("run/logs/driver.log")):
            assert not Path("run").exists()  # a run that is refused leaves nothing
            logging.getLogger("mine").warning("a bad sample")
            logging.getLogger("mine").info("a detail")
            of_library(logging.WARNING)
            of_library(logging.ERROR)
            warnings.warn("deprecated", FutureWarning)
        logging.getLogger("mine").warning("after")
        """,
        tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == "WARNING mine: a bad sample\nERROR numpy: numpy at 40\nafter\n" and result.stdout == ""
    written = (tmp_path / "run/logs/driver.log").read_text()
    for part in ("a bad sample", "a detail", "numpy at 30", "numpy at 40", "deprecated"):
        assert part in written
