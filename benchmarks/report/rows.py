"""
benchmarks.report.rows
######################
The rows of a table: models over their seeds, and whether they were measured alike.
"""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from benchmarks.lib.runs import Result, load
from benchmarks.report.cells import same

# Facts of the card that every row of a table must share. The length of history is each model's own choice and has a
# column; versions, commit and device do not change what is measured, only how fast.
SHARED = (
    "dataset",
    "users",
    "items",
    "interactions",
    "core_filter",
    "value_filter",
    "pairs_once",
    "split",
    "group_by",
    "order",
    "ranking",
    "seen_items_masked",
    "first_interactions_only",
    "targets",
    "valid_metric",
)


PEERS = ("RecTools-SASRec", "RecTools-BERT4Rec")  # models of another package, see :mod:`benchmarks.peers`
ODD = "†"


class Row(NamedTuple):
    """One model over its seeds."""

    name: str
    results: list[Result]

    def values(self, value: Callable[[dict], Any]) -> list:
        """Something of every seed's result."""
        return [value(result.content) for result in self.results]

    def metric(self, name: str, part: str = "test_result") -> list[float]:
        """A metric of every seed."""
        return self.values(lambda content: content[part][name])

    @property
    def validation(self) -> float:
        """Mean of the best validation score over seeds: rows are ordered and chosen by this, never by the test."""
        return mean(self.values(lambda content: content["best_valid_score"]))

    @property
    def method(self) -> str:
        """Which parts of its method ran, in a few words, from the recorded settings."""
        return same(self.values(short_method))

    @property
    def shown(self) -> str:
        """The name with the method."""
        return f"{self.name} ({self.method})" if self.method else self.name

    @property
    def timed(self) -> "Row":
        """The runs on the device of the first one: seconds of two devices have no mean."""
        devices = self.values(lambda content: content["card"]["device"])
        return self._replace(results=[result for result, device in zip(self.results, devices) if device == devices[0]])

    @property
    def masked(self) -> bool:
        """Whether its runs leave seen items out of their ranking, in validation too, as RecBole's general models do."""
        return all(self.values(lambda content: content["card"].get("seen_items_masked")))

    @property
    def clock(self) -> str:
        """What stands behind times that are not those of a CPU: there, core-seconds say little."""
        return "" if self.results[0].content["card"]["device"].startswith("cpu") else " (GPU)"


def short_method(content: dict) -> str:
    """Which parts of its method a run has, in a few words; empty where its settings do not tell."""
    from recbole_contrec.settings.method import method_of
    from recbole_contrec.training.card import LEFT_OPEN

    settings = dict(content.get("settings") or {})
    settings.update({name: 0.0 for name in LEFT_OPEN if name in settings and settings[name] is None})  # nothing to hear
    settings.update({name: found["value"] for name, found in (content.get("chosen_on_validation") or {}).items()})
    if method := method_of(settings):
        return method.short
    if content["card"].get("model") in PEERS:
        return "as in RecTools"
    if not _is_recbole(content["card"].get("model")):
        return ""
    started = ", item embeddings from a file" if settings.get("item_embeddings") else ""
    repeats = ", repeat bias afterwards" if has_fitted_bias(content) else ""
    return f"as in RecBole{_other_history(content['card'])}{started}{repeats}"


def has_fitted_bias(content: dict) -> bool:
    """Whether a run is that of a model of RecBole which got a repeat bias after training."""
    return "repeat_bias" in content


def _other_history(card: dict) -> str:
    """The length of history of a model of RecBole, where it is not RecBole's default."""
    from recbole_contrec.settings.recbole_models import recbole_settings

    length = card.get("max_history")  # general models have none
    default = recbole_settings()["MAX_ITEM_LIST_LENGTH"].default
    return "" if length in (None, default) else f", histories of {length}"


def rows(folder: Path, names: Iterable[str] | None = None) -> list[Row]:
    """The rows of a table, the best on validation first; behind them those that leave seen items out of it.

    Raises:
        ValueError: there is no finished run.
    """
    found = [Row(name, results) for name, results in load(folder).items() if names is None or name in names]
    if not found:
        raise ValueError(f"{folder} holds no finished run")
    return sorted(found, key=lambda row: (row.masked, -row.validation))


def is_baseline(row: Row) -> bool:
    """Whether a model is one of RecBole's, or the network of one under our training."""
    return any(
        base.__module__.startswith("recbole.model.") and "abstract" not in base.__module__
        for base in _model_class(row).__mro__
    )


def is_recbole(row: Row) -> bool:
    """Whether a model is one of RecBole's, trained as RecBole trains it, and with nothing added."""
    content = row.results[0].content
    return _is_recbole(content["card"]["model"]) and not has_fitted_bias(content)


def is_control(row: Row) -> bool:
    """Whether a model is the network of one of RecBole's sequential models under our training."""
    from recbole.model.abstract_recommender import SequentialRecommender

    model = row.results[0].content["card"]["model"]
    return is_baseline(row) and not _is_recbole(model) and issubclass(_model_class(row), SequentialRecommender)


def _is_recbole(model: str | None) -> bool:
    """Presets of its models, too; not what is no model here, such as one of another package."""
    return model is not None and is_registered(model) and _entry(model).is_recbole


def is_registered(model: str) -> bool:
    """Whether a model of this name can be run here."""
    from recbole_contrec.catalogue.places import properties_folders
    from recbole_contrec.settings.registry import model_exists

    return model_exists(model, properties_folders())


def recbole_name(row: Row) -> str | None:
    """The model of RecBole that a row's model is, or is a preset of."""
    return _entry(row.results[0].content["card"]["model"]).recbole_name


def _model_class(row: Row) -> type:
    return _entry(row.results[0].content["card"]["model"]).model_class


def _entry(model: str) -> Any:
    from recbole_contrec.catalogue.places import properties_folders

    return _entry_of(model, tuple(folder.resolve() for folder in properties_folders()))


@cache
def _entry_of(model: str, folders: tuple[Path, ...]) -> Any:
    """Every table asks for the same few models, whose YAML files take a while to read."""
    from recbole_contrec.settings.registry import find_model

    return find_model(model, folders)


def mismatches(table: list[Row]) -> dict[str, list[str]]:
    """By row: what it does not share with the first row, of the facts of its card and of the files of interactions."""
    wanted = _shared(table[0].results[0].content) if table else {}
    found = {}
    for row in table:
        own = row.values(_shared)
        if different := [key for key in wanted if any(facts.get(key, wanted[key]) != wanted[key] for facts in own)]:
            found[row.name] = different
    return found


def _shared(content: dict) -> dict[str, Any]:
    """What all results of a table must have alike; those of earlier versions name no files."""
    files = content.get("data") or {}
    return {
        **{key: content["card"].get(key) for key in SHARED},
        **{name: files[name] for name in files if name.endswith(".inter")},
    }


def shown_name(row: Row, odd: dict[str, list[str]]) -> str:
    """The name, marked where :func:`mismatches` has the row."""
    return f"{row.name} {ODD}" if row.name in odd else row.name


def notes_on(odd: dict[str, list[str]], first: Row) -> list[str]:
    """What the marks mean, a line each; the rows were not measured like ``first``."""
    return [
        f"\n{ODD} {name} differs from {first.name} in {', '.join(keys)}: not comparable" for name, keys in odd.items()
    ]


def masked_alone(table: list[Row]) -> set[str]:
    """The rows that leave seen items out of their ranking while others of the table rank them. What these have in
    common is the test without seen items; validation and paired tests do not compare them."""
    found = {row.name for row in table if row.masked}
    return found if len(found) < len(table) else set()


def odd_beside_masking(table: list[Row]) -> dict[str, list[str]]:
    """:func:`mismatches` without what a row of :func:`masked_alone` is known for: not even its masked test compares."""
    alone = masked_alone(table)
    found: dict[str, list[str]] = {}
    for name, keys in mismatches(table).items():
        if keys := [key for key in keys if name not in alone or key != "seen_items_masked"]:
            found[name] = keys
    return found
