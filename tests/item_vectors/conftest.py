"""The text encoder of the tests, and copies of its folder."""

import shutil

import pytest

from recbole_contrec.item_vectors.text_encoder import TextEncoder
from tests.helpers.files import STORIES


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder(str(STORIES), 64)


@pytest.fixture
def copy(tmp_path):
    """A function (name, *left out) -> a copy of the model's folder."""

    def build(name="copy", *left_out):
        shutil.copytree(STORIES, tmp_path / name, ignore=shutil.ignore_patterns(*left_out))
        return tmp_path / name

    return build
