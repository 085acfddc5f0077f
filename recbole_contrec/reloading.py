"""
recbole_contrec.reloading
#########################
Back from a checkpoint: a trained model with its data, or the configuration of a run that was stopped.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recbole.utils import init_seed

from recbole_contrec import processes
from recbole_contrec.data.loading import load_data
from recbole_contrec.errors import UserError
from recbole_contrec.loaded_run import LoadedRun, assemble, settings_of
from recbole_contrec.settings.classes import faults_of
from recbole_contrec.settings.config import Config
from recbole_contrec.settings.schema import parse_value
from recbole_contrec.showing import show
from recbole_contrec.storage import checkpoint
from recbole_contrec.storage.folders import STAGES
from recbole_contrec.storage.progress import Progress
from recbole_contrec.training.identity import Identity, fingerprint_of_data, load_weights
from recbole_contrec.training.keeping import BEST, LAST, last_checkpoint

logger = logging.getLogger("recbole_contrec")

# What a resumed run may do otherwise: how long it goes on, on which machine, and what it prints.
MAY_CHANGE = {
    "epochs",
    "stopping_step",
    "data_path",
    "checkpoint_dir",
    "gpu_id",
    "use_gpu",
    "worker",
    "show_progress",
    "state",
    "eval_batch_size",
    "histories_on_disk",
    "llm",
    "text_encoder",
}  # of llm and text_encoder the place: other weights are refused, by their mark or by their files
# Settings that came later, where their default is not what was done before.
BEFORE_THEY_CAME = {"text_similarity": 0.0, "fast_dropout": False}
# Of these, those that are in no number.
CHANGES_NOTHING = {"data_path", "checkpoint_dir", "show_progress", "state", "histories_on_disk", "llm", "text_encoder"}


def load_data_and_model(
    checkpoint_path: str | Path,
    settings: Mapping[str, Any] | None = None,
    properties: str | None = None,
    *,
    arguments: Sequence[str] = (),
) -> LoadedRun:
    """Rebuild a trained model with its data.

    Args:
        checkpoint_path: a checkpoint, or the folder of a run (its best model is taken).
        settings: those to change, e.g. ``{"data_path": "elsewhere"}``.
        properties: a folder with ``model/*.yaml`` and ``dataset/*.yaml`` of your own.
        arguments: settings to change as on the command line.

    Raises:
        UserError: no such checkpoint, or the data are not those it was trained on.
    """
    path = Path(checkpoint_path)
    path = path / BEST if path.is_dir() else path
    record = checkpoint.load(path).record
    if not {"model", "settings"} <= set(record):
        raise UserError(f"{path} holds no model; give the {BEST} of a run's folder")
    with _settings_of_file(path):
        config = Config(
            record["model"],
            record["dataset"],
            config_dict={**_as_given(record["settings"]), **_where_it_lies(path)},
            arguments=arguments,
            properties=properties,
            settings=settings,
        )
        _as_before(record["settings"], config)
        _tell_new_settings(path, record["settings"], config)
        init_seed(config["seed"], config["reproducibility"])
        with faults_of(config.entry):
            loaded = assemble(config, load_data(config))
    load_weights(loaded.model, path, config["model"], Identity.of(loaded.data.dataset))
    if record.get("data") not in (None, fingerprint_of_data(loaded.data.dataset)):
        logger.warning(
            "%s was trained on other interactions or texts of the same users and items, or on another split: its lists "
            "follow those of today, but what it is tested on now may be what it was trained on",
            path,
        )
    loaded.model.eval()
    loaded.trained = True
    return loaded


def _where_it_lies(path: Path) -> dict[str, str]:
    """``checkpoint_dir`` of a checkpoint beside whose run lies what was finished for it: files there are found again,
    whatever the working directory is; none where there is no such folder, as for a copied checkpoint."""
    folder = os.path.normpath(path.parent / "..")
    return {"checkpoint_dir": folder} if os.path.isdir(os.path.join(folder, STAGES)) else {}


def config_to_resume(
    resume: str,
    model: str | None,
    dataset: str | None,
    settings: Mapping[str, Any] | None,
    config_file_list: Sequence[str],
    arguments: Sequence[str],
    properties: str | None,
) -> Config:
    """The configuration of the killed run. What is given again must be the same, but for how long and where it goes on.

    Raises:
        UserError: names the settings that differ.
    """
    path = last_checkpoint(resume)
    record = checkpoint.load(path).record
    for what, given in (("model", model), ("dataset", dataset)):
        if given and given != record[what]:
            raise UserError(f"{path} is a checkpoint of {record[what]}, not of {given}: use --{what}={record[what]}")
    with _settings_of_file(path):
        config = Config(
            record["model"],
            record["dataset"],
            list(config_file_list),
            _as_given(record["settings"]),
            arguments,
            properties,
            settings,
        )
        _as_before(record["settings"], config)
        _tell_new_settings(path, record["settings"], config)
    now = settings_of(config)
    changed = [
        f"{key}={record['settings'][key]}"
        for key in record["settings"]
        if now.get(key) != record["settings"][key] and key not in MAY_CHANGE
    ]
    if changed:
        raise UserError(f"{path} was trained with {', '.join(changed)}: resume with the same settings")
    if now.get("text_encoder") != record["settings"].get("text_encoder"):
        _check_moved_encoder(path, record, config)
    if other := [
        f"{key}={show(now.get(key))} (it was {show(record['settings'][key])})"
        for key in record["settings"]
        if now.get(key) != record["settings"][key] and key not in CHANGES_NOTHING
    ]:
        logger.warning(
            "%s goes on with %s: its numbers may not be those of an uninterrupted run", path, ", ".join(other)
        )
    return config


def config_to_start_from(
    path: Path,
    model: str | None,
    dataset: str | None,
    settings: Mapping[str, Any] | None,
    config_file_list: Sequence[str],
    arguments: Sequence[str],
    properties: str | None,
) -> Config:
    """The configuration of a run that goes on from a checkpoint with other data: its settings, and over them what is
    given.

    Raises:
        UserError: no such checkpoint, one of another model, or item embeddings that nothing would read.
    """
    record = checkpoint.load(path).record
    if not {"model", "settings"} <= set(record):
        raise UserError(f"{path} holds no model; give the {BEST} of a run's folder")
    if model and model != record["model"]:
        raise UserError(f"{path} is a checkpoint of {record['model']}, not of {model}: use --model={record['model']}")
    stored = _as_given(
        {key: value for key, value in record["settings"].items() if key not in _of_places(dataset, record)}
    )
    with _settings_of_file(path):
        config = Config(
            record["model"],
            dataset or record["dataset"],
            list(config_file_list),
            stored,
            arguments,
            properties,
            settings,
        )
        _as_before(record["settings"], config)
        _tell_new_settings(path, record["settings"], config)
    if (given := config["item_embeddings"]) and given != record["settings"].get("item_embeddings"):
        raise UserError(
            f"item_embeddings={given}: a run that starts from a checkpoint has its item embeddings from there; leave "
            "this one away, or --init_from"
        )
    return config


def _of_places(dataset: str | None, record: dict[str, Any]) -> set[str]:
    """Stored settings that a run with other data does not take: where the old run was written, and where the data set
    lay if it is another one now."""
    return {"checkpoint_dir"} | ({"data_path"} if dataset not in (None, record["dataset"]) else set())


def begun_before_restart(config: Config) -> str | None:
    """The folder of this run where torchrun has started it again after a failure and something had been saved.

    It is found by its name. A folder that is older than torchrun belongs to another run.

    Raises:
        UserError: torchrun may start a run again that has no name, and would begin anew.
    """
    if not processes.may_restart():
        return None
    if config["run_name"] is None:
        raise UserError(
            "with --max_restarts, torchrun starts a failed run again, which goes on by its name: add --run_name"
        )

    def find() -> str | None:
        folder = Path(config["checkpoint_dir"]) / config["run_name"]
        saved = folder / LAST
        if not processes.is_restart() or not saved.is_file():
            return None
        return str(folder) if saved.stat().st_mtime >= processes.time_of_first_start() else None

    return processes.from_first(find)


def _check_moved_encoder(path: Path, record: dict[str, Any], config: Config) -> None:
    """A ``text_encoder`` may lie elsewhere than when it read the texts of a run, where its files tell that it is the
    same.

    Raises:
        UserError: it is another one, or nothing tells.
    """
    from recbole_contrec.item_vectors.sources import ITEM_TEXTS  # slow imports, needed here only
    from recbole_contrec.item_vectors.text_encoder import text_encoder_of

    old, new, stages = (
        record["settings"].get("text_encoder"),
        config["text_encoder"],
        Progress.from_record(record).stages,
    )
    read_by = stages[ITEM_TEXTS].settings.get("encoder") if ITEM_TEXTS in stages else None
    if not (old and new and read_by):
        raise UserError(f"{path} was trained with text_encoder={old}: resume with the same settings")
    if text_encoder_of(config).identity != read_by:
        raise UserError(
            f"{path} was trained with text_encoder={old}, and the files of {new} are others: resume with the same model"
        )


def _as_before(stored: dict[str, Any], config: Config) -> None:
    """A run of an earlier version stays what it was, whatever is done by default today."""
    config.resolve(
        **{
            key: value
            for key, value in BEFORE_THEY_CAME.items()
            if key in config.settings and key not in stored and not config.is_given(key)
        }
    )


def _tell_new_settings(path: Path, stored: dict[str, Any], config: Config) -> None:
    """Weights of an earlier version may fit and yet mean something else, where a setting has come since."""
    new = [
        f"{key}={show(value)}"
        for key, value in settings_of(config).items()
        if key not in stored and key not in CHANGES_NOTHING and not key.startswith("paper_")  # these are never read
    ]
    if new:
        logger.warning(
            "%s was written by a version without %s: give other values where it was trained otherwise",
            path,
            ", ".join(new),
        )


# Settings behind which models of RecBole evaluate or unpickle something: they are never taken from a checkpoint, only
# from whoever loads it.
NOT_FROM_CHECKPOINTS = {
    "teacher",
    "emb_path",
    "warm_up",
    "pre_model_path",
    "pretrain_path",
    "mf_pretrain_path",
    "mlp_pretrain_path",
}


# What these are where nobody asked for a device. Taken for a wish, they would go before the GPU that the shell shows
# (CUDA_VISIBLE_DEVICES), and be missed aloud on a machine without one.
NO_WISH = {"use_gpu": True, "gpu_id": "0"}


def _as_given(settings: dict[str, Any]) -> dict[str, Any]:
    """Stored settings in a form that is read as what they are: a text such as '0' would be taken for a number."""
    return {
        key: repr(value) if isinstance(value, str) and parse_value(value) != value else value
        for key, value in settings.items()
        if key not in NOT_FROM_CHECKPOINTS and (key not in NO_WISH or value != NO_WISH[key])
    }


@contextmanager
def _settings_of_file(path: Path) -> Iterator[None]:
    """Whatever settings of a checkpoint lead to, which may have come from anywhere, as an error that names the file."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace("config_dict: ", f"{path}: ", 1)) from error
    except (
        TypeError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        RuntimeError,
        MemoryError,
        ArithmeticError,
        AssertionError,
    ) as error:
        raise checkpoint.damaged(path, f"its settings lead to {type(error).__name__}: {error}") from error
