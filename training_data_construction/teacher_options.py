"""Command-line options that the programs with a teacher share."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_teacher_options(group: argparse._ArgumentGroup) -> None:
    """Options of the server, the requests and the budget."""
    add = group.add_argument
    add(
        "--teacher",
        default="openai",
        help="openai, toy, or package.module:name of a class with reason(sample, keyframe, indices)",
    )
    add("--base_url", help="an OpenAI-compatible server; default: OpenAI's own")
    add("--model", help="the model's name at the server")
    add(
        "--request_options",
        type=json_object,
        default={"max_tokens": 2048},
        help="further fields of each request, as JSON",
    )
    add("--max_words", type=int, default=500, help="longer answers are not accepted (%(default)s)")
    add("--workers", type=int, default=32, help="requests in flight (%(default)s)")
    add("--timeout", type=float, default=180.0, help="seconds from a request to the end of its reply (%(default)s)")
    add("--tries", type=int, default=8, help="requests for one answer, before it is left to the next run (%(default)s)")
    add("--first_delay", type=float, default=1.0, help="seconds before the second try, then doubled (%(default)s)")
    add(
        "--retry_rejected",
        "--retry_set_aside",
        action="store_true",
        help="ask again about the rejected expressions, after a change of the model or the options",
    )
    add("--max_requests", type=int, help="limit of billed requests over all runs with this --output")
    add("--max_tokens_total", type=int, help="limit of prompt and completion tokens over all runs with this --output")


def json_object(text: str) -> dict[str, Any]:
    """A JSON object of the command line. Raises ValueError for anything else."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError
    return value
