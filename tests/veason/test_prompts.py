import pytest

from veason.errors import DataError
from veason.prompts import DEFAULT_TEMPLATE, SYSTEM_PROMPT, build_messages, clean_expression, load_template


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Dog.", "the dog"),
        ("which one runs?", "which one runs?"),
        (" A cat. ", "a cat"),
        ("U.S. flag", "u.s. flag"),
    ],
)
def test_clean_expression(text, expected):
    assert clean_expression(text) == expected


def test_each_time_stands_before_its_image():
    system, user = build_messages("The Dog.", [3, 8, 13])
    assert system == {"role": "system", "content": [{"type": "text", "text": SYSTEM_PROMPT}]}
    assert user["role"] == "user"
    kinds = [part["type"] for part in user["content"]]
    assert kinds == ["text", "image"] * 3 + ["text"]
    assert all(part == {"type": "image"} for part in user["content"] if part["type"] == "image")
    assert [user["content"][position]["text"] for position in (0, 2, 4)] == ["(3s)", ", (8s)", ", (13s)"]
    question = user["content"][-1]["text"]
    assert '"the dog"' in question and "560 x 560" in question and "These are 3 frames" in question
    assert '{"keyframe_timestamp": time, "bbox_2d_list": [[x1, y1, x2, y2]]}' in question


def test_the_expression_is_inserted_last_and_verbatim():
    text = build_messages("a {width} {count} sign", [0])[1]["content"][-1]["text"]
    assert "a {width} {count} sign" in text


def test_a_template_is_text_or_a_file(tmp_path):
    path = tmp_path / "wording.txt"
    path.write_text("Find {expression} in {width} by {height}.\n")
    from_file = build_messages("X", [0], str(path), size=(100, 200))[1]["content"][-1]["text"]
    assert from_file == " \nFind x in 200 by 100."
    assert build_messages("X", [0], "Where is {expression}?")[1]["content"][-1]["text"] == " \nWhere is x?"
    assert load_template(None) == DEFAULT_TEMPLATE


def test_a_template_without_the_expression_is_refused(tmp_path):
    path = tmp_path / "wording.txt"
    path.write_text("Find it.")
    with pytest.raises(DataError, match=r"wording\.txt has no"):
        load_template(path)
    with pytest.raises(DataError, match="neither"):
        load_template("Find it.")
