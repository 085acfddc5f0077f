"""
recbole_contrec.settings.given
##############################
What the user has set: by YAML files, a dictionary as RecBole takes it, Python values, and the command line. It is read
as what it says, checked against what is known of every setting, and remembered with the way it came.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_contrec.errors import UserError
from recbole_contrec.settings.parts import check_form, check_size
from recbole_contrec.settings.python_values import python_settings, without_numpy
from recbole_contrec.settings.renamed import unknown_setting
from recbole_contrec.settings.schema import Setting, parse_arguments, parse_value, read_yaml
from recbole_contrec.showing import show


class Given:
    """The settings of a user, way by way.

    Args:
        arguments: of the command line, by key, as they were written.
        python_values: settings as Python values; they go before the dictionary.
    """

    def __init__(self, arguments: dict[str, str], python_values: Mapping[str, Any]):
        self.arguments, self.python_values = arguments, python_values
        self._texts: dict[str, str] = {}  # of the dictionary, as they were written
        self._origin: dict[str, str] = {}  # key -> where it was set

    # the ways

    def of_files(self, files: Iterable[str | Path]) -> dict[str, Any]:
        """What YAML files say; the last one counts."""
        merged: dict[str, Any] = {}
        for file in files:
            values = read_yaml(Path(file))
            merged.update(values)
            self._origin.update(dict.fromkeys(values, str(file)))
        return merged

    def of_dictionary(self, dictionary: Mapping[str, Any] | None) -> dict[str, Any]:
        """What a dictionary says, a text such as ``"[5, 10]"`` as what it means; and the Python values over it."""
        given = {key: value for key, value in (dictionary or {}).items() if key not in self.python_values}
        self._texts = {key: value for key, value in given.items() if isinstance(value, str)}
        read = {
            key: parse_value(value) if isinstance(value, str) else without_numpy(value) for key, value in given.items()
        }
        return {**read, **self.python_values}

    def of_command_line(self) -> dict[str, Any]:
        """What the arguments mean."""
        return {key: parse_value(text) for key, text in self.arguments.items()}

    # checks

    def check(
        self,
        files: dict[str, Any],
        from_python: dict[str, Any],
        command_line: dict[str, Any],
        known: Mapping[str, Setting],
        takes_any_key: bool,
    ) -> None:
        """Check every key and value, and put the value that is meant in the place of what was written.

        Args:
            files, from_python, command_line: what the three methods above gave; they are changed.
            known: every setting by key.
            takes_any_key: whether other keys are let through.

        Raises:
            UserError: an unknown key, or a value of another type or out of bounds; says where it was set.
        """
        self._check(files, {}, None, known, takes_any_key)
        self._check(from_python, self._texts, "config_dict", known, takes_any_key, but=self.python_values)
        of_dictionary = from_python.keys() - self.python_values
        self._check(from_python, {}, "settings", known, takes_any_key, but=of_dictionary)
        self._check(command_line, self.arguments, "command line", known, takes_any_key)

    def _check(
        self,
        given: dict[str, Any],
        texts: Mapping[str, str],
        where: str | None,
        known: Mapping[str, Setting],
        takes_any_key: bool,
        but: Container[str] = (),
    ) -> None:
        """Check what came one way (``texts`` as it was written) but for some keys, and remember that way."""
        for key, value in [(key, value) for key, value in given.items() if key not in but]:
            self._origin[key] = where or self._origin[key]
            setting = known.get(key)
            if setting is None and takes_any_key:
                continue
            if setting is None:
                raise UserError(f"{self._origin[key]}: {unknown_setting(key, known)}")
            if key in texts and not setting.accepts(value) and setting.accepts(texts[key]):
                value = texts[key]  # --gpu_id=0 for a setting that is a text
            try:
                check_form(key, value)
                given[key] = setting.check(value)
                if setting.constraint is None:
                    check_size(key, value)
            except UserError as error:
                raise UserError(f"{self._origin[key]}: {error}") from None

    # for people

    def described(self, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
        """Those values that are not as by default, by where they were set; empty where all are."""
        changed: dict[str, list[str]] = {}
        for key, value in values.items():
            if key not in defaults or value != defaults[key]:
                changed.setdefault(Path(self._origin[key]).name, []).append(f"{key}={show(value)}")
        return "; ".join(f"{', '.join(settings)} ({where})" for where, settings in changed.items())


def given_settings(
    config_file_list: Sequence[str], settings: Mapping[str, Any] | None, arguments: Sequence[str]
) -> dict[str, Any]:
    """Settings as the user gave them: those of files, over these the dictionary, over both the command line."""
    files = {key: value for file in config_file_list for key, value in read_yaml(Path(file)).items()}
    line = {key: parse_value(text) for key, text in parse_arguments(arguments).items()}
    return {**files, **python_settings(settings), **line}
