"""Two processes for all tests of this folder."""

import pytest

from tests.helpers.together import Together


@pytest.fixture(scope="session")
def together():
    """A function (job, folder, *arguments) -> exit code, output and result of both processes."""
    started = Together()
    yield started
    started.close()
