"""Atomic files that are changed, and refused in a line."""

import pytest

from recbole_contrec.errors import UserError

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
FEATURES = "--load_col={'inter': ['user_id', 'item_id', 'timestamp'], 'item': '*'}"
ALL = "--load_col={'inter': '*', 'item': '*', 'user': '*'}"
PARTS = "--benchmark_filename=['train', 'valid', 'test']"


def line(number, *cells):
    """A change: this line holds these cells instead."""

    def change(text):
        lines = text.split("\n")
        lines[number - 1] = "\t".join(cells)
        return "\n".join(lines)

    return change


def refused(files, changes, *arguments, **options):
    with pytest.raises(UserError) as caught:
        files(changes, *arguments, **options)
    text = str(caught.value)
    assert len(text.splitlines()) == 1 and "Loosen" not in text
    return text
