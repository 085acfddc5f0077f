"""
benchmarks.lib.runs
###################
Runs in a process of their own, and their results on disk: one JSON file and the ranks of all users a run.

``FOLDER/MODEL/seed2020.json`` holds what a run says (protocol card, curve, metrics, settings, hashes of the files that
it read), without paths of the machine, and ``FOLDER/MODEL/seed2020.npz`` the rank of every user's test item, with what
groups of users and items are made by (:mod:`benchmarks.lib.lists`; runs of earlier versions have the ranks alone). A
finished run is not repeated, and a killed one goes on after its last epoch, where settings, data and seed are those
that are asked for; see :mod:`benchmarks.lib.asked`.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from benchmarks.lib import checkout

RESULTS = Path("benchmarks") / "results"  # in the working directory: of a checkout, its recorded ones
ASKED = "asked.json"  # in a working folder: what its run was started with
RESULT = "result.json"  # in a working folder
TARGETS = "targets.npz"  # beside ranks: what groups of targets are made by, see benchmarks.lib.lists
WITH_BIAS = "repeat"  # the row NAME,repeat of a run with a repeat bias, and what its working folder has of it
PATHS = ("data_path", "checkpoint_dir", "dataset_save_path", "dataloaders_save_path")  # settings that are no result
FOLDERS = ("llm", "text_encoder")  # which are known by the name of a folder, wherever that lies
_EPOCH = re.compile(r"epoch (\d+) evaluating .*valid_score: ([\d.eE+-]+|nan)\]")
_COLOR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Run:
    """One training run and where its result lies.

    Attributes:
        model, dataset: as ``--model`` and ``--dataset`` take them.
        seed: of the run.
        folder: of the table that the run belongs to.
        name: of the row; the model's if not given.
        settings: further arguments, ``("--dropout=0.2",)``.
        tested: whether test results are kept; without them the run can only serve to choose.
        properties: a further folder of ``model/*.yaml``.
        measure: ``module:function``, called with the trained run (``LoadedRun``); what it returns becomes
            ``measured`` of the result.
        repeat_bias: whether the trained model, one of RecBole, is also tested with a repeat bias. This gives a second
            row, ``NAME,repeat``; see :mod:`benchmarks.lib.repeats`.
        kept: results of its rows that stay as they are, where only the others are missing.
    """

    model: str
    dataset: str
    seed: int
    folder: Path
    name: str | None = None
    settings: tuple[str, ...] = ()
    tested: bool = True
    properties: Path | None = None
    measure: str | None = None
    repeat_bias: bool = False
    kept: tuple[Path, ...] = ()

    @property
    def rows(self) -> list["Run"]:
        """This run, and the row with a repeat bias that the same training gives."""
        name = f"{self.name or self.model},{WITH_BIAS}"
        return [self, replace(self, name=name, repeat_bias=False)] if self.repeat_bias else [self]

    @property
    def result(self) -> Path:
        """The JSON file."""
        return self.folder / (self.name or self.model) / f"seed{self.seed}.json"

    @property
    def work(self) -> Path:
        """Checkpoints and logs until the run is finished."""
        return self.result.with_suffix(".work")

    @property
    def finished(self) -> bool:
        """Whether the result of every row is there; :func:`execute` writes it last."""
        return all(row.result.is_file() for row in self.rows)

    @property
    def begun(self) -> Path | None:
        """The state that a killed run left."""
        return max(self.work.glob("saved/*/last.safetensors"), default=None)

    def arguments(self, data_path: str | None) -> list[str]:
        """Settings as a command line gives them; those of the run have the last word."""
        given = [
            f"--seed={self.seed}",
            "--show_progress=False",
            *([f"--data_path={Path(data_path).resolve()}"] if data_path else []),
            *self.settings,
        ]
        return list({argument.partition("=")[0]: argument for argument in given}.values())

    def __str__(self):
        return f"{self.name or self.model} on {self.dataset}, seed {self.seed}"


@dataclass(frozen=True)
class Result:
    """What a finished run left.

    Attributes:
        name: of the row.
        content: the JSON file.
        ranks: ``user`` [n], ``rank`` [n] (1 is best) and ``ties`` [n] of the test items; see ``evaluation.py``. Empty
            for a run whose test results are not kept.
    """

    name: str
    content: dict
    ranks: dict[str, np.ndarray]


def execute(run: Run, data_path: str | None = None, on_epoch: Callable[[int, float], None] = lambda *_: None) -> None:
    """Train, test and write the result, in a child process; a killed run goes on. Whether there is something to do, and
    whether what is there is of the same settings, says :func:`benchmarks.lib.asked.missing`.

    Args:
        on_epoch: called with epoch and validation score after every epoch.

    Raises:
        RuntimeError: the run failed; quotes the end of its log.
    """
    from benchmarks.lib.asked import remember

    remember(run, data_path)
    checkout.take_properties(run.work)
    command = [
        sys.executable,
        "-m",
        __name__,
        "--work",
        str(run.work.resolve()),
        *(["--resume", str(run.begun.resolve())] if run.begun else []),
        *(["--properties", str(run.properties.resolve())] if run.properties else []),
        *(["--measure", run.measure] if run.measure else []),
        *(["--repeat-bias"] if run.repeat_bias else []),
        "--with-parent",
        "--",
        f"--model={run.model}",
        f"--dataset={run.dataset}",
        *run.arguments(data_path),
    ]
    code, tail = follow(command, run.work, checkout.environment(), on_epoch)
    if code:
        _forget_unstarted(run)
        raise RuntimeError(f"{run} failed with exit code {code}:\n{tail}")
    _keep(run)


def follow(
    command: list[str], work: Path, environment: dict[str, str], on_epoch: Callable[[int, float], None]
) -> tuple[int, str]:
    """Run a command in a folder, where ``output.txt`` keeps what it says.

    Args:
        on_epoch: called with epoch and validation score wherever a line of it tells them.

    Returns:
        tuple: exit code, and the last lines of the output.
    """
    tail: list[str] = []
    with subprocess.Popen(
        command,
        cwd=work,
        env=environment,
        stdin=subprocess.PIPE,  # nothing is written: it ends when this process does
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        with open(work / "output.txt", "a", buffering=1) as output:
            for line in child.stdout:
                output.write(line)
                line = _COLOR.sub("", line)
                tail = [*tail[-19:], line]
                if found := _EPOCH.search(line):
                    on_epoch(int(found[1]), float(found[2]))
        child.wait()
    return child.returncode, "".join(tail)


def load(folder: Path) -> dict[str, list[Result]]:
    """The finished runs of a table by row, each list in order of seeds.

    Raises:
        UserError: a file is damaged, or its run is of another data set or seed than its place says.
    """
    from recbole_contrec import UserError

    rows: dict[str, list[Result]] = {}
    dataset = None
    for path in sorted(Path(folder).glob("*/seed*.json")):
        result = Result(path.parent.name, read(path), {})
        card = result.content["card"]
        dataset = dataset or card["dataset"]
        if card["dataset"] != dataset:
            raise UserError(
                f"{path} is a run on {card['dataset']} among those on {dataset}: move it to a folder of its own"
            )
        if "seed" in card and path.stem != f"seed{card['seed']}":
            raise UserError(
                f"{path} is a run of seed {card['seed']}: each seed stands once, in seed{card['seed']}.json"
            )
        if path.with_suffix(".npz").exists():
            result.ranks.update(read_arrays(path.with_suffix(".npz"), ("user", "rank", "ties")))
        rows.setdefault(path.parent.name, []).append(result)
    return rows


def read(path: Path, *keys: str) -> dict:
    """The content of a result file.

    Args:
        keys: that it must have beside its card.

    Raises:
        UserError: it is damaged, or no result of a run.
    """
    from recbole_contrec import UserError

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["card"], dict) or not isinstance(content["card"]["dataset"], str):
            raise ValueError("its card names no data set")
        if lost := [key for key in keys if key not in content]:
            raise KeyError(*lost)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged, or no result of a run ({type(error).__name__}): remove it, and it runs anew"
        ) from error
    return content


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The columns beside a result, all of one length.

    Args:
        names: of those that must be there.

    Raises:
        UserError: the file is missing or damaged.
    """
    from recbole_contrec import UserError

    try:
        with np.load(path, allow_pickle=False) as stored:
            ranks = dict(stored)
        if not set(names) <= set(ranks):
            raise KeyError("a column is missing")
        if len({len(column) for column in ranks.values()}) != 1:
            raise ValueError("columns of several lengths")
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}): remove it and the .json beside it, and they are made anew"
        ) from error
    return ranks


def _forget_unstarted(run: Run) -> None:
    """Leave nothing of a run that failed before its first checkpoint, such as one with a misspelt setting."""
    if run.begun:
        return
    shutil.rmtree(run.work)
    for folder in (run.work.parent, run.folder):
        if not any(folder.iterdir()):
            folder.rmdir()


def _keep(run: Run) -> None:
    """Move what counts out of the working folder."""
    for row, folder, ranks in zip(run.rows, (run.work, run.work / WITH_BIAS), ("saved/*/", "")):
        if row.result in run.kept:
            continue
        _keep_row(row, folder / RESULT, next(folder.glob(f"{ranks}test_ranks.npz")) if run.tested else None)
    shutil.rmtree(run.work)


def _keep_row(run: Run, result: Path, ranks: Path | None) -> None:
    """What a run says, and the ranks where test results are kept; the JSON file comes last."""
    content = json.loads(result.read_text())
    content.pop("checkpoint")
    content["settings"] = {
        key: Path(value).name if key in FOLDERS and value and Path(value).is_dir() else value
        for key, value in content["settings"].items()
        if key not in PATHS
    }
    run.result.parent.mkdir(parents=True, exist_ok=True)
    if ranks:
        _keep_ranks(run, ranks)
    else:
        content = {key: value for key, value in content.items() if not key.startswith("test_")}
    part = run.result.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(part, run.result)


def _keep_ranks(run: Run, path: Path) -> None:
    with np.load(path) as ranks, np.load(path.with_name(TARGETS)) as targets:
        np.savez_compressed(
            run.result.with_suffix(".npz"),
            user=ranks["user"],
            rank=ranks["rank"].astype(np.int32),
            ties=ranks["ties"].astype(np.int32),
            **targets,
        )


# the child process


def _child(arguments: list[str] | None = None) -> None:
    """Run in the current folder, then test the best epoch once more without the items that were seen."""
    from benchmarks.lib.asked import file_hashes
    from benchmarks.lib.lists import describe
    from recbole_contrec import load_data_and_model, run
    from recbole_contrec.training.evaluation import RANKS
    from recbole_contrec.training.results import write_json

    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--resume")
    parser.add_argument("--properties")
    parser.add_argument("--measure")
    parser.add_argument("--repeat-bias", action="store_true")
    parser.add_argument("--with-parent", action="store_true")
    parser.add_argument("settings", nargs="*")
    given = parser.parse_args(arguments)
    if given.with_parent:
        end_with_parent()
    values = dict(argument[2:].split("=", 1) for argument in given.settings)
    result = run(
        values.pop("model"),
        values.pop("dataset"),
        resume=given.resume,
        properties=given.properties,
        arguments=[f"--{key}={value}" for key, value in values.items()] + [f"--checkpoint_dir={given.work / 'saved'}"],
    )
    loaded = without_seen = load_data_and_model(result["checkpoint"], {"mask_seen": True}, given.properties)
    loaded.trainer.eval_collector.data_collect(loaded.data.train)
    masked = loaded.trainer.evaluate(loaded.data.test, load_best_model=False)
    result["test_result_seen_masked"] = {name: float(value) for name, value in masked.items()}
    if given.measure:
        module, _, function = given.measure.partition(":")
        loaded = load_data_and_model(result["checkpoint"], properties=given.properties)
        result["measured"] = getattr(import_module(module), function)(loaded)
    result["data"] = file_hashes(loaded.config, given.work)
    describe(result, Path(result["checkpoint"]).parent / RANKS, loaded)
    if given.repeat_bias:
        _test_with_bias(result, without_seen, given)
    write_json(given.work / RESULT, result)


def end_with_parent() -> None:
    """End this process as soon as the one is gone that holds the other end of its standard input: a command that is
    killed would leave a run behind which the same command, given again, could not go on with."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _test_with_bias(result: dict, without_seen: Any, given: argparse.Namespace) -> None:
    from benchmarks.lib.lists import describe
    from benchmarks.lib.repeats import result_with_bias
    from recbole_contrec import load_data_and_model
    from recbole_contrec.training.evaluation import RANKS
    from recbole_contrec.training.results import write_json

    loaded = load_data_and_model(result["checkpoint"], properties=given.properties)
    content = result_with_bias(result, loaded, without_seen, given.work / WITH_BIAS)
    describe(content, given.work / WITH_BIAS / RANKS, loaded)
    write_json(given.work / WITH_BIAS / RESULT, content)


if __name__ == "__main__":
    from recbole_contrec import UserError

    try:
        _child()
    except UserError as error:
        sys.exit(f"error: {error}")
