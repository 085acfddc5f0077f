"""The trained language model of the tests."""

import pytest

from recbole_contrec.backbone import PretrainedDecoder
from tests.helpers.files import STORIES


@pytest.fixture(scope="module")
def stories():
    """All of its weights in training, none changed."""
    return PretrainedDecoder(str(STORIES), lora_rank=0).eval()
