"""Options that take several values, on the command lines of both programs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from synthseg_slicer import cli as segmenting
from synthseg_training import cli as training


def options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Return every option of a program and its commands that takes any number of values."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from ((f"{name} {found}", option) for found, option in options(command))
        elif action.option_strings and action.nargs in ("+", "*"):
            yield action.option_strings[0], action


SEVERAL = {
    f"{program.prog} {name}": option
    for program in (segmenting._parser(), training._parser())
    for name, option in options(program)
}


def test_there_are_such_options_in_both_programs():
    assert {"synthseg-slicer batch --filter", "synthseg-train fit --set", "synthseg-train evaluate --names"} <= set(
        SEVERAL
    )


@pytest.mark.parametrize("name", SEVERAL)
def test_a_repeated_option_keeps_the_values_of_both(name):
    action = SEVERAL[name]
    parser, option = argparse.ArgumentParser(), action.option_strings[0]
    parser._add_action(action)

    def parsed(*words: str):
        return getattr(parser.parse_args(words), action.dest)

    default = parsed()
    words = ["1", "2", "3"]
    expected = [action.type(word) if action.type else word for word in words]
    assert parsed(option, *words[:2], option, words[2]) == parsed(option, *words) == expected  # not the default too
    assert parsed() == default  # nor is it changed


def test_settings_of_a_recipe_given_one_by_one_are_all_used():
    command = ["fit", "recipe.yaml", "--maps", "m.npz", "-o", "out", "--set", "seed=2", "ema=0.5", "--set", "clip=1"]
    assert training._parser().parse_args(command).set == ["seed=2", "ema=0.5", "clip=1"]
