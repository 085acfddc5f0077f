"""
recbole_contrec.quick_start
###########################
Train, evaluate and load a model: the functions that the command line calls. They take the place of
``recbole.quick_start``, which needs ray.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from recbole.utils import init_seed

from recbole_contrec import processes
from recbole_contrec.catalogue.places import properties_folders
from recbole_contrec.data.loading import load_data
from recbole_contrec.data.prepare import PrepareError, known_datasets, prepare
from recbole_contrec.errors import UserError
from recbole_contrec.files import check_room
from recbole_contrec.interface import ChecksUnread, HasStages
from recbole_contrec.item_files import write_item_vectors, write_semantic_ids
from recbole_contrec.item_vectors.embeddings import check_item_embeddings, start_item_embeddings
from recbole_contrec.loaded_run import LoadedRun, assemble, check_settings, settings_of, trainer_class_of
from recbole_contrec.reloading import (
    begun_before_restart,
    config_to_resume,
    config_to_start_from,
    load_data_and_model,
)
from recbole_contrec.settings.classes import faults_of
from recbole_contrec.settings.config import Config
from recbole_contrec.settings.given import given_settings
from recbole_contrec.settings.registry import find_model, general_settings
from recbole_contrec.settings.renamed import unknown_setting
from recbole_contrec.storage import checkpoint
from recbole_contrec.training.card import protocol_card
from recbole_contrec.training.identity import Identity, load_weights
from recbole_contrec.training.keeping import BEST, RESULT, last_checkpoint
from recbole_contrec.training.log import log_end, log_start
from recbole_contrec.training.results import outcome, write_json
from recbole_contrec.training.shares import check_shares
from recbole_contrec.training.start import Started, check_optimizer, check_packages, check_places
from recbole_contrec.warm_start import start_from

logger = logging.getLogger("recbole_contrec")

__all__ = [
    "LoadedRun",
    "assemble",
    "fetch_missing_data",
    "load_data_and_model",
    "objective_function",
    "run",
    "settings_of",
    "trainer_class_of",
    "write_item_vectors",
    "write_semantic_ids",
]


def run(
    model: str | None = None,
    dataset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    config_file_list: Sequence[str] = (),
    arguments: Sequence[str] = (),
    properties: str | None = None,
    resume: str | None = None,
    init_from: str | None = None,
    saved: bool = True,
    tested: bool = True,
    callback_fn: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Train a model and test the epoch that validated best.

    Args:
        model: any model of this package, of a ``properties/`` folder or of RecBole.
        dataset: name of the data set.
        settings: by key, ``{"epochs": 3}``; values are those of a YAML file.
        config_file_list: YAML files; ``settings`` go before them, and ``arguments`` before both.
        arguments: settings as on the command line, ``["--epochs=3"]``.
        properties: a folder with ``model/*.yaml`` and ``dataset/*.yaml`` of your own.
        resume: folder of a killed run, to go on with.
        init_from: folder of a run, or a checkpoint, to start from with data that have changed: with its settings, under
            those given here, and what it has learned of the users and items that are still there.
        saved: keep checkpoints; without them the last epoch is tested instead of the best.
        tested: rank the test data as well; a search for settings has no need to.
        callback_fn: called after each validation with the epoch and its score, as RecBole's trainers do.

    Returns:
        dict: ``card``, ``best_valid_score``, ``best_valid_result``, ``test_result``, ``seconds``, ``stages``,
        ``checkpoint``, ``settings``, and ``init_from`` where it started from one; JSON-like.

    Raises:
        UserError: whatever the user can mend; nothing has been written by then.
    """
    for name, place in (("resume", resume), ("init_from", init_from)):
        if place == "":
            raise UserError(f"--{name}= names no folder of a run")
    if init_from is not None and resume is not None:
        raise UserError(
            "--init_from=PATH begins a run with what a checkpoint has learned, and --resume=PATH goes on with a run "
            "that was stopped: give one of them"
        )
    with processes.together():
        if init_from is not None:
            path = Path(init_from)
            path = path / BEST if path.is_dir() else path
            config = config_to_start_from(path, model, dataset, settings, config_file_list, arguments, properties)
            resume = begun_before_restart(config) if saved else None
            return _run_config(config, Wanted(resume, saved, tested, callback_fn, path))
        if resume is None:
            config = Config(model, dataset, list(config_file_list), None, arguments, properties, settings)
            resume = begun_before_restart(config) if saved else None
        if resume is not None:
            config = config_to_resume(resume, model, dataset, settings, config_file_list, arguments, properties)
        return _run_config(config, Wanted(resume, saved, tested, callback_fn))


class Wanted(NamedTuple):
    """What :func:`run` was asked for, beside the settings."""

    resume: str | None
    saved: bool
    tested: bool = True
    callback_fn: Callable[[int, float], None] | None = None
    init_from: Path | None = None  # the checkpoint that a new run starts from
    note: str | None = None  # of that, for the log


def _run_config(config: Config, wanted: Wanted) -> dict[str, Any]:
    if not processes.is_first():
        config["show_progress"] = config["log_wandb"] = False
    with faults_of(config.entry):
        return _checked_run(config, wanted)


def _checked_run(config: Config, wanted: Wanted) -> dict[str, Any]:
    """:func:`run` once the settings are known."""
    resume, saved = wanted.resume, wanted.saved
    trainer_class_of(config)  # refuses what cannot be trained here
    check_packages(config)
    check_places(config, saved and not resume)
    check_settings(config)
    check_item_embeddings(config)
    begins = not resume and wanted.init_from is None  # settings of a checkpoint are not what somebody has just given
    if begins and isinstance(config.model_class, ChecksUnread):
        config.model_class.check_unread(config)  # a language model that is loaded in vain may take minutes
    if not resume and "item_vectors" in config.settings:  # a checkpoint holds what was made of them
        from recbole_contrec.item_vectors.sources import check_names  # slow imports

        check_names(config)
    init_seed(config["seed"], config["reproducibility"])
    loaded = assemble(config, load_data(config))
    check_optimizer(config, loaded.model)
    check_shares(config, loaded.model)
    data = loaded.data
    # Logs and checkpoints begin here: what is wrong with data or settings is found before, and leaves nothing behind.
    if resume:
        load_weights(loaded.model, last_checkpoint(resume), config["model"], Identity.of(data.dataset))
    elif isinstance(loaded.model, HasStages):
        loaded.model.check_sources(data.train_dataset)
    if begins:
        start_item_embeddings(config, loaded.model, data.dataset)
    if wanted.init_from is not None and not resume:
        wanted = wanted._replace(note=start_from(loaded, wanted.init_from, config["show_progress"]))
    if saved:
        check_room(Path(config["checkpoint_dir"]), 2 * checkpoint.size_of(loaded.model.state_dict()))
    with Started(config) as started:
        if resume:
            started.folder = last_checkpoint(resume).parent
        elif saved:
            started.claim()
        return _train_and_test(loaded, wanted, started)


def _train_and_test(loaded: LoadedRun, wanted: Wanted, started: Started) -> dict[str, Any]:
    """The part of :func:`run` that logs and writes."""
    config, data, saved = loaded.config, loaded.data, wanted.saved
    shown = {"show_progress": config["show_progress"]}
    started.log()
    log_start(config, data, loaded.model)
    if wanted.note:
        logger.info(wanted.note)
    started.trainer = trainer = loaded.trainer
    trainer.claimed, trainer.stays_locked = started.claimed, True
    if wanted.resume:
        with processes.first_goes_first():
            trainer.resume_checkpoint(wanted.resume)

    start = perf_counter()
    best = trainer.fit(data.train, data.valid, saved=saved, callback_fn=wanted.callback_fn, **shown)
    trained, found = perf_counter(), None
    if wanted.tested:
        found = trainer.evaluate(data.test, load_best_model=saved, save_ranks=saved, **shown)
    card = protocol_card(config, data, trainer)
    result = {
        **outcome(trainer, best, found, trained - start, perf_counter() - trained),
        "card": card if wanted.tested else {**card, "test_users_per_second": None},
        "settings": settings_of(config),
        "checkpoint": str(trainer.saved_model_file) if saved else None,
        **({} if wanted.init_from is None else {"init_from": str(wanted.init_from)}),
    }
    if not processes.is_first():
        return result
    log_end(result)
    for path in ([trainer.folder / RESULT] if saved else []) + ([config["output"]] if config["output"] else []):
        write_json(Path(path), result)
    return result


def fetch_missing_data(
    model: str,
    dataset: str,
    settings: Mapping[str, Any] | None = None,
    *,
    config_file_list: Sequence[str] = (),
    arguments: Sequence[str] = (),
    properties: str | None = None,
) -> None:
    """Download and convert a known public data set that is not in ``data_path`` yet; others are left alone.

    Raises:
        UserError: an unknown model or a bad setting, for which nothing is downloaded; or no network: says
            which file to put where.
    """
    given = given_settings(config_file_list, settings, arguments)
    data_path = given.get("data_path") or "dataset"
    if dataset not in known_datasets() or (Path(data_path) / dataset).exists():
        return
    folders = properties_folders(properties)
    known = {**general_settings(folders)[0], **find_model(model, folders).settings}
    for key, value in given.items():
        if key not in known:
            raise UserError(unknown_setting(key, known))
        known[key].accepts(str(value)) or known[key].check(value)
    if "item_vectors" in known:
        from recbole_contrec.item_vectors.sources import SOURCES, check_names  # slow imports

        check_names({key: given.get(key) for key in SOURCES})
    logger.info("%s is not in %s: fetching it", dataset, data_path)
    try:
        prepare(dataset, data_path)
    except PrepareError as error:
        raise UserError(
            f"{error} to: python -m recbole_contrec prepare --dataset={dataset} --data_path={data_path}"
            if "--from=" in str(error)
            else str(error)
        ) from error


def objective_function(
    config_dict: dict | None = None, config_file_list: Sequence[str] = (), saved: bool = False
) -> dict[str, Any]:
    """What RecBole's ``HyperTuning`` calls: a run, as the dictionary that it expects."""
    config = Config(config_dict=config_dict, config_file_list=list(config_file_list))
    result = _run_config(config, Wanted(None, saved))
    return {
        "model": config["model"],
        "best_valid_score": result["best_valid_score"],
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": result["best_valid_result"],
        "test_result": result["test_result"],
    }
