"""A working directory with data sets, good and bad, and with finished runs; and the command that is run there."""

import logging
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from recbole_contrec.cli import main
from tests.helpers.commands import atomic, train
from tests.helpers.files import write_atomic_files


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _loggers_as_before():
    """A command directs the package's logger at its own screen; other tests listen to it."""
    ours, root = logging.getLogger("recbole_contrec"), logging.getLogger()
    before = ours.handlers, ours.propagate, ours.level, root.handlers[:], root.level
    yield
    ours.handlers, ours.propagate, level, root.handlers[:], root_level = before
    ours.setLevel(level)
    root.setLevel(root_level)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A working directory with data sets, good and bad, and two finished runs of one epoch: saved/mine, saved/other."""
    folder, before = tmp_path_factory.mktemp("prepared"), Path.cwd()
    os.chdir(folder)
    try:
        write_atomic_files(folder / "data")
        atomic(
            "short",
            "user_id:token item_id:token timestamp:float",
            ["u1 a 1", "u1 b 2", "u1 c 3", "u1 d 4", "u2 a 1", "u2 b 2"],
        )
        atomic("untimed", "user_id:token item_id:token", ["u1 a", "u1 b", "u1 c"])
        atomic("nobody", "item_id:token timestamp:float", ["a 1", "b 2", "c 3"])
        Path("broken.yaml").write_text("epochs: 1\nseed: 1: 2\n")
        Path("misspelt.yaml").write_text("hiden_size: 16\n")
        assert main(train("--epochs=1", "--run_name=mine")) == 0
        assert main(train("--model=SASRec", "--epochs=1", "--run_name=other")) == 0
        whole = Path("saved/mine/best.safetensors").read_bytes()
        Path("cut.safetensors").write_bytes(whole[: len(whole) // 2])
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(prepared, tmp_path, monkeypatch):
    """A copy of the prepared directory to work in."""
    shutil.copytree(prepared, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def command(capsys):
    """A function (*arguments) -> exit code and what was printed."""

    def call(*arguments):
        capsys.readouterr()
        code = main(list(arguments))
        return Done(code, *capsys.readouterr())

    return call
