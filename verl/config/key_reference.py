"""The keys of a configuration with defaults and comments, read from the dataclasses themselves: for --help and docs."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any, get_type_hints

GROUP = re.compile(r"#\s*--\s*(.+)")  # a comment line that begins a group of keys
WIDTH = 100  # of the text of --help


@dataclass(frozen=True)
class ConfigKey:
    """One key.

    Attributes:
        name: dotted, from the root.
        type: as written in the source.
        default: as YAML; "required" for a key without which nothing can run.
        comment: what it means.
    """

    name: str
    type: str
    default: str
    comment: str


@dataclass(frozen=True)
class ConfigKeyGroup:
    """Keys that stand together: a section, or a part of one; `summary` is one sentence."""

    title: str
    summary: str
    keys: tuple[ConfigKey, ...]


def read_key_groups(schema: type, prefix: str = "", title: str | None = None) -> list[ConfigKeyGroup]:
    """The groups of a dataclass and of the dataclasses in it, in the source's order.

    Args:
        prefix: before each key, with its dot.
        title: of keys outside any group; the section's name, or the class's, by default.
    """
    summary = inspect.cleandoc(schema.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    annotations, hints = _annotations(schema), get_type_hints(schema)
    current = (title or prefix.rstrip(".") or schema.__name__, summary)
    found: dict[tuple[str, str], list[ConfigKey]] = {}
    nested: list[ConfigKeyGroup] = []
    for item in fields(schema):
        type_text, comment, group = annotations[item.name]
        if is_dataclass(hints[item.name]):
            nested += read_key_groups(hints[item.name], f"{prefix}{item.name}.")
            continue
        current = (group, "") if group else current
        key = ConfigKey(prefix + item.name, type_text, _default(item), comment)
        found.setdefault(current, []).append(key)
    return [ConfigKeyGroup(name, summary, tuple(keys)) for (name, summary), keys in found.items()] + nested


def _annotations(schema: type) -> dict[str, tuple[str, str, str | None]]:
    """Field -> its type, its comment, and the group that begins with it."""
    source = textwrap.dedent(inspect.getsource(schema))
    lines = source.splitlines()
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.ClassDef)
    found, previous = {}, 0
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above = [line.strip() for line in lines[previous : node.lineno - 1] if line.strip().startswith("#")]
            group = next((match[1] for line in above if (match := GROUP.match(line))), None)
            after = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset :].strip()
            own = [after] if after.startswith("#") else [line for line in above if not GROUP.match(line)]
            comment = " ".join(line.lstrip("#").strip() for line in own)
            found[node.target.id] = (ast.unparse(node.annotation), comment, group)
        previous = node.end_lineno or node.lineno
    return found


def _default(item: Field[Any]) -> str:
    value = item.default_factory() if item.default_factory is not MISSING else item.default
    return "required" if value is MISSING or value == "???" else as_yaml(value)


def as_yaml(value: Any) -> str:
    """A value as it is written in a YAML file or an override."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_yaml(each)}" for key, each in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) and value != int(value) else str(value)


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for help."""
    return any(word in ("-h", "--help") for word in arguments)


def help_text(
    description: str, groups: Sequence[ConfigKeyGroup], arguments: Sequence[str] = (), extra: str = ""
) -> str:
    """What --help prints: the description, whose commands are examples, and each key with default and comment.

    Args:
        arguments: of the command line; another word beside --help shows the keys that contain it. Switches and
            key=value, such as those of a launcher, are no such words.
        extra: switches that are no keys, line by line.
    """
    words = [word for word in arguments if not word.startswith("-") and "=" not in word]
    shown = [(group, [key for key in group.keys if all(word in key.name for word in words)]) for group in groups]
    lines = [inspect.cleandoc(description), "", *([inspect.cleandoc(extra), ""] if extra else [])]
    if not words:
        lines += ["Keys, with their defaults; `--help WORD` shows those with WORD in their name.", ""]
    for group, keys in shown:
        if keys:
            lines += [f"{group.title}{': ' if group.summary else ''}{group.summary}", *_key_lines(keys), ""]
    if not any(keys for _, keys in shown):
        lines.append(f"no key contains {' '.join(words)}")
    return "\n".join(lines).rstrip()


def _key_lines(keys: Sequence[ConfigKey]) -> Iterator[str]:
    for key in keys:
        yield f"  {key.name}={key.default if key.default != 'required' else '...  (required)'}"
        yield from textwrap.wrap(key.comment, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)


def markdown_table(groups: Sequence[ConfigKeyGroup]) -> str:
    """The groups as sections of a Markdown page, each with a table of its keys."""
    parts = []
    for group in groups:
        rows = [
            f"| `{key.name}` | {_cell(key.type)} | {_cell(key.default)} | {_escape(key.comment)} |"
            for key in group.keys
        ]
        head = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        summary = textwrap.wrap(group.summary, 120)
        parts.append("\n".join([f"### {group.title}", "", *summary, *([""] if summary else []), *head, *rows]))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return _escape(text) if "/" in text else f"`{_escape(text)}`"  # code with a slash reads as a path of this project


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
