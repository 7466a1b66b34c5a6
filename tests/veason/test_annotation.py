"""What an annotation file may not hold: each is refused when it is read, in one line that names the place."""

import json

import pytest

from tests.official_folders import FOLDERS
from veason.data import open_benchmark
from veason.data.annotation import as_name
from veason.errors import DataError
from veason.video.natural_order import natural_key


def opened(tmp_path, name, file, change):
    """Open the official-shaped folder after a change of an annotation file's video and of its first expression."""
    FOLDERS[name][0](tmp_path / "data")
    path = tmp_path / "data" / file
    content = json.loads(path.read_text())
    path.write_text(change(content) or json.dumps(content))
    return open_benchmark(FOLDERS[name][1], tmp_path / "data", FOLDERS[name][2])


def expression(key, value):
    def change(content):
        content["videos"]["TAO/frames/v1"]["expressions"]["0"][key] = value

    return change


def video(key, value):
    def change(content):
        content["videos"]["TAO/frames/v1"][key] = value

    return change


def renamed(old, new):
    return lambda content: json.dumps(content).replace(f'"{old}": {{', f'"{new}": {{')


def exp_id_twice(content):
    return json.dumps(content).replace('"1": {"exp"', '"0": {"exp"')


def video_twice(content):
    text = json.dumps(content["videos"]["TAO/frames/v1"])
    return f'{{"videos": {{"v": {text}, "v": {text}}}}}'


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (expression("anno_id", "12"), r"video TAO/frames/v1, expression 0: its anno_id is '12', not a list"),
        (expression("anno_id", 12), "expression 0: its anno_id is 12, not a list"),
        (expression("anno_id", [None]), "expression 0: one of its anno_id is null, neither a number nor a text"),
        (expression("anno_id", [True]), "expression 0: one of its anno_id is True, neither a number nor a text"),
        (expression("anno_id", [""]), "expression 0: one of its anno_id is '', neither a number nor a text"),
        (expression("type_id", 3), r"expression 0: type_id is 3; it can be 0 \(referring\), 1"),
        (expression("exp", 5), "expression 0: its text is 5, not a text"),
        (exp_id_twice, r"meta_expressions_valid_\.json \(the key '0' stands twice in one object\)"),
        (video_twice, r"meta_expressions_valid_\.json \(the key 'v' stands twice in one object\)"),
        (
            renamed("0", "../../../victim"),
            "expression ../../../victim: the id '../../../victim' cannot be a file's name",
        ),
        (renamed("0", ".."), r"expression \.\.: the id '\.\.' cannot be a file's name"),
        (renamed("0", ""), "expression : its id is '', neither a number nor a text"),
        (renamed("0", "/abs"), "the id '/abs' cannot be a file's name"),
        (renamed("0", "x" * 300), "its id is 'x+"),
        (renamed("TAO/frames/v1", "../v1"), r"video \.\./v1: its name '\.\./v1' cannot be a file's name"),
        (renamed("TAO/frames/v1", "/v1"), "its name '/v1' cannot be a file's name"),
        (renamed("TAO/frames/v1", "a//v1"), "its name 'a//v1' cannot be a file's name"),
        (renamed("TAO/frames/v1", r"a\u0000b"), "its name 'a.x00b' cannot be a file's name"),
        (renamed("TAO/frames/v1", r"a\ud800b"), "its name 'a.ud800b' cannot be a file's name"),
        (video("frames", ["00000", "00000"]), "video TAO/frames/v1: '00000' stands twice among its frames"),
        (video("frames", ["../00000"]), "one of its frames '../00000' cannot be a file's name"),
        (video("frames", [0, 1]), "one of its frames is 0, not a text"),
        (video("frames", "0000"), "its frames is '0000', not a list"),
        (video("height", "48"), r"height '48' and width \d+ are no size of a picture"),
        (video("height", -48), "height -48 and"),
        (video("expressions", "none"), "the list of expressions is 'none', not a list"),
        (video("expressions", {"0": "the dog"}), "expression 0: it is 'the dog', not an object"),
    ],
)
def test_the_place_is_named(tmp_path, change, says):
    with pytest.raises(DataError, match=says) as error:
        opened(tmp_path, "revos", "meta_expressions_valid_.json", change)
    assert "meta_expressions_valid_.json" in str(error.value) and "\n" not in str(error.value)


def test_results_are_never_written_outside_a_run(tmp_path):
    """An exp_id that leads out of the run's folder once had another folder removed."""
    (tmp_path / "victim").mkdir()
    with pytest.raises(DataError, match="victim"):
        opened(tmp_path, "reasonvos", "meta_expressions.json", _exp_id("../../../victim"))
    with pytest.raises(DataError, match=r"its source '\.\./x' cannot be a file's name"):
        (tmp_path / "data").rename(tmp_path / "earlier")
        opened(tmp_path, "reasonvos", "meta_expressions.json", lambda c: c["videos"]["v1"].update(source="../x"))
    assert (tmp_path / "victim").is_dir()


def _exp_id(value):
    def change(content):
        content["videos"]["v1"]["expressions"][0]["exp_id"] = value

    return change


def test_one_expression_of_an_object_twice(tmp_path):
    with pytest.raises(DataError, match=r"meta_expressions\.json: 2 expressions have the id BURST_v1_1/1"):
        opened(tmp_path, "reasonvos", "meta_expressions.json", _exp_id(1))


def test_the_number_of_an_object_is_a_number(tmp_path):
    def change(content):
        content["videos"]["v1"]["expressions"]["0"]["obj_id"] = "one"

    with pytest.raises(DataError, match="video v1, expression 0: its obj_id is 'one', not a number"):
        opened(tmp_path, "refdavis17", "meta_expressions/valid/meta_expressions.json", change)


def test_frames_are_in_natural_order(tmp_path):
    names = [f"frame{number}" for number in range(13)]
    assert sorted(names, key=natural_key) == names
    assert sorted(names) != names
    padded = ["v_0009", "v_0010", "v_0100"]
    assert sorted([padded[2], padded[0], padded[1]], key=natural_key) == padded
    assert sorted(["a1b", "a1", "a", "a1b2"], key=natural_key) == ["a", "a1", "a1b", "a1b2"]
    assert natural_key("9" * 5000) < natural_key("9" * 5001)  # more digits than int() takes

    def change(content):
        content["videos"]["TAO/frames/v1"]["frames"] = ["f10", "f2", "f0", "f1"]

    FOLDERS["revos"][0](tmp_path / "data")
    path = tmp_path / "data" / "meta_expressions_valid_.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    benchmark = open_benchmark("revos", tmp_path / "data", check=False)
    assert benchmark.samples[0].frames == ("f0", "f1", "f2", "f10")


@pytest.mark.parametrize("name", ["v", "a-b c.d", "ü", "-LKBn7vEbMFg", "..a", "a..b"])
def test_odd_but_usable_names(name):
    assert as_name(name, "video") == name
