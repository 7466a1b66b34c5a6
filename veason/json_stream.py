"""One value at a time out of a JSON object that is too large to load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from os import PathLike
from typing import Any, TextIO

from veason.errors import DataError

CHUNK = 4 << 20  # characters read at a time
_decoder = json.JSONDecoder()


def stream_items(path: str | PathLike[str]) -> Iterator[tuple[str, Any, int]]:
    """The members of the JSON object in a file, in order, each as (key, value, characters read so far).

    Memory holds one value and one chunk. The standard library's own decoder reads each value from the text at hand, and is asked
    again with more text when a value is cut by the end of it.

    Raises:
        DataError: the file is no JSON object, or is cut short; the position is named.
    """
    with open(path, encoding="utf-8") as file:
        window = _Window(file, str(path))
        window.expect("{")
        if window.peek() == "}":
            return
        while True:
            key = window.value()
            if not isinstance(key, str):
                raise window.error(f"a key was expected, not {key!r:.40}")
            window.expect(":")
            yield key, window.value(), window.consumed + window.start
            if window.expect(",}") == "}":
                return


class _Window:
    """The part of the text that has been read and not yet used."""

    def __init__(self, file: TextIO, name: str) -> None:
        self.file, self.name = file, name
        self.text, self.start, self.consumed = "", 0, 0  # characters of `text` used; characters dropped before it

    def more(self, amount: int = CHUNK) -> bool:
        chunk = self.file.read(amount)
        self.consumed += self.start
        self.text, self.start = self.text[self.start :] + chunk, 0
        return bool(chunk)

    def peek(self) -> str:
        """The next character that is not white space, left in place."""
        while True:
            while self.start < len(self.text) and self.text[self.start] in " \t\r\n":
                self.start += 1
            if self.start < len(self.text):
                return self.text[self.start]
            if not self.more():
                raise self.error("the file is cut short")

    def expect(self, characters: str) -> str:
        found = self.peek()
        if found not in characters:
            raise self.error(f"{' or '.join(characters)} was expected, not {found!r}")
        self.start += 1
        return found

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = _decoder.raw_decode(self.text, self.start)
            except json.JSONDecodeError as error:
                # a value that is cut by the end of the text fails there, or at the start of an open string
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self.text) - 16
                if cut and self.more(max(CHUNK, len(self.text))):  # doubling keeps a huge value linear
                    continue
                raise self.error("the file is cut short" if cut else error.msg, 0 if cut else error.pos - self.start) from error
            if end == len(self.text) and self.more():  # a number may go on
                continue
            self.start = end
            return value

    def error(self, reason: str, ahead: int = 0) -> DataError:
        return DataError(f"{self.name} is not a JSON object: {reason} (character {self.consumed + self.start + ahead})")
