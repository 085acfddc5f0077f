"""
recbole_contrec.tuning.space
############################
The values that a search may give to settings, from a YAML file or one of RecBole's ``run_hyper.py``.
"""

import ast
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from optuna.trial import BaseTrial

from recbole_contrec.catalogue.places import properties_file
from recbole_contrec.errors import UserError
from recbole_contrec.settings.schema import read_yaml
from recbole_contrec.showing import show

FOLDER = "space"  # of properties
KEYS = {"low", "high", "step", "log"}


class Choice(NamedTuple):
    """One of some values, whatever they are."""

    values: tuple[Any, ...]

    def suggest(self, trial: BaseTrial, key: str) -> Any:
        """The value of a trial. A storage keeps names of values: lists are none of its types."""
        return self.by_name()[trial.suggest_categorical(key, list(self.by_name()))]

    def by_name(self) -> dict[str, Any]:
        """As a log shows them."""
        return {show(value): value for value in self.values}

    def name_of(self, value: Any) -> Any:
        """What a storage keeps for a value; None where it is not among these."""
        return show(value) if value in self.values else None

    def ends(self) -> Iterable[Any]:
        """Values by which all others can be judged."""
        return self.values


class Range(NamedTuple):
    """Numbers between two ends, both included: whole ones where both ends and the step are."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    def suggest(self, trial: BaseTrial, key: str) -> float:
        """The value of a trial."""
        if self.whole:
            return trial.suggest_int(key, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)

    @property
    def whole(self) -> bool:
        """Whether these are whole numbers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    def name_of(self, value: Any) -> float | None:
        """The value itself; None where it is no number between the ends, or none of the steps."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return None
        steps = (value - self.low) / (self.step or (1 if self.whole else 0) or math.inf)
        return value if math.isclose(steps, round(steps), abs_tol=1e-9) else None

    def ends(self) -> Iterable[float]:
        """Values by which all others can be judged."""
        return (self.low, self.high)


Space = dict[str, Choice | Range]


def find_space(model: str, folders: Iterable[Path]) -> Path | None:
    """The file ``space/MODEL.yaml`` of the first properties folder that has one."""
    return next((path for folder in folders if (path := properties_file(folder, FOLDER, model))), None)


def read_space(path: str | Path) -> Space:
    """Read a file: a mapping from settings to lists of values, or to ``{low, high, step, log}``. A file that does not
    end in ``.yaml`` or ``.yml`` has RecBole's lines, ``learning_rate loguniform -8,0``.

    Raises:
        UserError: it cannot be read, or names the line or setting that makes no sense.
    """
    path = Path(path)
    if path.suffix in (".yaml", ".yml"):
        space = {key: _parse(path, key, value) for key, value in read_yaml(path).items()}
    else:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the space {path}: {error}") from error
        space = dict(_recbole_line(path, line) for line in lines if line.strip() and not line.startswith("#"))
    if not space:
        raise UserError(f"{path} names no setting to search")
    return space


def _parse(path: Path, key: str, value: Any) -> Choice | Range:
    if isinstance(value, list) and value:
        return _choice(path, key, value)
    if isinstance(value, dict) and {"low", "high"} <= value.keys() <= KEYS:
        return _range(path, key, **value)
    raise UserError(
        f"{path}: {key}: {show(value)} is neither a list of values nor {{low: 1, high: 5}}, to which step: 1 or "
        "log: True may be added"
    )


def _choice(path: Path, key: str, values: Iterable[Any]) -> Choice:
    values = tuple(values)
    if len({show(value) for value in values}) < len(values):
        raise UserError(f"{path}: {key}: a value is there twice")
    return Choice(values)


def _range(path: Path, key: str, low: Any, high: Any, step: Any = None, log: Any = False) -> Range:
    numbers = [low, high] if step is None else [low, high, step]
    if any(isinstance(number, bool) or not isinstance(number, (int, float)) for number in numbers):
        raise UserError(f"{path}: {key}: low, high and step are numbers")
    if not all(map(math.isfinite, numbers)) or not low < high or step is not None and not 0 < step <= high - low:
        raise UserError(f"{path}: {key}: low is smaller than high, and step is greater than 0 and lies between them")
    if not isinstance(log, bool) or log and (step is not None or low <= 0):
        raise UserError(f"{path}: {key}: log is True or False; with it, low is greater than 0 and there is no step")
    if step is not None:  # the last value that a step reaches
        high = low + math.floor((high - low) / step + 1e-9) * step
    return Range(low, high, step, log)


def _recbole_line(path: Path, line: str) -> tuple[str, Choice | Range]:
    """``NAME choice [1, 2]``, ``NAME uniform LOW,HIGH``, ``NAME quniform LOW,HIGH,STEP``, or ``NAME loguniform
    LOW,HIGH`` with the logarithms of the ends, as hyperopt has them."""
    key, kind, *rest = [*line.split(maxsplit=2), "", ""][:3]
    try:
        given = ast.literal_eval(rest[0])
        if kind == "choice" and isinstance(given, (list, tuple)) and given:
            return key, _choice(path, key, given)
        if kind == "uniform":
            low, high = map(float, given)
            return key, _range(path, key, low, high)
        if kind == "loguniform":
            low, high = map(float, given)
            return key, _range(path, key, math.exp(low), math.exp(high), log=True)
        if kind == "quniform":
            low, high, step = given
            return key, _range(path, key, math.ceil(low / step) * step, high, step)
    except (ValueError, TypeError, SyntaxError, OverflowError, ZeroDivisionError):
        pass
    raise UserError(
        f"{path}: cannot read {line.strip()!r:.200}; lines are NAME choice [1, 2], NAME uniform 0.1,0.5, "
        "NAME quniform 1,5,1, or NAME loguniform -8,0"
    )
