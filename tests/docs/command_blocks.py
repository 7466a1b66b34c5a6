"""The commands of the documents: their blocks, and programs that record how a block calls them."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HISTORY = ("CHANGELOG.md", "log.md")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r'^```bash(?: title="([^"]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```(?:bash|sh|shell|console)\b.*$", re.MULTILINE)
# Read by the configurations and the launchers.
VARIABLES = ("MODEL_PATH", "REVOS_ROOT", "COT_ROOT", "SAM2_CHECKPOINT")
RECORDED = ("python", "python3", "veason", "make", "docker", "hf", "curl", "pip", "pre-commit", "llamafactory-cli")
SILENT = ("ray", "ssh", "srun", "nvidia-smi")
RECORD = """#!/bin/bash
n=$(find "$CALLS" -type f | wc -l)
{ printf '%s\\0' "$MODEL_PATH" "$REVOS_ROOT" "$COT_ROOT" "$SAM2_CHECKPOINT" NAME "$@"; } > "$CALLS/$(printf %04d "$n")"
"""
SBATCH = """#!/bin/bash
while [ $# -gt 0 ]; do case $1 in *.sh) break ;; *) shift ;; esac; done
SLURM_JOB_NUM_NODES=2 SLURM_GPUS_ON_NODE=8 SLURM_JOB_NODELIST=node[1-2] exec bash "$@"
"""
CLONE = '#!/bin/bash\n[ "$1" != clone ] || ln -s "$PWD" "${!#}"\n'


@dataclass(frozen=True)
class Block:
    """Commands of a page.

    Attributes:
        mark: what they need, as the page shows it; None for commands that a test runs.
    """

    page: str
    number: int
    mark: str | None
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}-{self.number}"


@dataclass(frozen=True)
class Call:
    """One call of a program: its words, and the variables that its configuration reads."""

    program: str
    words: list[str]
    environment: dict[str, str]


def read_blocks() -> list[Block]:
    """All blocks of commands, page by page."""
    return [
        Block(str(page.relative_to(ROOT)), number, mark or None, text)
        for page in PAGES
        if page.name not in HISTORY
        for number, (mark, text) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
    ]


def make_checkout(folder: Path) -> None:
    """A folder that looks like a checkout, in which a block may write beside the repository's own files."""
    for entry in ROOT.iterdir():
        if entry.name not in (".venv", ".git", "outputs", "checkpoints", "site") and not entry.name.endswith("_cache"):
            (folder / entry.name).symlink_to(entry)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def record(block: Block, folder: Path) -> list[Call]:
    """Runs a block with programs that record how they are called, and do nothing."""
    make_checkout(folder)
    programs, calls = folder / ".programs", folder / ".calls"
    programs.mkdir()
    calls.mkdir()
    for name in RECORDED:
        write_program(programs / name, RECORD.replace("NAME", name))
    for name in SILENT:
        write_program(programs / name, "#!/bin/bash\n")
    write_program(programs / "scontrol", "#!/bin/bash\nprintf 'node1\\nnode2\\n'\n")
    write_program(programs / "sbatch", SBATCH)
    write_program(programs / "git", CLONE)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHON": str(programs / "python"),
        "CALLS": str(calls),
        "HOME": str(folder),
        "RAY_AUTH_TOKEN": "token",
        **{name: f"/{name.lower()}" for name in VARIABLES},
    }
    subprocess.run(["bash", "-eo", "pipefail", "-c", block.text], cwd=folder, env=environment, check=True)
    found = []
    for file in sorted(calls.iterdir()):
        *values, program = (words := file.read_text().split("\0")[:-1])[: len(VARIABLES) + 1]
        found.append(Call(program, words[len(VARIABLES) + 1 :], dict(zip(VARIABLES, values))))
    return found
