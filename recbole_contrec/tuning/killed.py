"""
recbole_contrec.tuning.killed
#############################
Trials of processes that are gone.

A process holds a folder of its own below that of its search until it ends, however it ends, and its trials name it. A
trial whose process is gone is done again at once. Of a process on another machine, or on a file system without locks,
only Optuna's signs of life tell.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from recbole_contrec.errors import UserError
from recbole_contrec.storage import lock

PROCESS = "process"  # attribute of a trial
PROCESSES = "processes"  # folder of those that live, in that of a search
GRACE = 60  # seconds without a sign of life
REPEATS = 3  # of a trial whose process was killed: it may be what kills it


def again(study: optuna.Study, trial: FrozenTrial, repeats: int | None = None) -> None:
    """Put a trial that has failed into the queue once more, with its settings and validation scores; not where this has
    been done so often already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        RetryHeartbeatStaleTrialCallback(repeats, inherit_intermediate_values=True)(study, trial)


again_if_killed = partial(again, repeats=REPEATS)


@contextmanager
def working(folder: Path) -> Iterator[str]:
    """Inside such a block, others can tell that this process lives; gives a name to mark its trials with."""
    place = folder / PROCESSES / uuid4().hex
    with lock.alone(folder):
        place.mkdir(parents=True)
        lock.acquire(place)
        if not lock.held(place):  # there are no locks here
            place.rmdir()
    try:
        yield place.name
    finally:
        lock.release(place)
        _remove(place)


def first_number(trial: FrozenTrial) -> int:
    """Number of the trial that this one does again; its own, where it is none."""
    found = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if found is None else found


def living(folder: Path) -> set[str]:
    """Names of the processes that work in the folder of a search, this one included, as far as there are locks. It is
    to be called inside :func:`~recbole_contrec.storage.lock.alone`."""
    return {place.name for place in _places(folder) if not _is_gone(place)}


def repeat_killed(study: optuna.Study, folder: Path, alone_there: bool) -> None:
    """Let trials of processes that are gone be done again. Processes ask for trials, and mark them, inside
    :func:`~recbole_contrec.storage.lock.alone`; so is this to be called.

    Args:
        folder: of the search.
        alone_there: whether all processes of the study work in this folder, so that a trial of none that lives was
            killed, with or without a mark.
    """
    places, alive = _places(folder), living(folder)
    gone = {place.name for place in places} - alive
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        process = trial.user_attrs.get(PROCESS)
        if alone_there and alive:
            killed = process not in alive
        else:
            killed = process in gone or process is None and _is_old(trial)
        if killed:
            with suppress(ValueError, UpdateFinishedTrialError):  # it has ended, or another process was faster
                again_if_killed(study, study.tell(trial.number, state=TrialState.FAIL))
    for place in places:
        if place.name in gone:
            _remove(place)
    optuna.storages.fail_stale_trials(study)


def _places(folder: Path) -> list[Path]:
    return sorted((folder / PROCESSES).glob("*"))


def _is_gone(place: Path) -> bool:
    if lock.held(place):  # by this process
        return False
    try:
        lock.acquire(place)
    except UserError:
        return False
    gone = lock.held(place)
    lock.release(place)
    return gone


def _is_old(trial: FrozenTrial) -> bool:
    """Optuna waits for ever for a trial that was killed before its first sign of life."""
    begun = trial.datetime_start
    return begun is not None and datetime.now() - begun > timedelta(seconds=GRACE)


def _remove(place: Path) -> None:
    with suppress(OSError):
        os.rmdir(place)
