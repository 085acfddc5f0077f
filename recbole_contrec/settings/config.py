"""
recbole_contrec.settings.config
###############################
RecBole's Config with the YAML files of this package and of the user, and with every key and value checked.

Priority, as in RecBole: command line > dictionary > files > YAML of the data set > YAML of the model > defaults, where
the YAML files of the user and of this package stand over RecBole's. Unlike RecBole's, this Config

- never reads ``sys.argv``: the command line is an argument;
- knows every key: a misspelt one is an error, and so is a value of another type or out of bounds;
- gives every ranking model the same protocol (``properties/overall.yaml``), and sequential models with a
  cross-entropy loss no sampled negatives, without being told;
- merges a partial ``eval_args`` into that protocol, where RecBole silently falls back to a random split;
- finds user, item and time columns in the header of a data set that has no YAML.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from recbole_contrec import compat
from recbole_contrec.catalogue.datasets import check_name, dataset_files, dataset_folder, list_datasets
from recbole_contrec.catalogue.places import properties_folders, recbole_properties
from recbole_contrec.data.columns import check_columns
from recbole_contrec.data.headers import ROLES, dataset_settings_from_headers
from recbole_contrec.data.text import check_words
from recbole_contrec.errors import UserError
from recbole_contrec.settings.groups import included
from recbole_contrec.settings.python_values import plain, python_settings
from recbole_contrec.settings.registry import (
    ModelEntry,
    find_model,
    general_settings,
    model_exists,
    overlay,
    tuned_files,
    words_files,
)
from recbole_contrec.settings.schema import Loader, keep_bounds, parse_arguments, read_yaml

compat.require_recbole()
compat.apply()

from recbole.config import Config as RecBoleConfig  # noqa: E402  (the repairs and the friendly error come first)
from recbole.utils import InputType, ModelType, get_trainer  # noqa: E402

from recbole_contrec.settings.checks import recbole_checks, refuse_untrainable  # noqa: E402
from recbole_contrec.settings.devices import choose_device  # noqa: E402
from recbole_contrec.settings.given import Given  # noqa: E402
from recbole_contrec.settings.loaded_columns import fields_asked_for, load_columns  # noqa: E402
from recbole_contrec.settings.named_columns import ITEM_COLUMNS, check_named_columns  # noqa: E402
from recbole_contrec.settings.parts import CHECKED, FORMS, check_parts  # noqa: E402
from recbole_contrec.settings.protocol import Kind, check_metrics, check_protocol, measures_clicks  # noqa: E402
from recbole_contrec.settings.readers import check_keys, lacks_negatives  # noqa: E402

logger = logging.getLogger("recbole_contrec")

PROTOCOL = ("eval_args", "metrics", "topk", "valid_metric")
_FEATURE_TYPES = (ModelType.CONTEXT, ModelType.KNOWLEDGE, ModelType.DECISIONTREE)


class Config(RecBoleConfig):
    """Everything a run is configured by, read as ``config[key]``.

    Args:
        model (str or class): name of a model, or a RecBole model class.
        dataset (str): name of a data set.
        config_file_list (list): YAML files.
        config_dict (dict): settings by key, as RecBole takes them: a text such as ``"[5, 10]"`` is read as what it
            says. It is not changed.
        settings (dict): settings by key as Python values, checked as those of a YAML file are: a text is a text. They
            go before ``config_dict``, and ``arguments`` before both.
        arguments (list of str): ``['--epochs=3', '--topk=[5,10]']``.
        properties (path): a folder of YAML files that comes before ``./properties`` and the package's own.

    Attributes:
        entry (ModelEntry): the model's YAML files and classes.
        settings (dict): every known :class:`~recbole_contrec.settings.schema.Setting` by key.
        folders (list): where YAML files were looked for.
        takes_words (bool): whether ``MODEL_with_words.yaml`` says something for this run.

    Raises:
        UserError: an unknown model, data set, key or column, a value of another type or out of bounds, a file
            that is missing or no YAML, settings that do not go together.
    """

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: str | Path | Sequence[str | Path] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
        properties: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ):
        words = parse_arguments(arguments)
        self.folders = properties_folders(words.pop("properties", properties))
        files = [config_file_list] if isinstance(config_file_list, (str, Path)) else list(config_file_list or ())
        files += words.pop("config_files", "").replace(",", " ").split()
        self._given = Given(words, python_settings(settings, model, dataset))
        self.takes_words = False
        super().__init__(model, dataset, files, config_dict)
        check_columns(self, self.dataset, self.folders)
        check_named_columns(self, self.dataset, self.folders)

    # the four ways to set something

    def compatibility_settings(self) -> None:
        """RecBole's own version asks numpy 2 for names that it no longer has."""
        compat.restore_numpy_names()

    def _init_parameters_category(self):
        super()._init_parameters_category()
        # The lists belong to a module, and RecBole appends to them.
        self.parameters = {category: list(keys) for category, keys in self.parameters.items()}

    def _build_yaml_loader(self):
        return Loader  # RecBole adds its float rule to yaml.FullLoader, for everybody in the process

    def _load_config_files(self, file_list):
        return self._given.of_files(file_list)

    def _load_variable_config_dict(self, config_dict):
        return self._given.of_dictionary(config_dict)

    def _load_cmd_line(self):
        return self._given.of_command_line()

    def _get_model_and_dataset(self, model, dataset):
        model = self.external_config_dict.get("model") if model is None else model
        dataset = self.external_config_dict.get("dataset") if dataset is None else dataset
        if model is None:
            raise UserError("no model is named: add --model=NAME (--list-models shows all)")
        if dataset is None:
            known = [line.name for line in list_datasets(self.folders, self._data_path({"data_path": "dataset"}))]
            raise UserError(f"no data set is named: add --dataset=NAME, for instance {', '.join(known[:5])}")
        check_name(str(dataset), "data set")
        self.entry, self._takes_any_key = self._find_entry(model)
        return self.entry.name, self.entry.model_class, str(dataset)

    def _find_entry(self, model: str | type) -> tuple[ModelEntry, bool]:
        """A model given as a class needs no YAML, so that its keys are not known."""
        if isinstance(model, str):
            return find_model(model, self.folders), False
        if model_exists(model.__name__, self.folders):
            return replace(find_model(model.__name__, self.folders), model_class=model), True
        return ModelEntry(model.__name__, (), {}, {}, model), True

    # defaults: RecBole's YAML files, then the user's and the package's

    def _load_internal_config_dict(self, model, model_class, dataset):
        # RecBole knows a model by name only; one that extends SASRec has SASRec's defaults.
        super()._load_internal_config_dict(self.entry.recbole_name or "", model_class, dataset)
        internal = self.internal_config_dict
        # before its columns are asked for
        refuse_untrainable(
            self.entry.trainer_class or get_trainer(internal["MODEL_TYPE"], self.entry.recbole_name or self.entry.name)
        )
        self.settings, overall = general_settings(self.folders)
        kept = self._kept_from_recbole()
        internal.update({key: value for key, value in overall.items() if key not in kept})
        self.settings.update(
            {key: keep_bounds(self.settings.get(key), setting) for key, setting in self.entry.settings.items()}
        )
        internal.update(deepcopy(self.entry.changes))
        self._tuned: list[Path] = []
        self._tuned_values = self._put_over(lambda name: tuned_files(name, dataset, self.folders))

        self._data_values: dict[str, Any] = {}
        for path in dataset_files(dataset, self.folders):
            self._data_values.update(overlay(self.settings, path))
        if self._data_values.get("load_col") and not self._wants_item_columns():
            self._data_values["load_col"] = {
                suffix: columns for suffix, columns in self._data_values["load_col"].items() if suffix != "item"
            }
        internal.update(self._data_values)
        self._defaults = deepcopy(internal)
        self._check_given()  # before some of them are read
        self._fill_from_headers(dataset)
        self._load_fields_asked_for()
        self._take_words()

    def _put_over(self, files: Callable[[str], list[Path]]) -> dict[str, Any]:
        """Put files over the defaults, those of each model in the chain; the base comes first: MyRec inherits what
        ContRec wants.

        Args:
            files: of a model, by its name.

        Returns:
            dict: what they changed.
        """
        changed: dict[str, Any] = {}
        for name in [path.stem for path in self.entry.chain]:
            for path in files(name):
                changes = overlay(self.settings, path)
                self._tuned.append(path)
                own = self._changed_later(name, changes)
                changed.update({key: value for key, value in changes.items() if key not in own})
        self.internal_config_dict.update(changed)
        return changed

    def _take_words(self):
        """What ``MODEL_with_words.yaml`` says, where a pretrained language model reads items that have words. What is
        set for the data set goes before it."""
        asked = {**self.internal_config_dict, **self.external_config_dict}
        files = [file for path in self.entry.chain for file in words_files(path.stem, self.folders)]
        if not asked.get("llm") or not files:
            return
        try:
            check_words(asked, dataset_folder(self._data_path(asked), self.dataset) / f"{self.dataset}.item")
        except UserError as error:
            # where all is given, as in a checkpoint, the files would change nothing
            if {key for file in files for key in read_yaml(file)} - self.external_config_dict.keys():
                logger.warning("%s reads no words of the items: %s", self.entry.name, error)
            return
        self.takes_words = True
        words = self._put_over(lambda name: words_files(name, self.folders))
        of_data = {**self._tuned_values, **self._data_values}
        words.update({key: of_data[key] for key in words if key in of_data})
        self.internal_config_dict.update(words)
        self._defaults.update(deepcopy(words))

    def _changed_later(self, name: str, keys: Iterable[str]) -> set[str]:
        """Those keys that a model further down the chain sets itself."""
        later = self.entry.chain[[path.stem for path in self.entry.chain].index(name) + 1 :]
        files = [file for path in later for file in (*included(path, self.folders), path)]
        return {key for file in files for key in read_yaml(file) if key in keys}

    def _kept_from_recbole(self) -> set[str]:
        """Keys in which RecBole's defaults for this model count more than ``overall.yaml``: what its own
        YAML says, and the protocol of models that predict clicks (AUC, LogLoss) rather than rank."""
        own = {key for key in self.entry.values if key not in self.entry.changes}
        metrics = self.internal_config_dict["metrics"]
        clicks = any(measures_clicks(name) for name in metrics)
        return own.union(PROTOCOL if clicks else ())

    def _wants_item_columns(self) -> bool:
        """Whether RecBole shall load the ``.item`` file. It then counts items that nobody touched and joins the
        columns into every batch, so only for models that read them there, and for models of users, who know."""
        return (
            self.internal_config_dict["MODEL_TYPE"] in _FEATURE_TYPES
            or any(key in self.internal_config_dict for key in ITEM_COLUMNS)
            or self.entry.has_class_of_user
            and self.entry.dataset_class is None
        )

    def _fill_from_headers(self, dataset):
        """Columns that no YAML and no user has named come from the headers of the data files."""
        recbole_knows = (recbole_properties() / "dataset" / f"{dataset}.yaml").is_file()
        if recbole_knows and (self.entry.is_recbole or "load_col" in self._data_values):
            return
        given = {**self._data_values, **self.external_config_dict}
        asked = {**self.internal_config_dict, **self.external_config_dict}
        named = {key: given[key] for key in ROLES if key in given}
        sequential = asked["MODEL_TYPE"] == ModelType.SEQUENTIAL
        headers = dataset_settings_from_headers(
            self._data_path(asked),
            dataset,
            named,
            wanted=fields_asked_for(asked),
            need_time=not asked.get("benchmark_filename")
            and (sequential or (asked["eval_args"] or {}).get("order") != "RO"),  # what comes split is not sorted
            separator=asked["field_separator"],
            encoding=asked.get("encoding"),
            parts=asked.get("benchmark_filename"),
            folders=self.folders,
        )
        load_col = {**(self.internal_config_dict["load_col"] or {}), **headers.settings["load_col"]}
        found = {**headers.settings, "load_col": load_col}
        self.internal_config_dict.update({key: value for key, value in found.items() if key not in given})
        logger.info(headers.found)

    def _load_fields_asked_for(self):
        """A threshold, a filter or a model of item columns needs its columns loaded, whatever the data set's YAML
        lists."""
        load_col = self.internal_config_dict["load_col"]
        if not load_col or "load_col" in self.external_config_dict:
            return
        asked = {**self.internal_config_dict, **self.external_config_dict}
        histories = load_columns(load_col, asked, self._data_path(asked), self.dataset, self.folders)
        if histories and not asked.get("alias_of_item_id"):
            self.internal_config_dict["alias_of_item_id"] = histories

    def _data_path(self, values):
        return self.external_config_dict.get("data_path", values.get("data_path"))

    # checks

    def _get_final_config_dict(self):
        protocol = self.internal_config_dict["eval_args"]
        final = super()._get_final_config_dict()
        for key in CHECKED:
            check_parts(key, final.get(key), final)
        final["eval_args"] = {**protocol, **(final["eval_args"] or {})}
        self._set_default_negatives(final)
        check_keys(self, final, self.external_config_dict, self._trains_on_windows)
        given = dict(self.external_config_dict)
        # what is as it would be anyhow, asks for nothing
        if final.get("benchmark_filename") and given.get("eval_args"):
            given["eval_args"] = {
                part: value for part, value in given["eval_args"].items() if value != protocol.get(part)
            }
        check_protocol(self._kind(final), final, given)
        self._record = {key: deepcopy(value) for key, value in final.items() if key != "MODEL_TYPE"}
        return final

    def _check_given(self):
        ways = self.file_config_dict, self.variable_config_dict, self.cmd_config_dict
        self._given.check(*ways, self.settings, self._takes_any_key)
        self._merge_external_config_dict()

    def _set_default_negatives(self, final):
        """Cross-entropy over the whole catalogue takes no sampled negatives. RecBole's default has one a row: it
        stops there, or, where the class is POINTWISE, trains half of each batch on random targets."""
        if (
            final["MODEL_TYPE"] != ModelType.SEQUENTIAL
            or final.get("loss_type") != "CE"
            or getattr(self.model_class, "input_type", None) == InputType.PAIRWISE
        ):
            return
        if "train_neg_sample_args" in {**self.entry.changes, **self._data_values, **self.external_config_dict}:
            if final["train_neg_sample_args"] is not None:
                raise UserError(
                    f"{self.model} with loss_type=CE scores the whole catalogue and takes no sampled "
                    "negatives: set --train_neg_sample_args=~"
                )
        final["train_neg_sample_args"] = None

    @property
    def _trains_on_windows(self) -> bool:
        from recbole_contrec.data.windows import WindowDataset  # slow

        return self.entry.dataset_class is not None and issubclass(self.entry.dataset_class, WindowDataset)

    def _kind(self, final: Mapping[str, Any]) -> Kind:
        return Kind(self.model, final["MODEL_TYPE"] == ModelType.SEQUENTIAL, self._trains_on_windows)

    def _set_default_parameters(self):
        final = self.final_config_dict
        check_metrics(self._kind(final), final, self.external_config_dict)
        folder = dataset_folder(final["data_path"], self.dataset)
        with recbole_checks():
            super()._set_default_parameters()
        final["data_path"] = str(folder)  # RecBole takes its own ml-100k whatever the user says

    def _set_train_neg_sample_args(self):
        with recbole_checks():
            super()._set_train_neg_sample_args()
        if lacks_negatives(self):
            raise UserError(
                f"train_neg_sample_args=~: {self.model} learns from pairs of items and needs sampled ones: leave it "
                f"away, or set {FORMS['train_neg_sample_args']}"
            )

    def _set_eval_neg_sample_args(self, phase):
        with recbole_checks():
            super()._set_eval_neg_sample_args(phase)

    def _init_device(self):
        """Instead of RecBole's choice, which falls back to the CPU without a word."""
        choose_device(self.final_config_dict, self.external_config_dict)

    # what follows from files

    def is_given(self, key: str) -> bool:
        """Whether the user set it, in whatever way; what a YAML of model or data set says is a default."""
        return key in self.external_config_dict

    def resolve(self, **values: Any) -> None:
        """Write down what settings come to that follow from a file, so that a checkpoint tells it without the file."""
        self.final_config_dict.update(values)
        self._record.update(values)

    # for people and files

    def to_record(self) -> dict[str, Any]:
        """Settings as plain values for a JSON file; ``config_dict`` of a Config of the same model and data set that
        comes out the same."""
        return plain(self._record)

    def describe(self) -> str:
        """Model, data set, and the settings that the user changed from their defaults, by where they were set, in a
        line."""
        tuned = ", ".join(path.name for path in self._tuned)
        changes = self._given.described(self.external_config_dict, self._defaults)
        return f"{self.model} on {self.dataset}{f' ({tuned})' if tuned else ''}; changed settings: {changes or 'none'}"
