"""
recbole_contrec.data.recbole_files
##################################
Atomic files for RecBole's data sets, through the checks of this package. What is checked is what is read: RecBole's
own reader gets no second look at a file.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.data.dataset import Dataset
from recbole.utils import FeatureSource, FeatureType

from recbole_contrec.data.atomic import AtomicFile
from recbole_contrec.data.columns import ENTITIES, check_types
from recbole_contrec.data.headers import require_columns
from recbole_contrec.data.values import check_numbers, complete_rows, first_of_each, sequences
from recbole_contrec.errors import UserError, shown
from recbole_contrec.showing import show

logger = logging.getLogger("recbole_contrec")


@contextmanager
def reading_files(config: Mapping[str, Any]) -> Iterator["Files"]:
    """Let RecBole's data sets read through :class:`Files` until the block ends."""
    files, before = Files(config), Dataset._load_feat
    Dataset._load_feat = lambda dataset, path, source: files.load(dataset, path, source)
    try:
        yield files
    finally:
        Dataset._load_feat = before


class Files:
    """The atomic files of a run.

    Attributes:
        notes (list of str): what has been said about them.
    """

    def __init__(self, config: Mapping[str, Any]):
        self._config = config
        separator = config["seq_separator"]
        if not isinstance(separator, str) or separator in ("", config["field_separator"]):
            raise UserError(
                f"seq_separator={show(separator)} must be a text that stands between the parts of a "
                f"sequence, and another one than field_separator"
            )
        self._read: dict[Path, AtomicFile] = {}
        self.notes: list[str] = []

    def load(self, dataset: Dataset, path: str | Path, source: Any) -> pd.DataFrame | None:
        """What ``Dataset._load_feat`` gives: the columns that are asked for, sequences as arrays.

        Raises:
            UserError: whatever is wrong with the file.
        """
        load, unload = dataset._get_load_and_unload_col(source)
        if load == set():
            return None
        file = AtomicFile(path, self._config["field_separator"], self._config["encoding"])
        if source == FeatureSource.ITEM:
            self._read[file.path] = file
        names = [name for name in file.columns if (load is None or name in load) and name not in (unload or ())]
        if not names:
            self.tell([f"no column of {Path(path).name} is loaded"])
            return None
        columns = {name: file.columns[name] for name in names}
        check_types(file.path, columns, self._config, whole=source == FeatureSource.INTERACTION)
        self._register(dataset, columns, source)
        table, rows = self._rows(file, columns, source)
        if source == "link":
            self._check_link(dataset, file, table, rows)
        if source in (FeatureSource.ITEM, FeatureSource.USER):
            self._tell_events_without_features(dataset, file, table, source)
        for name, kind in columns.items():
            if kind.endswith("seq"):
                sequences: Any = self._sequences(dataset, file, table[name], rows, kind)
                table[name] = sequences
            elif kind == "token" and (empty := table[name] == "").any():
                table[name] = table[name].where(~empty, np.nan)
        return table

    def item_texts(self, path: Path, names: list[str]) -> pd.DataFrame:
        """Columns of the ``.item`` file as texts, one row an item; the first of ``names`` is the item's id. Where
        RecBole has not loaded it, a quotation mark that begins a field and is not closed is a character like others,
        for a title may begin with one.

        Raises:
            UserError: whatever else is wrong with the file.
        """
        file = self._read.get(path)
        if file is None:
            file = AtomicFile(path, self._config["field_separator"], self._config["encoding"], literal_quotes=True)
        table, rows, notes = complete_rows(file, file.table(names, as_texts=True), names[:1], ())
        table, _, twice = first_of_each(file, table, rows, names[0])
        self.tell([note for note in (*notes, *twice) if note not in self.notes])
        return table[names]

    def tell(self, notes: list[str]) -> None:
        """Say something about the files, aloud and for the record."""
        for note in notes:
            logger.warning(note)
        self.notes += notes

    def _rows(self, file: AtomicFile, columns: dict[str, str], source: Any) -> tuple[pd.DataFrame, np.ndarray]:
        """Complete rows, one an item or a user, and their numbers in the file."""
        suffix = source.value if isinstance(source, FeatureSource) else source
        config, events = self._config, source == FeatureSource.INTERACTION
        keys = {
            "inter": ("USER_ID_FIELD", "ITEM_ID_FIELD"),
            "item": ("ITEM_ID_FIELD",),
            "user": ("USER_ID_FIELD",),
            "kg": ENTITIES[:3],
            "link": ("ITEM_ID_FIELD", "ENTITY_ID_FIELD"),
        }.get(suffix, ())
        if suffix in ("kg", "link"):
            require_columns(file.path, columns, [config[key] for key in keys])
        ids = [config[key] for key in keys if config[key] in columns]
        times = [name for name in [config["TIME_FIELD"]] if events and name in columns]
        table, rows, notes = complete_rows(file, file.table(columns), ids, times)
        others = [name for name, kind in columns.items() if kind == "float" and name not in times]
        notes += check_numbers(file, table, rows, others, events)
        if suffix in ("item", "user") and ids:
            table, rows, twice = first_of_each(file, table, rows, ids[0])
            notes += twice
        self.tell(notes)
        return table, rows

    def _tell_events_without_features(
        self, dataset: Dataset, file: AtomicFile, table: pd.DataFrame, source: Any
    ) -> None:
        """RecBole leaves interactions out, unless told otherwise, whose item or user has no row in the file that is
        loaded."""
        key = dataset.iid_field if source == FeatureSource.ITEM else dataset.uid_field
        if key not in table or key not in dataset.inter_feat:
            return
        unknown = ~dataset.inter_feat[key].isin(table[key]).to_numpy()
        if not unknown.any():
            return
        example = shown(dataset.inter_feat[key].to_numpy()[np.argmax(unknown)])
        if unknown.all():
            raise UserError(
                f"{file.path.name}: no {key} of an interaction has a row there, for instance {example}; its first row "
                f"is that of {shown(table[key][0])}"
            )
        kept = (
            self._config["filter_inter_by_user_or_item"] is not True or self._config["benchmark_filename"] is not None
        )
        what = "have no features" if kept else "are left out (filter_inter_by_user_or_item)"
        self.tell(
            [
                f"{file.path.name}: {unknown.sum():,} of {len(unknown):,} interactions {what}, for their {key}, for "
                f"instance {example}, has no row there"
            ]
        )

    def _check_link(self, dataset: Dataset, file: AtomicFile, table: pd.DataFrame, rows: np.ndarray) -> None:
        """An item is one entity: of several RecBole mixes the numbers up. It leaves interactions out whose item is
        none."""
        item, entity = dataset.iid_field, dataset.entity_field
        pairs = table[[item, entity]].drop_duplicates()
        for name in (item, entity):
            if (again := pairs[name].duplicated()).any():
                value = pairs[name][again.idxmax()]
                places = rows[pairs.index[pairs[name] == value]]
                raise UserError(
                    f"{file.path.name}, {file.where(places)}: {name} {shown(value)} stands in more than "
                    f"one pair; an item must be one entity, and an entity one item"
                )
        known = pd.concat([dataset.kg_feat[dataset.head_entity_field], dataset.kg_feat[dataset.tail_entity_field]])
        linked = table[item][table[entity].isin(known)]
        left_out = ~dataset.inter_feat[item].isin(linked).to_numpy()
        if not left_out.any():
            return
        example = shown(dataset.inter_feat[item].to_numpy()[np.argmax(left_out)])
        if left_out.all():
            raise UserError(
                f"{file.path.name}: no item of an interaction is an entity of {dataset.dataset_name}.kg, "
                f"for instance {example}; its first row is {shown(table[item][0])}, {shown(table[entity][0])}"
            )
        self.tell(
            [
                f"{file.path.name}: {left_out.sum():,} of {len(left_out):,} interactions are left out, for their item, "
                f"for instance {example}, is no entity of {dataset.dataset_name}.kg"
            ]
        )

    @staticmethod
    def _register(dataset: Dataset, columns: dict[str, str], source: Any) -> None:
        """What RecBole's data set keeps of every field."""
        for name, kind in columns.items():
            if source == "link":  # its columns are those of other files
                continue
            dataset.field2source[name], dataset.field2type[name] = source, FeatureType(kind)
            if not kind.endswith("seq"):
                dataset.field2seqlen[name] = 1
            if "float" in kind:
                dataset.field2bucketnum[name] = 2

    def _sequences(
        self, dataset: Dataset, file: AtomicFile, column: pd.Series, rows: np.ndarray, kind: str
    ) -> list[np.ndarray]:
        arrays = sequences(file, column, rows, kind, self._config["seq_separator"])
        longest = max(map(len, arrays))
        limit = (self._config["seq_len"] or {}).get(column.name)
        dataset.field2seqlen[column.name] = min(limit, longest) if limit else longest
        return [array[:limit] for array in arrays] if limit else arrays
