"""Serves a page on which a video is dropped, and what is found in it is watched, corrected and downloaded.

    veason app                                                        # the toy models, http://127.0.0.1:7860
    veason app --model CHECKPOINT --sam2 sam2.1_hiera_large.pt --port 8000

The page is reached from this machine alone unless --host says otherwise; it has no password. Users share the models:
one question is answered at a time, the others wait in a queue. Files of users are removed an hour after their last
click. Needs the extra `app` (Gradio).
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veason.command_line import HelpFormatter, OneLineErrorParser, parse_arguments
from veason.errors import DataError
from veason.inference.segmenter import Segmenter
from veason.predict.command import add_model_options, read_model_options
from veason.toy_assets import TOY_NOTICE
from veason.tracking import check_takes_boxes

if TYPE_CHECKING:
    from veason.app.page import UsageLimits

PROGRAM = "veason app"
MISSING = "Gradio is not installed: pip install --no-deps -r requirements-app.lock, or pip install -e .[app]"
TOY_LINE = "These are the toy models of the repository, which know drawn shapes only."
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        run(read_options(arguments))
    except DataError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises DataError in one line."""
    parser = OneLineErrorParser(prog=PROGRAM, description=__doc__, formatter_class=HelpFormatter)
    add_model_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at; 0.0.0.0: all of this machine")
    parser.add_argument("--port", type=int, default=7860, help="the port to listen at")
    parser.add_argument("--max_frames", type=int, default=600, help="frames of a video")
    parser.add_argument("--max_upload_mb", type=int, default=200, help="megabytes of an uploaded file")
    parser.add_argument("--max_waiting", type=int, default=16, help="questions in the queue")
    options = parse_arguments(parser, arguments)
    for name, least, most in (
        ("port", 1, 65535),
        ("max_frames", 1, 100_000),
        ("max_upload_mb", 1, 100_000),
        ("max_waiting", 1, 1000),
    ):
        if not least <= getattr(options, name) <= most:
            raise DataError(f"--{name} {getattr(options, name)} is outside {least} to {most}")
    return options


def run(options: argparse.Namespace) -> None:
    """Check everything, load the models, and serve until the process is interrupted. Raises DataError."""
    if find_spec("gradio") is None:
        raise DataError(MISSING)
    check_address(options.host, options.port)
    check_takes_boxes(options.tracker, "the page shows and corrects a policy's boxes")
    model_options = read_model_options(options, PROGRAM)
    if options.model is None:
        print(f"{PROGRAM}: {TOY_NOTICE}", file=sys.stderr, flush=True)
    if options.host not in LOOPBACK:
        print(f"{PROGRAM}: {options.host} is reached from other machines, without a password", file=sys.stderr)
    from veason.app.page import UsageLimits

    warnings.filterwarnings("ignore", category=FutureWarning)  # of the libraries, once for every question
    segmenter = Segmenter(model_options.load_policy(), model_options.load_tracker(), **model_options.segmenter_options)
    limits = UsageLimits(options.max_frames, options.max_upload_mb, options.max_waiting)
    with tempfile.TemporaryDirectory(prefix="veason_app_") as root:
        serve(segmenter, limits, Path(root), options.host, options.port, TOY_LINE if options.model is None else "")


def serve(
    segmenter: Segmenter, limits: UsageLimits, root: Path, host: str, port: int, notice: str = "", wait: bool = True
) -> Any:
    """Serve the page; returns the Gradio application, at once where `wait` is false."""
    import gradio as gr

    from veason.app.page import CSS, AppPage

    page = AppPage(segmenter, limits, root, notice).build()
    page.queue(max_size=limits.max_waiting, api_open=False)
    fonts = ["system-ui", "sans-serif"]  # nothing is loaded from other hosts
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=f"{limits.max_upload_mb}mb",
        footer_links=[],
        theme=gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"]),
        css=CSS,
        ssr_mode=False,
    )
    print(f"{PROGRAM}: http://{host}:{port}", flush=True)
    if wait:
        page.block_thread()
    return page


def check_address(host: str, port: int) -> None:
    """Refuse, before the models are loaded, an address that cannot be listened at. Raises DataError."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        raise DataError(f"{host}:{port} cannot be listened at: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
