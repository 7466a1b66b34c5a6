"""Reads pickles of plain data (VISA's mask_dict.pkl): containers, texts, bytes and numbers, and nothing that runs."""

from __future__ import annotations

import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

from veason.errors import DataError


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How pickles of protocols 0 to 2 hold bytes: `_codecs.encode(text, "latin1")`."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding}")
    return text.encode("latin1")


ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("builtins", "list"): list,
    ("builtins", "dict"): dict,
    ("_codecs", "encode"): _latin1,
}


class PlainUnpickler(pickle.Unpickler):
    """An unpickler that knows the names of `ALLOWED` alone: a pickle of anything else is refused, and not run."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no plain data") from None


def load_plain(path: Path) -> Any:
    """The content of a pickle.

    Raises:
        DataError: it is damaged, or holds more than plain data; nothing of it has been run.
    """
    try:
        with open(path, "rb") as file:
            return PlainUnpickler(file).load()
    except FileNotFoundError:
        raise DataError(f"mask file is missing: {path}") from None
    except Exception as error:  # a damaged pickle raises errors of any kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is not read: {reason}") from error
