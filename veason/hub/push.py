"""Uploads a trained checkpoint, or a data set in the ReVOS form, to the Hugging Face Hub, with a card.

    veason push checkpoints/grpo you/veason-3b --base_model Qwen/Qwen2.5-VL-3B-Instruct --license qwen-research \\
        --evaluation outputs/revos --dry_run
    veason push data/mine you/my-clips --license cc-by-4.0

A checkpoint is its own folder, a global_step_N folder, or a run's folder. The card has the base model, the recipe, the
scores of the evaluations and the command that uses it; evaluations of other weights are refused. --dry_run prints the
card and the files and needs no network. The token is that of `hf auth login`, or HF_TOKEN.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from veason.command_line import OneLineErrorParser, parse_arguments
from veason.errors import DataError, describe

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
MAX_LISTED = 20  # files; a data set has thousands


@dataclass(frozen=True)
class Upload:
    """What is sent."""

    kind: str  # `model` or `dataset`
    folder: Path  # the names on the Hub are relative to it
    files: list[Path]  # in that folder; the card comes on top
    card: str  # the text of README.md


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    try:
        options = read_options(arguments)
        upload = prepare_upload(options)
        if options.dry_run:
            print("\n".join([*file_listing(upload), "", "README.md:", "", upload.card]))
        else:
            print(send_upload(upload, options.repo_id, options.private, options.message))
    except DataError as error:
        print(f"veason push: {error}", file=sys.stderr)
        return 2
    return 0


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises DataError in one line."""
    parser = OneLineErrorParser(
        prog="veason push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="CHECKPOINT", help="a checkpoint, a run's folder, or a data set")
    parser.add_argument("repo_id", help="owner/name on the Hub; it is made where it does not exist")
    parser.add_argument(
        "--license",
        required=True,
        help="of what is uploaded; weights keep their base model's (Qwen2.5-VL-3B: qwen-research, 7B: apache-2.0)",
    )
    parser.add_argument("--base_model", help="as on the Hub; by default the model that the training started from")
    parser.add_argument(
        "--evaluation",
        action="append",
        default=[],
        metavar="FOLDER",
        help="an output_path of eval.evaluate; may be given several times",
    )
    parser.add_argument("--card", metavar="FILE", help="a README.md of your own instead of the generated card")
    parser.add_argument("--message", default="Upload", help="of the commit (Upload)")
    parser.add_argument("--private", action="store_true", help="a new repository is private")
    parser.add_argument("--dry_run", action="store_true", help="print the card and the files, and send nothing")
    options = parse_arguments(parser, arguments)
    if not REPO_ID.fullmatch(options.repo_id):
        raise DataError(f"repo_id {options.repo_id!r} is not owner/name")
    return options


def prepare_upload(options: argparse.Namespace) -> Upload:
    """Reads and checks everything that is sent. Raises DataError."""
    from veason.hub.data_card import data_card, data_files, is_data_set
    from veason.hub.model_card import model_card
    from veason.hub.trained_checkpoint import read_checkpoint, read_evaluation

    source = Path(options.source).expanduser()
    if not source.is_dir():
        raise DataError(f"{source} is no folder")
    if is_data_set(source):
        card = read_own_card(options) or data_card(source, options.repo_id, options.license)
        return Upload("dataset", source, data_files(source), card)
    checkpoint = read_checkpoint(source)
    base_model = options.base_model or checkpoint.start
    if not base_model or not REPO_ID.fullmatch(base_model) or Path(base_model).exists():
        started = f" (the training started from {base_model})" if base_model else ""
        raise DataError(f"--base_model is needed: the model's name on the Hub{started}")
    evaluations = [read_evaluation(folder, checkpoint) for folder in options.evaluation]
    card = read_own_card(options) or model_card(checkpoint, options.repo_id, base_model, options.license, evaluations)
    return Upload("model", checkpoint.folder, checkpoint.files, card)


def read_own_card(options: argparse.Namespace) -> str | None:
    """The text of --card. Raises DataError."""
    if options.card is None:
        return None
    try:
        return Path(options.card).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--card: {describe(error)}") from error


def file_listing(upload: Upload) -> list[str]:
    """The files with their sizes."""
    sizes = [file.stat().st_size for file in upload.files]
    lines = [f"{upload.kind}: {len(sizes)} files, {sum(sizes) / 1e6:,.1f} MB, from {upload.folder}"]
    lines += [
        f"  {file.relative_to(upload.folder)}  {size / 1e6:,.1f} MB"
        for file, size in zip(upload.files[:MAX_LISTED], sizes)
    ]
    return lines + ([f"  and {len(sizes) - MAX_LISTED} more"] if len(sizes) > MAX_LISTED else [])


def send_upload(upload: Upload, repo_id: str, private: bool, message: str) -> str:
    """Sends files and card as one commit, making the repository; returns its address. Raises DataError."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise DataError("HF_HUB_OFFLINE is set: unset it to upload, or look first with --dry_run")
    operations = [CommitOperationAdd(file.relative_to(upload.folder).as_posix(), file) for file in upload.files]
    operations.append(CommitOperationAdd("README.md", upload.card.encode()))
    try:
        api = HfApi()
        api.create_repo(repo_id, private=private, repo_type=upload.kind, exist_ok=True)
        api.create_commit(repo_id, operations, commit_message=message, repo_type=upload.kind)
    except LocalTokenNotFoundError as error:
        raise DataError("no token of the Hub: run `hf auth login`, or set HF_TOKEN") from error
    except (HfHubHTTPError, OSError) as error:
        raise DataError(f"{repo_id}: {str(error).splitlines()[0]}") from error
    return f"https://huggingface.co/{'datasets/' if upload.kind == 'dataset' else ''}{repo_id}"


if __name__ == "__main__":
    sys.exit(main())
