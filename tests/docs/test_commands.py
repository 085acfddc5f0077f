"""Every command and example of the README, CONTRIBUTING.md and docs/ runs: page by page, in order, in a working folder
with small data under the same names, and with YAML files that set one epoch and small networks where a page says
nothing.

Commands of NOT_RUN are not run. Those of benchmarks, which train for minutes or hours, run as far as their program
accepts the arguments; tests/benchmarks/ runs every one of these programs on small data."""

import argparse
import runpy
import shutil
import sys
from importlib.util import find_spec

import pytest
import yaml

from recbole_contrec.catalogue.places import properties_folders
from recbole_contrec.settings.registry import find_model, general_settings
from tests.helpers.files import ROOT
from tests.helpers.pages import MODELS, PAGES, blocks, commands, write_workplace

NOT_RUN = {
    "pip install": "needs a package index; .ci/run runs that of the README",
    "git clone": "needs a network",
    "cd": "goes into what git clone would make",
    "python3 -m venv": "makes the environment that runs the tests",
    "source": "makes the environment that runs the tests",
    "pre-commit install": "changes the checkout",
    "torchrun": "starts processes; tests/distributed/ does",
    "recbole_contrec --model=ContRec --dataset=ml-100k --nproc=2": "starts processes; tests/distributed/ does",
    "pytest": "is what runs this; .ci/run has it",
    "ruff": "a check of .ci/run",
    "mypy": "a check of .ci/run",
    "mkdocs": "a check of .ci/run",
    "recbole_contrec prepare --dataset=ml-1m": "downloads",
    "recbole_contrec prepare --dataset=amazon-beauty": "needs the published file",
    "python run_recbole_contrec.py tune --model=ContRec --dataset=ml-100k --trials=30": "takes long; two trials run",
    "recbole_contrec tune --model=ContRec --dataset=ml-100k --trials=30": "takes long; two trials run",
    "python -m benchmarks.readme": "writes the pages; test_readme.py compares what it writes",
}
OURS = (["recbole_contrec"], ["python", "run_recbole_contrec.py"], ["python", "-m", "recbole_contrec"])
KNOWN = {
    *general_settings(properties_folders())[0],
    *(key for model in MODELS for key in find_model(model, properties_folders()).settings),
}
WITH_CODE = [page for page in PAGES if blocks(page)]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A working folder with a finished run in saved/RUN, and one of TIGER in saved/TIGER."""
    folder = tmp_path_factory.mktemp("pages")
    write_workplace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _ours(["--model=ContRec", "--dataset=ml-100k", "--run_name=RUN"])
        _ours(["--model=TIGER", "--dataset=ml-100k", "--run_name=TIGER"])
    return folder


@pytest.fixture
def reader(trained, workplace, monkeypatch):
    """The working folder of somebody who reads a page."""
    shutil.copytree(trained, workplace, symlinks=True, dirs_exist_ok=True)
    monkeypatch.syspath_prepend(str(workplace))  # where Python looks for the reader's own modules
    return workplace


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_runs(page, reader, monkeypatch):
    names: dict = {}
    for block in blocks(page):
        if block.title:
            (reader / block.title).parent.mkdir(parents=True, exist_ok=True)
            (reader / block.title).write_text(block.text)
        elif block.language == "yaml":
            assert yaml.safe_load(block.text)
        elif block.language == "python" and "HyperTuning" in block.text and find_spec("hyperopt") is None:
            continue  # an optional package, which the tests do not ask for
        elif block.language == "python":
            exec(compile(block.text, f"{page.name}:{block.line}", "exec"), names)
        else:
            assert block.language == "sh", f"{page.name}:{block.line}: {block.language}"
            for command in commands(block):
                _run(command, monkeypatch)


def test_no_exception_is_stale():
    every = [" ".join(command) for page in PAGES for block in blocks(page, "sh") for command in commands(block)]
    for start in NOT_RUN:
        assert any((command + " ").startswith(start + " ") for command in every), f"no page has {start}"


def _run(command, monkeypatch):
    text = " ".join(command)
    if any((text + " ").startswith(start + " ") for start in NOT_RUN):
        return
    if start := next((start for start in OURS if command[: len(start)] == start), None):
        _ours(command[len(start) :])
    else:
        assert command[:2] == ["python", "-m"] and command[2].startswith("benchmarks."), f"what is {text}?"
        _accepted(command[2], command[3:], monkeypatch)


def _ours(arguments):
    from recbole_contrec.__main__ import main

    status = main(arguments)
    assert status == 0, f"exit code {status} of recbole_contrec {' '.join(arguments)}"


def _accepted(module, arguments, monkeypatch):
    """Run a benchmark until it has read its arguments; what it leaves over are settings."""

    class Accepted(Exception):
        pass

    def accept(self, *args, **options):
        raise Accepted(parse(self, *args, **options)[1])

    parse = argparse.ArgumentParser.parse_known_args
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", [module, *arguments])
        patch.setattr(argparse.ArgumentParser, "parse_known_args", accept)
        with pytest.raises(Accepted) as caught:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    settings = {argument.removeprefix("--").partition("=")[0] for argument in caught.value.args[0]}
    assert settings <= KNOWN, f"{module} does not know {settings - KNOWN}"
