"""
benchmarks.runs
###############
Runs in a process of their own, and their results on disk: one JSON file and the ranks of all users a run.

``FOLDER/MODEL/seed2020.json`` holds what a run says (protocol card, curve, metrics), without paths of the machine, and
``FOLDER/MODEL/seed2020.npz`` the rank of every user's test item. A finished run is never repeated, a killed one goes
on after its last epoch.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Callable

import numpy as np

RESULTS = Path(__file__).parent / "results"
PATHS = ("data_path", "checkpoint_dir", "dataset_save_path", "dataloaders_save_path")  # settings that are no result
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
        measure: ``module:function`` of this folder, called with the trained run (``LoadedRun``); what it returns becomes
            ``measured`` of the result.
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
        """Whether the result is there; :func:`execute` writes it last."""
        return self.result.is_file()

    def __str__(self):
        return f"{self.name or self.model} on {self.dataset}, seed {self.seed}"


@dataclass(frozen=True)
class Result:
    """What a finished run left.

    Attributes:
        name: of the row.
        content: the JSON file.
        ranks: ``user`` [n], ``rank`` [n] (1 is best) and ``ties`` [n] of the test items; see ``evaluation.py``. Empty for
            a run whose test results are not kept.
    """

    name: str
    content: dict
    ranks: dict[str, np.ndarray]


def execute(run: Run, data_path: str | None = None, on_epoch: Callable[[int, float], None] = lambda *_: None) -> None:
    """Train, test and write the result, in a child process; does nothing where the result is there.

    Args:
        on_epoch: called with epoch and validation score after every epoch.

    Raises:
        RuntimeError: the run failed; quotes the end of its log.
    """
    if run.finished:
        return
    run.work.mkdir(parents=True, exist_ok=True)
    started = sorted(run.work.glob("saved/*/last.safetensors"))
    arguments = [f"--model={run.model}", f"--dataset={run.dataset}", f"--seed={run.seed}", "--show_progress=False",
                 *([f"--data_path={Path(data_path).resolve()}"] if data_path else []), *run.settings]
    command = [sys.executable, str(Path(__file__).resolve()), "--work", str(run.work.resolve()),
               *(["--resume", str(started[-1].resolve())] if started else []),
               *(["--properties", str(run.properties.resolve())] if run.properties else []),
               *(["--measure", run.measure] if run.measure else []), "--", *arguments]
    tail: list[str] = []
    with subprocess.Popen(command, cwd=run.work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        with open(run.work / "output.txt", "a", buffering=1) as output:
            for line in child.stdout:
                output.write(line)
                line = _COLOR.sub("", line)
                tail = [*tail[-19:], line]
                if found := _EPOCH.search(line):
                    on_epoch(int(found[1]), float(found[2]))
    if child.returncode:
        _forget_unstarted(run)
        raise RuntimeError(f"{run} failed with exit code {child.returncode}:\n{''.join(tail)}")
    _keep(run)


def load(folder: Path) -> dict[str, list[Result]]:
    """The finished runs of a table by row, each list in order of seeds."""
    rows: dict[str, list[Result]] = {}
    for path in sorted(Path(folder).glob("*/seed*.json")):
        result = Result(path.parent.name, json.loads(path.read_text()), {})
        if path.with_suffix(".npz").exists():
            with np.load(path.with_suffix(".npz")) as ranks:
                result.ranks.update(ranks)
        rows.setdefault(path.parent.name, []).append(result)
    return rows


def _forget_unstarted(run: Run) -> None:
    """Leave nothing of a run that failed before its first checkpoint, such as one with a misspelt setting."""
    if any(run.work.glob("saved/*/last.safetensors")):
        return
    shutil.rmtree(run.work)
    for folder in (run.work.parent, run.folder):
        if not any(folder.iterdir()):
            folder.rmdir()


def _keep(run: Run) -> None:
    """Move what counts out of the working folder; the JSON file comes last."""
    content = json.loads((run.work / "result.json").read_text())
    content.pop("checkpoint")
    content["settings"] = {key: value for key, value in content["settings"].items() if key not in PATHS}
    if run.tested:
        _keep_ranks(run)
    else:
        content = {key: value for key, value in content.items() if not key.startswith("test_")}
    part = run.result.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(part, run.result)
    shutil.rmtree(run.work)


def _keep_ranks(run: Run) -> None:
    with np.load(next(run.work.glob("saved/*/test_ranks.npz"))) as ranks:
        np.savez_compressed(run.result.with_suffix(".npz"), user=ranks["user"], rank=ranks["rank"].astype(np.int32),
                            ties=ranks["ties"].astype(np.int32))


# the child process


def _child(arguments: list[str] | None = None) -> None:
    """Run in the current folder, then test the best epoch once more without the items that were seen."""
    from recbole_contrec import load_data_and_model, run
    from recbole_contrec.training.results import write_json

    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--resume")
    parser.add_argument("--properties")
    parser.add_argument("--measure")
    parser.add_argument("settings", nargs="*")
    given = parser.parse_args(arguments)
    values = dict(argument[2:].split("=", 1) for argument in given.settings)
    result = run(values.pop("model"), values.pop("dataset"), resume=given.resume,
                 properties=given.properties, arguments=[f"--{key}={value}" for key, value in values.items()]
                 + [f"--checkpoint_dir={given.work / 'saved'}"])
    loaded = load_data_and_model(result["checkpoint"], ["--mask_seen=True"], given.properties)
    loaded.trainer.eval_collector.data_collect(loaded.data.train)
    masked = loaded.trainer.evaluate(loaded.data.test, load_best_model=False)
    result["test_result_seen_masked"] = {name: float(value) for name, value in masked.items()}
    if given.measure:
        module, _, function = given.measure.partition(":")
        loaded = load_data_and_model(result["checkpoint"], properties=given.properties)
        result["measured"] = getattr(import_module(module), function)(loaded)
    write_json(given.work / "result.json", result)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, not an installed version
    from recbole_contrec import UserError

    try:
        _child()
    except UserError as error:
        sys.exit(f"error: {error}")
