"""Sizes that do not fit are refused at once, with an estimate."""

import pytest
import torch

from recbole_contrec import memory
from recbole_contrec.cli.messages import lack_of_memory
from recbole_contrec.data import sizes
from recbole_contrec.errors import UserError


@pytest.mark.parametrize(
    "model, argument, text",
    [
        ("SASRec", "--MAX_ITEM_LIST_LENGTH=1000000000", "rows of histories"),
        ("ContRec", "--MAX_ITEM_LIST_LENGTH=1000000000", "rows of"),
        ("SASRec", "--hidden_size=100000000", "hidden_size=100000000"),
        ("SASRec", "--hidden_size=1000000", "one table alone takes"),
        ("BPR", "--embedding_size=10000000000", "embedding_size=10000000000"),
        ("ContRec", "--vector_size=100000", "vector_size=100000"),
        ("BPR", "--eval_args={'mode': 'uni100000000000'}", "more items than the catalogue has"),
    ],
)
def test_sizes_beyond_memory(assembled, model, argument, text):
    with pytest.raises(UserError) as caught:
        assembled(model, argument)
    message = str(caught.value)
    assert text in message and "\n" not in message and any(word in message for word in ("free", "catalogue", "at most"))


@pytest.mark.parametrize(
    "model, argument, text",
    [
        ("SASRec", "--train_batch_size=300", "train_batch_size=300: scores of 60 items for"),
        ("SASRec", "--eval_batch_size=30", "eval_batch_size=30: scores of 60 items for 30 rows"),
        ("BPR", "--eval_args={'mode': 'uni900'}", "eval_args.mode=uni900"),
        ("SASRec", "--hidden_size=64", "is too large: its parameters"),
    ],
)
def test_what_is_free_counts(assembled, monkeypatch, model, argument, text):
    """Small sizes where little is free."""
    free = {"train": 300 * 61 * 8 - 1, "eval_b": 30 * 61 * 8 - 1, "eval_a": 901 * 8 - 1, "hidden": 300_000}
    monkeypatch.setattr(
        memory, "free_memory", lambda device=None: free[next(name for name in free if argument[2:].startswith(name))]
    )
    monkeypatch.setattr(sizes, "width_of_a_row", lambda config, dataset: 0)
    arguments = (argument, *(() if "batch_size" in argument else ("--train_batch_size=1", "--eval_batch_size=1")))
    with pytest.raises(UserError) as caught:
        assembled(model, *(arguments if "eval_b" not in argument else (*arguments, "--train_batch_size=1")))
    assert text in str(caught.value)


def test_sizes_that_fit_pass(assembled):
    assembled("SASRec", "--train_batch_size=2000000000", "--eval_batch_size=2000000000")


@pytest.mark.parametrize(
    "argument", ["--n_heads=0", "--hidden_size=-8", "--n_layers=100000", "--hidden_dropout_prob=2"]
)
def test_sizes_of_nothing_are_refused(assembled, argument):
    with pytest.raises(UserError, match=argument[2:].split("=")[0]):
        assembled("SASRec", argument)


def test_a_lack_of_memory_is_a_line():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert "32.0 PiB" in lack_of_memory(caught.value)
    assert "out of memory" in lack_of_memory(MemoryError())
    assert lack_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert lack_of_memory(KeyError("out of memory")) is None


def test_a_container_has_less_than_its_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    whole = memory.free_memory()
    for limit, used, free in (("5000", "2000", 3000), ("max", "2000", None)):
        (tmp_path / "memory.max").write_text(limit + "\n")
        (tmp_path / "memory.current").write_text(used + "\n")
        assert memory.free_memory() == free if free else memory.free_memory() > whole / 2
