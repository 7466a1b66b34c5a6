"""Writes docs/configuration.md from the dataclasses of the configurations: keys, types, defaults and comments.

    python -m training_scripts.configuration_page            # writes the page
    python -m training_scripts.configuration_page --check    # exit status 1 when it is not current

The tests run the second one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.evaluation_options import EvaluateConfig
from eval.metrics import MetricsConfig
from eval.report import ReportConfig
from veason.command_line import HelpFormatter, parse_arguments
from verl.config import Config, read_key_groups
from verl.config.key_reference import markdown_table
from verl.config.published_keys import NO_EFFECT, OFF_ONLY, RENAMED

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
HEAD = """\
# Configuration

Every key with its type, default and meaning; generated from the dataclasses (`make configuration`), so edit those.
`--help WORD` of a command prints the keys that contain a word, and `--plan` the configuration that results from a
command, with where each value comes from.

## Training

`python -m verl.trainer.main` (GRPO) and `python -m verl.trainer.sft` (supervised fine-tuning) take `config=FILE` and
`key=value`; the later of two wins. A YAML file may begin from another one (`base: other.yaml`). An unknown key, a wrong
type or an impossible combination ends the run before a model is loaded and names the nearest valid key.
"""
EVALUATION = {
    "python -m eval.evaluate": (EvaluateConfig, "runs a policy over a benchmark."),
    "python -m eval.metrics": (
        MetricsConfig,
        "scores predictions; the first two keys may be given as plain arguments.",
    ),
    "veason report": (ReportConfig, "writes one page about a run; the first key may be given as a plain argument."),
}


def render_page() -> str:
    """The page."""
    parts = [HEAD, markdown_table(read_key_groups(Config))]
    which = "Keys of the published YAML files, or of earlier versions, that have another name or no effect here."
    parts.append(f"## Published keys\n\n{which}\n")
    rows = [f"| `{key}` | is `{name}` |" for key, name in RENAMED.items()]
    rows += [f"| `{key}` | off is without effect; on is refused: use {switch} |" for key, switch in OFF_ONLY.items()]
    rows += [f"| `{key}` | no effect: {why} |" for key, why in NO_EFFECT.items()]
    parts.append("\n".join(["| key | here |", "| --- | --- |", *rows]) + "\n")
    for command, (schema, what) in EVALUATION.items():
        groups = read_key_groups(schema, title="keys")
        parts.append(f"## {command.removeprefix('python -m ')}\n\n`{command}` {what}\n\n{markdown_table(groups)}")
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    options = parse_arguments(parser, arguments)
    page = render_page()
    if options.check:
        current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page
        print(f"{PAGE.name} is {'current' if current else 'not current: run make configuration'}")
        return 0 if current else 1
    PAGE.write_text(page, encoding="utf-8")
    print(f"written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
