"""What a checkpoint must hold, whatever its file says; a flipped bit is noticed, and stages on disk are used only where
they are whole."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from recbole_contrec.errors import UserError
from recbole_contrec.storage import checkpoint
from recbole_contrec.storage.json_types import mismatch
from recbole_contrec.storage.record import ModelRecord, StateRecord, parse
from recbole_contrec.storage.stages import Stage, StageResult, run_stages
from recbole_contrec.training.identity import Identity, load_weights, pack_model

MODEL = {"format": checkpoint.FORMAT, "model": "M", "dataset": "d", "epoch": 0, "settings": {}, "other": {}}


def refused(path, **record):
    """The error of a checkpoint with this in its record."""
    text = json.dumps({**MODEL, **record})
    save_file({"model.x": torch.zeros(1)}, path, metadata={"recbole_contrec": text})
    with pytest.raises(UserError) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("settings", "x", "its record.settings is no dictionary"),
        ("settings", [], "no dictionary"),
        ("model", 5, "its record.model is no text"),
        ("model", None, "no text"),
        ("dataset", ["d"], "no text"),
        ("epoch", "0", "no number of an epoch"),
        ("epoch", -2, "no number of an epoch"),
        ("epoch", True, "epoch"),
        ("epoch", 2**60, "epoch"),
        ("other", {"a": 5}, "its record.other.a is no dictionary"),
        ("format", "1", "no format"),
        ("format", True, "no format"),
        ("run", 5, "its record.run is no text"),
        ("versions", {"a": 1}, "its record.versions.a is no text"),
        ("settings", math.nan, "NaN, which is no number"),
        ("epoch", -math.inf, "-Infinity"),
    ],
)
def test_types_of_a_record(tmp_path, key, value, words):
    assert words in refused(tmp_path / "x.safetensors", **{key: value})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        "5",
        "null",
        '{"format": 1e999}',
        "{" * 5000,
        "[" * 100_000,
        '{"format": ' + "9" * 5000 + "}",
        '{"model": "M"}',
        '{"format": 1, "model": "M"}',
        '{"format": 1, "optimizers": {}}',
        '{"format": 1, "stage": 5}',
    ],
)
def test_texts_that_are_no_record(text):
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "value, kind, problem",
    [
        (3, float, None),
        (3.5, float, None),
        (3.5, int, "x is no whole number"),
        (True, int, "no whole number"),
        (None, float | None, None),
        ("a", float | None, "x is no number"),
        ([1, 2.5], list[float], None),
        ([1, "a"], list[float], "x[1] is no number"),
        ([1, 2], tuple[int, float], None),
        ([1], tuple[int, float], "x is no list of 2"),
        ({"a": [1]}, dict[str, list[int]], None),
        ({"a": [None]}, dict[str, list[int]], "x.a[0] is no whole number"),
        ({}, ModelRecord, "x has no "),
        (5, StateRecord, "x is no dictionary"),
        ("\ud800", str, None),
        (math.inf, float, "no number"),
    ],
)
def test_mismatches_name_the_place(value, kind, problem):
    found = mismatch(value, kind, "x")
    assert found is None if problem is None else problem in found


def test_a_flipped_bit_anywhere_is_noticed(tmp_path):
    path, rng = tmp_path / "x.safetensors", np.random.default_rng(0)
    checkpoint.save(
        path,
        {"model.a": torch.randn(50, 7), "model.b": torch.arange(9), "c": torch.ones(3, dtype=torch.bool)},
        {"n": 1},
    )
    whole = path.read_bytes()
    for place in rng.integers(len(whole), size=200):
        content = bytearray(whole)
        content[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        try:
            found = checkpoint.load(path)
        except UserError as error:
            assert "damaged" in str(error)
        else:  # padding of the header
            assert found.record["n"] == 1 and torch.equal(found.tensors["model.b"], torch.arange(9))
            assert chr(content[place]).isspace()


@pytest.mark.parametrize(
    "format, problem", [(checkpoint.FORMAT, "its checksum is missing"), (1, "has checkpoint format 1")]
)
def test_files_without_a_checksum_are_refused(tmp_path, format, problem):
    record = {"recbole_contrec": json.dumps({"format": format, "epoch": 3})}
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors", metadata=record)
    with pytest.raises(UserError, match=problem):
        checkpoint.load(tmp_path / "x.safetensors")


class Small(torch.nn.Module):
    """Two weights, a buffer and another parameter."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
        self.register_buffer("codes", torch.zeros(2, dtype=torch.long))
        self.kept = None

    def other_parameter(self):
        return {"kept": self.kept}

    def load_other_parameter(self, found):
        for name, value in found.items():
            setattr(self, name, value)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"model.second": torch.tensor([1, math.nan])}, "not finite (second: 1 of 2)"),
        ({"model.second": torch.tensor([1, math.inf])}, "not finite"),
        ({"model.second": torch.ones(3)}, "size mismatch"),
        ({"model.second": torch.ones(2, dtype=torch.long)}, "is of type torch.int64"),
        ({"model.codes": torch.ones(2)}, "codes is of type torch.float32"),
        ({"model.second": None}, "Missing key"),
        ({"model.more": torch.ones(1)}, "Unexpected"),
        ({"other.forward": torch.ones(1)}, "the model has no forward"),
        ({"items": torch.ones(3)}, "no names of items"),
        ({"users": None}, "no names of users"),
        ({"items": torch.tensor([255], dtype=torch.uint8)}, "no names of items"),
    ],
)
def test_all_is_loaded_or_nothing(tmp_path, change, words):
    model, identity, path = Small(), Identity("d", ["", "i"], ["", "u"]), tmp_path / "x.safetensors"
    torch.nn.init.ones_(model.first), torch.nn.init.ones_(model.second)
    tensors = {**pack_model(model, identity), **change}
    checkpoint.save(
        path,
        {name: tensor for name, tensor in tensors.items() if tensor is not None},
        {**MODEL, "other": {"kept": {"value": 5}}},
    )
    ours = Small()
    with pytest.raises(UserError) as caught:
        load_weights(ours, path, "M", identity)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert ours.kept is None and not any(tensor.any() for tensor in ours.state_dict().values())


@pytest.mark.parametrize(
    "other",
    [
        {"x": {"numpy": False}},
        {"kept": {"sparse": "csr", "shape": [9, 9]}},
        {"kept": {}},
        {"eval": {"value": 5}},
        {"kept": {"numpy": True}},
        {"kept": {"sparse": "x", "shape": []}},
    ],
)
def test_other_parameters_that_are_none(tmp_path, other):
    model, identity, path = Small(), Identity("d", ["", "i"], ["", "u"]), tmp_path / "x.safetensors"
    tensors = {
        "other.kept.data": torch.ones(2),
        "other.kept.indices": torch.tensor([0, 99]),
        "other.kept.indptr": torch.tensor([0, 1, 2]),
    }
    checkpoint.save(path, {**pack_model(model, identity), **tensors}, {**MODEL, "other": other})
    with pytest.raises(UserError, match="damaged"):
        load_weights(model, path, "M", identity)
    assert model.kept is None


# stages


@pytest.mark.parametrize("damage", ["flip", "cut", "foreign", "another stage", "not finite", "without tensors"])
def test_damaged_stages_are_done_again_with_a_word(tmp_path, caplog, damage):
    taken, built = [], []

    def build(report):
        built.append(1)
        return StageResult({"x": torch.ones(50)}, {"n": 1})

    stage = Stage("vectors", {"size": 3}, build, lambda tensors: taken.append(tensors["x"]))
    run_stages([stage], "data", tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    elif damage in ("cut", "foreign"):
        path.write_bytes(content[:-9] if damage == "cut" else b"x")
    else:
        tensors = {"not finite": {"x": torch.tensor([math.nan])}, "without tensors": {}}.get(
            damage, {"x": torch.ones(50)}
        )
        checkpoint.save(
            path,
            tensors,
            {"stage": "other" if damage == "another stage" else "vectors", "settings": {"size": 3}, "report": {}},
        )
    with caplog.at_level("WARNING", "recbole_contrec"):
        finished = run_stages([stage], "data", tmp_path)
    assert "the stage is done again" in caplog.text and not finished["vectors"].found_on_disk and len(built) == 2
    assert torch.equal(taken[-1], torch.ones(50)) and path.read_bytes() == content
    assert run_stages([stage], "data", tmp_path)["vectors"].found_on_disk and len(built) == 2
