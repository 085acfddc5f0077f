"""
benchmarks.lib.watched
######################
Stages of a run in processes of their own, with a limit of memory and of time.

A stage is a fork of the process that has finished the stage before: it finds there what it needs, nothing is computed
twice, and its peak memory is its own (what it took over counts, for it is held all along).
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any

import psutil

from benchmarks.lib.measuring import MIB
from recbole_contrec.environment import peak_memory
from recbole_contrec.errors import UserError

POLL = 0.05  # seconds between two looks at a process


@dataclass(frozen=True)
class Limits:
    """What one stage may take: ``memory_mib`` resident, and ``seconds`` of processor time, which other work on the
    machine does not lengthen."""

    memory_mib: float
    seconds: float


def watched(
    stage: str, work: Callable[[], Any], limits: Limits, folder: Path, then: Callable[[Any], None] | None = None
) -> None:
    """Do a stage in a fork of this process, and write what came of it to ``folder/STAGE.json``.

    Args:
        stage: its name.
        work: gives a dictionary of what it has measured, or that and something to hand on to ``then``.
        limits: beyond them the fork is killed, and the file says so.
        then: called in the fork, behind the limits, for the stages that start from this one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _in_the_fork(stage, work, folder, then)
    process, report, seconds, largest = psutil.Process(child), folder / f"{stage}.json", 0.0, 0.0
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if not report.exists():
            largest, seconds = max(largest, _resident(process)), max(seconds, _processor_time(process))
            if (over := largest > limits.memory_mib) or seconds > limits.seconds:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                _write(report, {"over": "memory" if over else "time", "seconds": seconds, "peak_mib": largest})
                return
        sleep(POLL)
    if not report.exists():  # killed by the system
        _write(report, {"over": "memory", "seconds": seconds, "peak_mib": largest})


def _in_the_fork(stage: str, work: Callable[[], Any], folder: Path, then: Callable[[Any], None] | None) -> None:
    """Never returns: what stands behind a fork in the program is not for it."""
    status = 1
    try:
        before, start, clock = _resident(psutil.Process()), process_time(), perf_counter()
        try:
            found = work()
            measured, handed_on = found if isinstance(found, tuple) else (found, None)
        except (UserError, MemoryError, RuntimeError, ValueError) as error:
            text = str(error) or type(error).__name__
            memory = isinstance(error, MemoryError) or "memory" in text
            measured, then = {"refused": " ".join(text.split())[:300], **({"over": "memory"} if memory else {})}, None
        record = {
            "seconds": process_time() - start,
            "elapsed": perf_counter() - clock,
            "start_mib": before,
            "peak_mib": peak_memory() / MIB,
            "own_mib": _own(),
            **measured,
        }
        _write(folder / f"{stage}.json", record)
        if then:
            then(handed_on)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _resident(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / MIB
    except psutil.Error:  # it has just ended
        return 0.0


def _own() -> float | None:
    """Resident now but for pages of files, which the system can let go of; None where it does not tell."""
    memory = psutil.Process().memory_info()
    return (memory.rss - memory.shared) / MIB if hasattr(memory, "shared") else None


def _processor_time(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
        return times.user + times.system
    except psutil.Error:
        return 0.0


def _write(path: Path, record: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record), encoding="utf-8")
    os.replace(part, path)
