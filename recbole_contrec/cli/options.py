"""
recbole_contrec.cli.options
###########################
The fixed options of a command, on argparse, beside RecBole's free ``--key=value``.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from recbole_contrec.errors import UserError, did_you_mean

PROGRAM = "python run_recbole_contrec.py"


class Parsed(NamedTuple):
    """What a command was given."""

    options: argparse.Namespace
    settings: list[str]  # all other arguments, in their order


class Command(argparse.ArgumentParser):
    """A parser that takes options as ``--key=value``, each once, and whose errors are those of this package.

    Args:
        name: the word that chooses the command; empty for training.
        description, epilog: for ``--help``, before and after the options.
    """

    def __init__(self, name: str, description: str, epilog: str):
        super().__init__(
            prog=f"{PROGRAM} {name}".strip(),
            description=description,
            epilog=epilog,
            formatter_class=_Help,
            allow_abbrev=False,
            add_help=False,
        )
        self._flags: set[str] = set()
        self._valued: set[str] = set()

    def value(self, name: str, metavar: str, help: str, type: Callable[[str], Any] = str, default: Any = None) -> None:
        """An option ``--name=METAVAR``."""
        self._valued.add(name)
        self.add_argument(f"--{name}", metavar=metavar, help=help, type=type, default=default)

    def flag(self, name: str, help: str) -> None:
        """An option that is given alone, or as ``True`` or ``False``."""
        self._flags.add(name)
        self.add_argument(f"--{name}", help=help, action="store_true")

    def usual(self) -> None:
        """The options that every command ends with."""
        self.flag("debug", "show the traceback of an error")
        self.flag("help", "show this page (also -h)")

    def names(self) -> list[str]:
        """All options with their dashes."""
        return [f"--{name}" for name in sorted(self._flags | self._valued)]

    def read(self, arguments: Sequence[str]) -> Parsed:
        """Take the options out of the arguments; what remains is for RecBole's configuration.

        Raises:
            UserError: an option without a value, ``--key value`` in place of ``--key=value``, or an option twice with
                different values.
        """
        own: dict[str, str] = {}  # option -> the argument that gives it
        rest = []
        for place, argument in enumerate(arguments):
            name, equals, value = argument[2:].partition("=")
            if not argument.startswith("--") or name not in self._flags | self._valued:
                rest.append(argument)
            elif name in self._flags:
                if equals and value.lower() not in ("true", "false"):
                    raise UserError(f"--{name} is given alone, or as True or False, not {value!r}")
                if not equals or value.lower() == "true":
                    own[name] = f"--{name}"
            elif not equals:
                following = arguments[place + 1] if place + 1 < len(arguments) else "VALUE"
                raise UserError(f"write --{name}={following.lstrip('-')} with an equals sign")
            elif value == "--":  # argparse would take it for the end of all options
                raise UserError(f"--{name}=-- has no value")
            elif own.setdefault(name, argument) != argument:
                raise UserError(f"--{name} is given twice: {own[name]} and {argument}")
        return Parsed(self.parse_args(list(own.values())), rest)

    def read_all(self, arguments: Sequence[str]) -> argparse.Namespace:
        """:meth:`read` for a command that takes no settings.

        Raises:
            UserError: as :meth:`read`, or an option that the command does not have, with the nearest ones.
        """
        options, unknown = self.read(arguments)
        if unknown:
            name = unknown[0].lstrip("-").split("=")[0]
            near = did_you_mean(name, [option[2:] for option in self.names()])
            raise UserError(
                f"{self.prog.split()[-1]} has no option {unknown[0]}{near}; options have the form --key=value"
            )
        return options

    def shows_help(self, arguments: Sequence[str]) -> bool:
        """Print the page of the command where it is asked for, and say whether it was: nothing is given, or ``--help``
        is."""
        asked = not arguments or bool({"--help", "-h"} & set(arguments))
        if asked:
            self.print_help()
        return asked

    def error(self, message: str) -> NoReturn:
        """Instead of argparse's usage and exit.

        Raises:
            UserError: always.
        """
        raise UserError(message)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Options as they are written here, ``--key=VALUE``, and no usage line of all of them."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30, width=120)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        option = ", ".join(action.option_strings)
        return option if action.nargs == 0 else f"{option}={action.metavar}"

    def add_usage(
        self, usage: str | None, actions: Iterable[argparse.Action], groups: Iterable[Any], prefix: str | None = None
    ) -> None:
        """Each page begins with its description; its examples say how the command is used."""


def whole_number(name: str) -> Callable[[str], int]:
    """A type for argparse: a whole number of at least 1.

    Args:
        name: of the option, for the error.
    """

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = 0
        if number < 1:
            raise UserError(f"--{name}={text}: a whole number of at least 1 is needed")
        return number

    return read


def names(text: str) -> list[str]:
    """A type for argparse: names between commas."""
    return [name.strip() for name in text.split(",")]


def paths(text: str) -> list[str]:
    """A type for argparse: paths of files between commas or blanks."""
    return text.replace(",", " ").split()
