import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veason import json_stream
from veason.json_stream import stream_items

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None, max_examples=40)
@given(
    content=st.dictionaries(st.text(), values, max_size=6),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
)
def test_every_object_comes_back_whatever_the_chunk(tmp_path_factory, content, chunk, indent, ascii_only):
    path = tmp_path_factory.mktemp("stream") / "a.json"
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    original = json_stream.CHUNK
    json_stream.CHUNK = chunk
    try:
        items = list(stream_items(path))
    finally:
        json_stream.CHUNK = original
    assert {key: value for key, value, _ in items} == content
    assert [position for *_, position in items] == sorted(position for *_, position in items)


def test_a_wrong_value_far_from_the_end_is_found_without_reading_on(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 1000)
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2, oops' + " " * 100_000 + "]}")
    with pytest.raises(ValueError, match=r"character 13"):
        list(stream_items(path))
