"""Whole files or none, and names or paths to objects."""

import json

import pytest

from veason.errors import DataError
from veason.files import atomic_path, write_json, write_text
from veason.registry import load_by_name


def test_a_failed_write_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "new" / "x.json"
    write_json(path, {"a": "\ud800"})
    assert json.loads(path.read_text()) == {"a": "\ud800"}
    (path.parent / "x.json.part").write_text("of a killed process")
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": "\ud800"} and [file.name for file in path.parent.iterdir()] == [
        "x.json"
    ]
    with pytest.raises(KeyError), atomic_path(path) as part:
        part.write_text("half")
        raise KeyError
    assert json.loads(path.read_text()) == {"a": "\ud800"}
    write_text(path, "whole")
    assert path.read_text() == "whole"


def test_names_and_paths_lead_to_objects():
    table = {"read": "veason.files:write_text", "three": 3}
    assert load_by_name("read", table, "key") is write_text and load_by_name("three", table, "key") == 3
    assert load_by_name("veason.tracking.base:BaseTracker.track", {}, "key").__name__ == "track"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("reed", "key: 'reed' is unknown; did you mean read? (or give package.module:name)"),
        ("x", "key: 'x' is unknown; choose read (or give package.module:name)"),
        ("no.such:thing", "key: no.such:thing cannot be imported (No module named 'no')"),
        ("veason.files:thing", "cannot be imported (module 'veason.files' has no attribute 'thing')"),
    ],
)
def test_what_leads_nowhere_is_answered_in_one_line(name, says):
    with pytest.raises(DataError) as error:
        load_by_name(name, {"read": "veason.files:write_text"}, "key")
    assert says in str(error.value) and "\n" not in str(error.value)
