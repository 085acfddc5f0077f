"""
benchmarks.lib.command_line
###########################
What every script does alike: options, ``--key=value`` settings, and one line with exit code 2 for what cannot be.
"""

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path


def told(main: Callable[..., int]) -> Callable[..., int]:
    """A script whose user errors are a line and exit code 2."""

    @wraps(main)
    def call(arguments: list[str] | None = None) -> int:
        from recbole_contrec import UserError

        try:
            return main(arguments)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return call


class Parser(argparse.ArgumentParser):
    """A parser that shows its description as it is written, and answers what it does not understand in a line."""

    def __init__(self, description: str):
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )

    def error(self, message: str):
        self.exit(2, f"error: {message}; see --help\n")


def number(kind: type, low: float, high: float | None, text: str):
    """A number of some type from a command line, within bounds; ``high`` may be None."""
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no {'whole ' if kind is int else ''}number") from None
    if not (low <= value < math.inf) or high is not None and value > high:
        raise argparse.ArgumentTypeError(f"{text} is not {f'from {low} to {high}' if high else f'at least {low}'}")
    return value


def name_of_a_folder(text: str) -> str:
    """A name that becomes part of a path, and must not leave the folder for results."""
    if not text or text in (".", "..") or "/" in text or "\\" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no name: give one without slashes")
    return text


def results_folder(text: str) -> Path:
    """A place for results."""
    path = Path(text)
    existing = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise argparse.ArgumentTypeError(f"{existing} is no folder that can be written to")
    return path


def parse_with_settings(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Options, and as ``settings`` whatever else has the form ``--key=value``."""
    given, rest = parser.parse_known_args(_with_spaced_first(sys.argv[1:] if arguments is None else arguments))
    refuse_odd_settings(parser, rest)
    if fixed := [argument for argument in rest if argument.startswith(("--topk=", "--metrics="))]:
        parser.error(
            f"{fixed[0]}: the tables show Hit, NDCG and MRR at 5, 10 and 20, as the protocol has them; "
            "run_recbole_contrec.py takes others"
        )
    given.settings = tuple(rest)
    return given


def _with_spaced_first(arguments: Sequence[str]) -> list[str]:
    """Settings with blanks in their value before the options: argparse takes such an argument for no option, and behind
    ``--models A B`` for one more model."""
    spaced = [argument for argument in arguments if re.match(r"--\w+=.*\s", argument)]
    return [*spaced, *(argument for argument in arguments if argument not in spaced)]


def refuse_odd_settings(parser: argparse.ArgumentParser, rest: Sequence[str]) -> None:
    """Settings have the form ``--key=value``, and each stands once."""
    if odd := [argument for argument in rest if not argument.startswith("--") or "=" not in argument]:
        parser.error(f"{', '.join(odd)}: settings are --key=value")
    keys = [argument[2:].partition("=")[0] for argument in rest]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        parser.error(f"given twice: {', '.join(twice)}")


def require_pictures() -> None:
    """Stop before anything runs where pictures of it could not be drawn.

    Raises:
        UserError: matplotlib is missing; says how to install it.
    """
    from recbole_contrec.packages import require

    require("matplotlib", "drawing what was measured")
