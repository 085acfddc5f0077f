"""Fixtures: what `prepare` reads, archives on this machine and a small internet; atomic files that are changed; and
small data sets of any columns."""

import logging

import pytest

from recbole_contrec.data import download
from recbole_contrec.data.loading import load_data
from tests.helpers.options import changed
from tests.helpers.published import zipped
from tests.helpers.site import Site


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "RETRY_WAIT", 0)
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def archive(tmp_path):
    """Write the members into a zip outside of the data path; return its path."""

    def make(members, name="source.zip"):
        path = tmp_path / "given" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zipped(members))
        return path

    return make


@pytest.fixture
def files(config_of, tiny, caplog):
    """A function that changes files of the tiny data set and reads them: (changes by suffix, *arguments) -> RunData."""
    folder = tiny / "tiny"

    def read(changes=(), *arguments, model="SASRec"):
        for suffix, change in dict(changes).items():
            path = folder / f"tiny.{suffix}"
            content = change(path.read_bytes().decode()) if callable(change) else change
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        caplog.set_level(logging.INFO, "recbole_contrec")
        return load_data(config_of(model, *arguments))

    return read


@pytest.fixture
def shop(tiny):
    """A function (name, header, rows, item lines) that writes a small data set beside the tiny one."""

    def write(name, header, rows, separator="\t", encoding="utf-8", **files):
        (tiny / name).mkdir()
        for suffix, lines in {"inter": [header, *rows], **files}.items():
            text = "\n".join(separator.join(line.split("|")) for line in lines) + "\n"
            (tiny / name / f"{name}.{suffix}").write_bytes(text.encode(encoding))

    return write


@pytest.fixture
def load(tiny):
    """A function (model, data set, *arguments) -> RunData."""

    def start(model, dataset, *arguments):
        from recbole.utils import init_seed

        from recbole_contrec.settings.config import Config

        defaults = [f"--data_path={tiny}", "--use_gpu=False", "--topk=[3]", "--valid_metric=NDCG@3"]
        config = Config(model, dataset, arguments=changed(defaults, arguments))
        init_seed(config["seed"], True)  # which rows a random split takes
        return load_data(config)

    return start
