"""
recbole_contrec.tuning.study
############################
A search for settings: every trial trains with settings that Optuna draws from a space, and only validation judges.

The first trial has the defaults where the space holds them, so that what is found is no worse. Trials that lag behind
the median of the others at the same epoch stop early. The storage keeps every trial: the same command goes on with a
search that was stopped, a killed trial after its last epoch, and started twice it shares the trials. A grid is a search
whose points are given.
"""

import logging
import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from optuna.exceptions import ExperimentalWarning, TrialPruned
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from recbole_contrec import processes
from recbole_contrec.catalogue.places import properties_folders
from recbole_contrec.errors import UserError
from recbole_contrec.files import check_folder, write_whole
from recbole_contrec.quick_start import run
from recbole_contrec.settings.config import Config
from recbole_contrec.settings.protocol import FILTERS
from recbole_contrec.settings.python_values import python_settings
from recbole_contrec.settings.registry import find_model, general_settings
from recbole_contrec.settings.renamed import unknown_setting
from recbole_contrec.settings.schema import parse_arguments, parse_value, read_yaml
from recbole_contrec.showing import show
from recbole_contrec.storage import lock
from recbole_contrec.training.keeping import LAST
from recbole_contrec.tuning.killed import (
    GRACE,
    PROCESS,
    again,
    again_if_killed,
    first_number,
    living,
    repeat_killed,
    working,
)
from recbole_contrec.tuning.space import Space

logger = logging.getLogger("recbole_contrec")

BEAT = 10  # seconds between signs of life of a trial
ASKED, ERROR = "asked", "error"  # attributes of a study and of a trial
STORAGE, OWNER = "study.db", "study.txt"  # in the folder of a search: its trials, and which study writes there
FIXED = "fixed_params"  # Optuna's: what a trial has that was put into the queue
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
        points: of a grid, values of the space by key; then nothing else is tried.
        train: takes the chosen settings and what to tell each validation score, and gives the result of a run; a
            training run where it is not given.
        seeds: where ``train`` takes the mean over several ones.
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
    points: Sequence[Mapping[str, Any]] = ()
    train: Callable[[dict[str, Any], Callable[[int, float], None]], dict[str, Any]] | None = None
    seeds: Sequence[int] = ()

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
        with working(search.folder) as process:
            return _tune(search, config, trials, callbacks, process)
    except (SQLAlchemyError, ImportError) as error:  # Optuna's where the driver of a database is missing
        raise UserError(f"storage {search.storage or search.folder}: {' '.join(str(error).split())[:300]}") from error


def _tune(search: Search, config: Config, trials: int, callbacks: Sequence, process: str) -> optuna.Study:
    with lock.alone(search.folder):  # two that make the tables of a storage at once get in each other's way
        study = _open(search, config)
    warned = False
    while True:
        with ExitStack() as asking:
            asking.enter_context(lock.alone(search.folder))
            repeat_killed(study, search.folder, search.storage is None)
            _queue_points(search, study)
            if len(study.get_trials(states=ENDED)) >= trials:
                return study
            running = _enough_are_running(study, trials)
            if not running:
                # a sampler of its own for every trial, so that processes and later calls do not draw the same again
                study.sampler = optuna.samplers.TPESampler(seed=config["seed"] + len(study.trials))
                study.optimize(partial(_begin, search, process, asking), n_trials=1, callbacks=callbacks)
                continue
        if not warned:
            logger.warning("waiting for %s, which another process computes", running)
            warned = True
        time.sleep(BEAT)


def begin_anew(search: Search) -> None:
    """Forget the trials of a search whose results are kept elsewhere, unless another process is at it."""
    if not search.folder.is_dir():
        return
    with lock.alone(search.folder):
        if not living(search.folder):
            for path in [*search.folder.glob(f"{STORAGE}*"), search.folder / OWNER]:  # and a journal, after a kill
                path.unlink(missing_ok=True)


def _begin(search: Search, process: str, asking: ExitStack, trial: optuna.Trial) -> float:
    """Mark a trial as one of this process and draw its settings; then others may ask for the next one."""
    trial.set_user_attr(PROCESS, process)
    chosen = {key: values.suggest(trial, key) for key, values in search.space.items()}
    asking.close()
    return _objective(search, trial, chosen)


def _queue_points(search: Search, study: optuna.Study) -> None:
    """Let those points of a grid be tried that no trial has, or only one that failed."""
    known = [
        trial.system_attrs.get(FIXED, trial.params) for trial in study.get_trials() if trial.state != TrialState.FAIL
    ]
    for point in search.points:
        if (names := {key: search.space[key].name_of(value) for key, value in point.items()}) not in known:
            study.enqueue_trial(names)


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
    owner = search.folder / OWNER
    if owner.exists() and (name := owner.read_text(encoding="utf-8").partition("\n")[0]) != search.name:
        raise _taken(search, name)
    storage = RDBStorage(
        search.storage or f"sqlite:///{search.folder / STORAGE}",
        heartbeat_interval=BEAT,
        grace_period=GRACE,
        heartbeat_stale_trial_callback=again_if_killed,
    )
    names = optuna.get_all_study_names(storage)
    if search.storage is None and (others := [name for name in names if name != search.name]):
        raise _taken(search, others[0])
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
        "seed": list(search.seeds) or config["seed"],
        "space": {key: str(values) for key, values in search.space.items()},
        "settings": {key: show(value) for key, value in search.given().items() if key not in NOT_OF_THE_MODEL},
    }
    before = study.user_attrs.get(ASKED)
    if before is None and study.trials:
        raise UserError(f"study {search.name} is of another program: choose another --study")
    if before is None:
        study.set_user_attr(ASKED, {**asked, "id": uuid4().hex})
    elif changed := [key for key in asked if asked[key] != before[key]]:
        raise UserError(f"study {search.name} was begun with another {', '.join(changed)}: choose another --output")
    if before is None and not search.points:
        defaults = {key: values.name_of(config[key]) for key, values in search.space.items()}
        study.enqueue_trial({key: name for key, name in defaults.items() if name is not None}, skip_if_exists=True)
    _claim(search, study, owner)
    return study


def _claim(search: Search, study: optuna.Study, owner: Path) -> None:
    """Say in its folder which study writes there. One of the same name may lie in another storage."""
    text = f"{search.name}\n{study.user_attrs[ASKED].get('id', '')}\n"
    if not owner.exists():
        write_whole(owner, lambda path: path.write_text(text, encoding="utf-8"))
    elif owner.read_text(encoding="utf-8") != text:
        raise _taken(search, search.name)


def _taken(search: Search, name: str) -> UserError:
    where = " of another storage" if name == search.name else ""
    return UserError(
        f"{search.folder} has the reports of the study {name}{where}, which would be overwritten: choose another "
        "--output"
    )


def _enough_are_running(study: optuna.Study, trials: int) -> str:
    """Names of the trials that are being done, if these are all that a number of trials lacks; else nothing."""
    running = study.get_trials(states=(TrialState.RUNNING,))
    if len(study.get_trials(states=ENDED)) + len(running) < trials:
        return ""
    return ", ".join(f"trial {trial.number}" for trial in running)


def _objective(search: Search, trial: optuna.Trial, chosen: dict[str, Any]) -> float:
    """Train with the settings of a trial; its best validation score."""
    folder = search.folder / "runs" / f"trial-{first_number(trial.study.trials[trial.number])}"

    def report(epoch: int, score: float) -> None:
        trial.report(score, epoch)
        if trial.should_prune():
            raise TrialPruned

    try:
        result = search.train(chosen, report) if search.train else _train(search, chosen, folder, report)
        if not math.isfinite(score := result["best_valid_score"] or 0.0):  # Optuna would ask for such a trial for ever
            raise FloatingPointError(f"the best validation score is {score}")
    except KeyboardInterrupt:
        again(trial.study, trial.study.trials[trial.number])
        raise
    except (UserError, FloatingPointError) as error:  # settings that do not go together, or a loss that is no number
        if not search.points and not trial.study.get_trials(states=[TrialState.COMPLETE]):
            raise  # it may be the same for all
        trial.set_user_attr(ERROR, str(error))
        logger.warning("trial %d with %s: %s", trial.number, chosen, error)
        raise TrialPruned from error
    for key in ("best_valid_result", "best_epoch", "epochs", "seconds"):
        trial.set_user_attr(key, result[key])
    return result["best_valid_score"]


def _train(
    search: Search, chosen: Mapping[str, Any], folder: Path, report: Callable[[int, float], None]
) -> dict[str, Any]:
    """Train in a folder, which is gone afterwards. Where a trial was stopped there, it goes on after its last epoch."""
    settings = {**QUIET, **search.settings, **chosen, "checkpoint_dir": str(folder.parent), "run_name": folder.name}
    resumes = (folder / LAST).is_file()
    if not resumes:  # killed before its first epoch had ended
        shutil.rmtree(folder, ignore_errors=True)
    kept = False
    try:
        return run(
            search.model,
            search.dataset,
            settings,
            config_file_list=search.config_file_list,
            arguments=search.arguments,
            properties=search.properties,
            resume=str(folder) if resumes else None,
            tested=False,
            callback_fn=report,
        )
    except KeyboardInterrupt:
        kept = True
        raise
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
