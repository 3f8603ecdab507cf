"""Options of the command lines: numbers that are refused with what is allowed."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import TypeVar

Number = TypeVar("Number", int, float)
MAX_SEED = 2**32 - 1


def number(kind: type[Number], least: float, most: float) -> Callable[[str], Number]:
    """A type for argparse: a number from `least` to `most`, these included."""

    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = kind(least - 1)
        if not least <= value <= most:  # nor is nan
            what = "whole numbers" if kind is int else "numbers"
            raise ArgumentTypeError(f"{text!r} is refused; allowed: {what} from {least:.12g} to {most:.12g}")
        return value

    return parse
