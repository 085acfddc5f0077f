"""Fixtures of what `prepare` reads: archives on this machine, and a small internet."""

import pytest

from recbole_contrec.data import download
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
