"""What a server sent as a chat completion, read as far as it can be: nothing that it sends raises anything else than
`InvalidCompletion`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 16 << 20  # of a completion
MAX_TOKENS = 10**9  # of a completion; more is no count
FIRST_PRINTABLE = 32  # below it only tab and line breaks stand in a text


class InvalidCompletion(ValueError):
    """A completion that holds no answer; the message says why."""


@dataclass(frozen=True)
class Completion:
    """A teacher's answer and its cost.

    Attributes:
        prompt_tokens, completion_tokens: None where the server does not report them.
        complete: False when the answer was truncated at the server's token limit.
        model: that answered, as the server names it.
    """

    text: str
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    complete: bool = True
    model: str | None = None

    @property
    def tokens(self) -> int | None:
        """Prompt and completion; None where the server reports neither."""
        if self.prompt_tokens is None and self.completion_tokens is None:
            return None
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0)


def parse_completion(body: bytes) -> Completion:
    """A chat completion in the form of OpenAI's API, or in one of the forms that other servers send.

    The content may be a text or a list of parts, which are joined; a message may be its text; choices may be an object.
    Bytes that are not UTF-8, halves of surrogate pairs and control characters become U+FFFD.

    Raises:
        InvalidCompletion: it is not JSON, or has no choice or no text.
    """
    try:
        content = json.loads(body.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError) as error:  # a page, a truncated body, thousands of digits or brackets
        raise InvalidCompletion(f"the answer is not JSON: {_show(body)}") from error
    choice = _first_choice(content)
    if choice is None:
        raise InvalidCompletion(f"the answer holds no choice: {_show(body)}")
    message = choice.get("message", choice.get("text"))
    text = _text(message.get("content") if isinstance(message, dict) else message)
    if text is None:
        raise InvalidCompletion(f"the answer has no text: {_show(body)}")
    usage = content.get("usage")
    prompt, completion = (_count(usage, key) for key in ("prompt_tokens", "completion_tokens"))
    model = content.get("model")
    return Completion(
        clean_text(text),
        prompt,
        completion,
        complete=choice.get("finish_reason") != "length",
        model=clean_text(model)[:200] if isinstance(model, str) else None,
    )


def _first_choice(content: Any) -> dict[str, Any] | None:
    """The first choice, if it has a message or a text."""
    choices = content.get("choices") if isinstance(content, dict) else None
    if isinstance(choices, dict):
        choices = [choices] if {"message", "text"} & choices.keys() else list(choices.values())
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or choice.get("message", choice.get("text")) is None:
        return None
    return choice


def _text(content: Any) -> str | None:
    """The text of a message's content; "" for null, None for what holds no text."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return content["text"] if isinstance(content.get("text"), str) else None
    if not isinstance(content, list):
        return None
    parts = [part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, (str, dict))]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if texts or not content else None


def _count(usage: Any, key: str) -> int | None:
    value = usage.get(key) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def clean_text(text: str) -> str:
    """The text with U+FFFD for every character that a file or a terminal cannot hold."""
    return "".join(
        character
        if (ord(character) >= FIRST_PRINTABLE or character in "\t\n\r") and not 0xD800 <= ord(character) < 0xE000
        else "\ufffd"
        for character in text
    )


def _show(body: bytes) -> str:
    return clean_text(body[:600].decode("utf-8", errors="replace"))
