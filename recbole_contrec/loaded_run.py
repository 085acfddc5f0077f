"""
recbole_contrec.loaded_run
##########################
A model together with its settings and its data, as every part of a run hands it on.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from recbole.utils import get_trainer, init_seed

from recbole_contrec.backbone.dropout import use_fast_dropout
from recbole_contrec.data.loading import RunData
from recbole_contrec.errors import UserError
from recbole_contrec.interface import ChecksSettings
from recbole_contrec.memory import fits_in_memory
from recbole_contrec.packages import missing
from recbole_contrec.settings.config import Config
from recbole_contrec.training.start import cannot_be_built
from recbole_contrec.training.trainer import trainer_class


@dataclass
class LoadedRun:
    """A model and everything it is trained on."""

    config: Config
    model: Any
    data: RunData
    trained: bool = False  # before it was loaded: `fit` goes on from there
    known: Any = None  # what training knew, once items were folded in; see fold_in.py
    new_items: set[int] = field(default_factory=set)  # numbers of the items that were folded in

    def forget_trainer(self) -> None:
        """Let :attr:`trainer` be made anew, where the tables of the model have another size now."""
        self.__dict__.pop("trainer", None)

    @cached_property
    def trainer(self) -> Any:
        """For ``evaluate`` and ``fit``. Made on first use: a trainer opens TensorBoard's file and RecBole's folders."""
        return trainer_class_of(self.config)(self.config, self.model).bind(
            self.data, settings_of(self.config), self.trained
        )


def settings_of(config: Config) -> dict[str, Any]:
    """The settings of a run, JSON-like, enough to build its configuration again from any working directory."""
    record = {key: value for key, value in config.to_record().items() if key not in ("output", "run_name")}
    for key in ("llm", "text_encoder"):
        if record.get(key) and (place := Path(record[key]).expanduser()).exists():  # a folder, or a GGUF file
            record[key] = str(place.resolve())
    return {**record, "data_path": str(Path(config["data_path"]).resolve().parent)}


def check_settings(config: Config) -> None:
    """Ask the class of the model, as far as it tells, whether its settings go together: before data are read.

    Raises:
        UserError: they do not.
    """
    if isinstance(config.model_class, ChecksSettings):
        try:
            config.model_class.check_settings(config)
        except ValueError as error:
            raise UserError(f"{config['model']}: {error}") from error


def assemble(config: Config, data: RunData) -> LoadedRun:
    """A new model for some data; nothing is written.

    Raises:
        UserError: settings that the model cannot be built with, or a library that it needs is missing.
    """
    init_seed(config["seed"], config["reproducibility"])
    try:
        with fits_in_memory(config):
            model = config.model_class(config, data.train_dataset).to(config["device"])
    except ValueError as error:
        raise UserError(f"{config['model']}: {error}") from error
    except ModuleNotFoundError as error:
        raise missing(error.name or "a package", config["model"]) from error
    except (RuntimeError, LookupError, TypeError, AttributeError, AssertionError) as error:
        if not config.entry.is_recbole:
            raise
        raise cannot_be_built(config, error) from error
    if config["fast_dropout"]:
        use_fast_dropout(model)
    return LoadedRun(config, model, data)


def trainer_class_of(config: Config) -> type:
    """The trainer class of a configuration's model.

    Raises:
        UserError: a kind of model that cannot be trained here.
    """
    base = config.entry.trainer_class or get_trainer(config["MODEL_TYPE"], config.entry.recbole_name or config["model"])
    return trainer_class(base)
