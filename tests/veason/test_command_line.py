"""Options of argparse programs: `--key value`, `--key=value` and `key=value` are equal."""

import argparse

import pytest

from veason.command_line import parse_arguments


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--absent", action="store_true")
    parser.add_argument("--export", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("overrides", nargs="*")
    return parser


@pytest.mark.parametrize(
    "arguments",
    [["--output", "steps=2", "--steps", "3"], ["--output=steps=2", "--steps=3"], ["output=steps=2", "steps=3"]],
)
def test_three_forms_of_an_option(parser, arguments):
    options = parse_arguments(parser, arguments)
    assert (options.output, options.steps, options.overrides) == ("steps=2", 3, [])


def test_switches_and_overrides(parser):
    options = parse_arguments(parser, ["absent=true", "export=false", "trainer.steps=3", "model/lr=1e-6"])
    assert options.absent and not options.export and options.overrides == ["trainer.steps=3", "model/lr=1e-6"]
    options = parse_arguments(parser, ["absent=false", "export=true"])
    assert not options.absent and options.export
    with pytest.raises(SystemExit):
        parse_arguments(parser, ["absent=maybe"])
