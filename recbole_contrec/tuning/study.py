"""
recbole_contrec.tuning.study
############################
A search for settings: every trial trains with settings that Optuna draws from a space, and only validation judges.

The first trial has the defaults where the space holds them, so that what is found is no worse. Trials that lag behind
the median of the others at the same epoch stop early. The storage keeps every trial: the same command goes on with a
search that was stopped, and started twice it shares the trials.
"""

import logging
import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, TrialPruned
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from recbole_contrec import processes
from recbole_contrec.catalogue.places import properties_folders
from recbole_contrec.errors import UserError
from recbole_contrec.files import check_folder
from recbole_contrec.quick_start import run
from recbole_contrec.settings.config import Config
from recbole_contrec.settings.protocol import FILTERS
from recbole_contrec.settings.python_values import python_settings
from recbole_contrec.settings.registry import find_model, general_settings
from recbole_contrec.settings.renamed import unknown_setting
from recbole_contrec.settings.schema import parse_arguments, parse_value, read_yaml
from recbole_contrec.showing import show
from recbole_contrec.storage import lock
from recbole_contrec.tuning.space import Space

logger = logging.getLogger("recbole_contrec")

BEAT, GRACE = 10, 60  # seconds between signs of life of a trial, and without one until another process repeats it
ASKED, ERROR = "asked", "error"  # attributes of a study and of a trial
QUIET = {"state": "ERROR", "show_progress": False}  # a trial is one line
OURS = ("checkpoint_dir", "run_name", "output")  # settings that the search sets itself
# Settings that decide what a validation score is a score of: trials that differ in one cannot be compared.
MEASURING = {"valid_metric", "valid_metric_bigger", "metrics", "topk", "eval_args", "mask_seen", "data_path", *FILTERS}
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
# What a YAML file of the best settings leaves out: places, devices, and what is printed.
NOT_OF_THE_MODEL = {"data_path", "gpu_id", "use_gpu", "worker", "show_progress", "state", "seed", "save_dataset"}


@dataclass
class Search:
    """What is searched, as on the command line of :mod:`recbole_contrec.cli.tune`.

    Attributes:
        model, dataset: as for :func:`recbole_contrec.run`.
        space: the settings that vary.
        folder: where runs write while they last, and where reports go.
        name: of the study in its storage.
        storage: a URL of SQLAlchemy; None for a SQLite file in ``folder``.
        prunes: whether trials may stop early.
        settings, config_file_list, arguments, properties: of all trials, as for :func:`recbole_contrec.run`.
    """

    model: str
    dataset: str
    space: Space
    folder: Path
    name: str
    storage: str | None = None
    prunes: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    config_file_list: Sequence[str] = ()
    arguments: Sequence[str] = ()
    properties: str | None = None

    def given(self) -> dict[str, Any]:
        """What the user sets in all trials, by key."""
        files = {key: value for file in self.config_file_list for key, value in read_yaml(Path(file)).items()}
        line = {key: parse_value(text) for key, text in parse_arguments(self.arguments).items()}
        return {**files, **python_settings(self.settings), **line}

    def config(self, chosen: Mapping[str, Any] | None = None) -> Config:
        """Settings of a trial.

        Raises:
            UserError: as in a run.
        """
        return Config(
            self.model,
            self.dataset,
            list(self.config_file_list),
            None,
            self.arguments,
            self.properties,
            {**self.settings, **(chosen or {})},
        )


def tune(
    search: Search, trials: int, callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]] = ()
) -> optuna.Study:
    """Search until the study has a number of trials, those of earlier calls and of other processes included.

    Args:
        search: what is searched.
        trials: finished ones in all.
        callbacks: called after each trial of this process, as Optuna does.

    Returns:
        optuna.Study: with all trials; ``best_trial`` is the best on validation.

    Raises:
        UserError: a setting that does not exist or has bad values, a storage that cannot be used, or a study of
            another model, data set, space or settings.
    """
    if processes.size() > 1:
        raise UserError("tune is for one process: start the same command several times, they share its trials")
    config = _check(search)
    search.folder.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it shows a failed trial as a traceback
    try:
        with lock.alone(search.folder):  # two that make the tables of a storage at once get in each other's way
            study = _open(search, config)
        while len(study.get_trials(states=ENDED)) < trials:
            optuna.storages.fail_stale_trials(study)
            if running := _enough_are_running(study, trials):
                logger.warning("waiting for %s, which another process computes or was killed in", running)
                while _enough_are_running(study, trials):
                    time.sleep(BEAT)
                    optuna.storages.fail_stale_trials(study)
                continue
            seen = len(study.trials)
            # a sampler of its own for every trial, so that processes and later calls do not draw the same again
            study.sampler = optuna.samplers.TPESampler(seed=config["seed"] + seen)
            study.optimize(lambda trial: _objective(search, trial), n_trials=1, callbacks=callbacks)
    except (SQLAlchemyError, ImportError) as error:  # Optuna's where the driver of a database is missing
        raise UserError(f"storage {search.storage or search.folder}: {' '.join(str(error).split())[:300]}") from error
    return study


def value_of(trial: FrozenTrial, space: Space) -> dict[str, Any]:
    """Settings that a trial had."""
    fixed = optuna.trial.FixedTrial(trial.params)
    return {key: of_key.suggest(fixed, key) for key, of_key in space.items() if key in trial.params}


def _check(search: Search) -> Config:
    """Everything that the user may have got wrong, before the first trial.

    Raises:
        UserError: names it.
    """
    given = search.given()
    check_folder(search.folder, "output")
    for key in OURS:
        if key in given or key in search.space:
            raise UserError(f"{key}: tune sets it for each trial; --output=DIR says where everything goes")
    if measuring := sorted(MEASURING & {*search.space}):
        raise UserError(
            f"space: {', '.join(measuring)}: decides what is measured, so that trials could not be compared; "
            "give one value to all of them"
        )
    if both := [key for key in search.space if key in given]:
        raise UserError(f"{', '.join(both)}: given, and in the space; what is given does not vary")
    folders = properties_folders(search.properties)
    known = {**general_settings(folders)[0], **find_model(search.model, folders).settings}
    for key, values in search.space.items():
        if key not in known:
            raise UserError(f"space: {unknown_setting(key, known)}")
        for value in values.ends():
            known[key].check(value)
    config = search.config()
    for key in ("eval_step", "epochs"):
        if config[key] < 1:
            raise UserError(f"{key}={config[key]}: tune chooses on validation, {key} must be at least 1")
    return config


def _open(search: Search, config: Config) -> optuna.Study:
    """The study in its storage, with the defaults as its first trial.

    Raises:
        UserError: it is there already, and searches something else.
    """
    repeat = RetryHeartbeatStaleTrialCallback(max_retry=3)

    def repeat_killed(study: optuna.Study, trial: FrozenTrial) -> None:
        shutil.rmtree(search.folder / "runs" / _run_name(trial), ignore_errors=True)
        repeat(study, trial)

    storage = RDBStorage(
        search.storage or f"sqlite:///{search.folder / 'study.db'}",
        heartbeat_interval=BEAT,
        grace_period=GRACE,
        heartbeat_stale_trial_callback=repeat_killed,
    )
    study = optuna.create_study(
        storage=storage,
        study_name=search.name,
        direction="maximize" if config["valid_metric_bigger"] else "minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5) if search.prunes else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    asked = {
        "model": search.model,
        "dataset": search.dataset,
        "valid_metric": config["valid_metric"],
        "seed": config["seed"],
        "space": {key: str(values) for key, values in search.space.items()},
        "settings": {key: show(value) for key, value in search.given().items() if key not in NOT_OF_THE_MODEL},
    }
    before = study.user_attrs.get(ASKED)
    if before is None and study.trials:
        raise UserError(f"study {search.name} is of another program: choose another --study")
    if before is None:
        study.set_user_attr(ASKED, asked)
        names = {key: values.name_of(config[key]) for key, values in search.space.items()}
        study.enqueue_trial({key: name for key, name in names.items() if name is not None}, skip_if_exists=True)
    elif changed := [key for key in asked if asked[key] != before[key]]:
        raise UserError(f"study {search.name} was begun with another {', '.join(changed)}: choose another --output")
    return study


def _enough_are_running(study: optuna.Study, trials: int) -> str:
    """Names of the trials that are being done, if these are all that a number of trials lacks; else nothing. Whether
    one was killed shows when its signs of life stop; then it is done again."""
    running = study.get_trials(states=(TrialState.RUNNING,))
    if len(study.get_trials(states=ENDED)) + len(running) < trials:
        return ""
    return ", ".join(f"trial {trial.number}" for trial in running)


def _run_name(trial: optuna.Trial | FrozenTrial) -> str:
    return f"trial-{trial.number}"


def _objective(search: Search, trial: optuna.Trial) -> float:
    """Train with the settings of a trial; its best validation score."""
    chosen = {key: values.suggest(trial, key) for key, values in search.space.items()}
    name = _run_name(trial)

    def report(epoch: int, score: float) -> None:
        trial.report(score, epoch)
        if trial.should_prune():
            raise TrialPruned

    settings = {**QUIET, **search.settings, **chosen, "checkpoint_dir": str(search.folder / "runs"), "run_name": name}
    try:
        result = run(
            search.model,
            search.dataset,
            settings,
            config_file_list=search.config_file_list,
            arguments=search.arguments,
            properties=search.properties,
            tested=False,
            callback_fn=report,
        )
        if not math.isfinite(score := result["best_valid_score"] or 0.0):  # Optuna would ask for such a trial for ever
            raise FloatingPointError(f"the best validation score is {score}")
    except KeyboardInterrupt:
        trial.study.enqueue_trial(trial.params)
        raise
    except (UserError, FloatingPointError) as error:  # settings that do not go together, or a loss that is no number
        if not trial.study.get_trials(states=[TrialState.COMPLETE]):
            raise  # it may be the same for all
        trial.set_user_attr(ERROR, str(error))
        logger.warning("trial %d with %s: %s", trial.number, chosen, error)
        raise TrialPruned from error
    finally:
        shutil.rmtree(search.folder / "runs" / name, ignore_errors=True)
    for key in ("best_valid_result", "best_epoch", "epochs", "seconds"):
        trial.set_user_attr(key, result[key])
    return result["best_valid_score"]
