"""Fixtures: a small data set of RecBole's atomic files, and the one way tests build configurations and runs."""

import logging
import random
import sys

import numpy as np
import pytest
import torch

from tests.helpers.files import ROOT, write_atomic_files
from tests.helpers.options import TINY, TINY_OF, changed

# Behind what is installed, so that the package under test is the installed one and benchmarks/ is found at all.
sys.path.append(str(ROOT))
torch.set_num_threads(1)  # the models of the tests are too small to share


@pytest.fixture(autouse=True)
def nothing_of_another_test():
    """The same random numbers whatever ran before, and no handlers of RecBole's: a run leaves them behind, and they
    write to the screen of the test that is over."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # commands of benchmarks/ set it for their process
    yield
    for logger in (logging.getLogger(), logging.getLogger("recbole_contrec")):
        logger.handlers = [handler for handler in logger.handlers if type(handler).__module__.startswith("_pytest")]
    ours = logging.getLogger("recbole_contrec")
    ours.propagate = True
    ours.setLevel(logging.NOTSET)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working directory: runs write logs and checkpoints below it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(workplace):
    """The folder for ``--data_path`` with the data set ``tiny`` in it."""
    write_atomic_files(workplace / "data")
    return workplace / "data"


@pytest.fixture
def config_of(tiny):
    """A function (model, *arguments) -> Config on the tiny data set."""

    def build(model="ContRec", *arguments):
        from recbole_contrec.settings.config import Config

        defaults = [*TINY_OF.get(model, TINY), f"--data_path={tiny}"]
        return Config(model, "tiny", arguments=changed(defaults, arguments))

    return build


@pytest.fixture
def assembled(config_of):
    """A function (model, *arguments) -> LoadedRun: data, model and trainer, not trained yet."""

    def build(model="ContRec", *arguments):
        from recbole_contrec.data.loading import load_data
        from recbole_contrec.quick_start import assemble

        config = config_of(model, *arguments)
        return assemble(config, load_data(config))

    return build


@pytest.fixture
def staged(assembled):
    """A function (model, *arguments) -> LoadedRun whose stages are done: tokens are there, nothing else is trained."""

    def build(model="ContRec", *arguments):
        loaded = assembled(model, *arguments)
        loaded.trainer.run_stages(loaded.data.train)
        return loaded

    return build


@pytest.fixture
def run_tiny(tiny):
    """A function (model, *arguments) -> result of a run on the tiny data set."""

    def start(model="ContRec", *arguments, **options):
        from recbole_contrec.quick_start import run

        defaults = [*TINY_OF.get(model, TINY), f"--data_path={tiny}"]
        return run(model, "tiny", arguments=changed(defaults, arguments), **options)

    return start


@pytest.fixture
def executed(workplace, monkeypatch):
    """Runs of benchmarks happen in this process, where the libraries are loaded already; names of those that did, and
    what lay in their working folders as arrays before they started."""
    from benchmarks.lib import running, runs

    names, arrays = [], {}

    def execute(run, data_path, on_epoch):
        names.append(run.name)
        run.work.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(run.work)
        for path in run.work.glob("*.npy"):
            arrays[run.name] = np.load(path)
        try:
            runs._child(
                [
                    "--work",
                    str(run.work),
                    *(["--repeat-bias"] if run.repeat_bias else []),
                    "--",
                    f"--model={run.model}",
                    f"--dataset={run.dataset}",
                    f"--seed={run.seed}",
                    f"--data_path={data_path}",
                    *run.settings,
                ]
            )
        finally:
            monkeypatch.chdir(workplace)
        runs._keep(run)

    monkeypatch.setattr(running, "execute", execute)
    return names, arrays


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """The folder of a Hugging Face cache that holds nothing yet."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between attempts
    return tmp_path / "hub"
