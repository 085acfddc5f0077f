"""recbole_contrec.exporting.onnx_file: what onnxruntime computes from a history is what the model does."""

import json

import numpy as np
import pytest
import torch

from recbole_contrec import load_data_and_model, packages, recommend
from recbole_contrec.errors import UserError
from recbole_contrec.exporting import export, onnx_file, ranking_space

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

REPEATS = ("--repeat_bias=True", "--text_similarity=2")
CASES = {
    "ContRec": ("ContRec", *REPEATS),
    "DeftRec": ("DeftRec", "--fold_in=False"),
    "DeftRec, last state": ("DeftRec", "--condition_pooling=last", "--user_tokens=0", "--item_positions=each"),
    "TokenRec": ("TokenRec", *REPEATS),
    "SASRecAll": ("SASRecAll", *REPEATS),
    "SASRec": ("SASRec",),
    "GRU4Rec": ("GRU4Rec",),
}
HISTORIES = [["i1", "i2", "i3"], ["i9"], ["i4", "i1", "i4"], [f"i{number}" for number in range(1, 15)]]


def run(path, histories, longest):
    """Preferences and scores of a graph for histories of item ids."""
    numbers = {item: number for number, item in enumerate(_items(path), 1)}
    rows = np.zeros((len(histories), longest), dtype=np.int64)
    for row, history in enumerate(histories):
        recent = [numbers[item] for item in history][-longest:]
        rows[row, : len(recent)] = recent
    lengths = (rows > 0).sum(1)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["preference", "scores"], {"item_ids": rows, "lengths": lengths})


def _items(path):
    return path.with_suffix(".items.txt").read_text().splitlines()


@pytest.mark.parametrize("case", CASES)
def test_a_graph_ranks_as_the_model_does(run_tiny, tmp_path, case):
    loaded = load_data_and_model(run_tiny(CASES[case][0], "--epochs=1", *CASES[case][1:])["checkpoint"])
    path = tmp_path / "model.onnx"
    export(loaded, path, "onnx")
    items, longest = np.array(["[PAD]", *_items(path)]), loaded.config["MAX_ITEM_LIST_LENGTH"]
    for histories in (HISTORIES, HISTORIES[:1]):
        preference, scores = run(path, histories, longest)
        table = recommend(loaded, histories=histories, k=10, exclude_seen=False)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        np.testing.assert_allclose(np.take_along_axis(scores, best, 1).ravel(), table["score"], rtol=1e-3, atol=1e-3)
        assert (items[best].ravel() == table["item_id"]).mean() > 0.98  # those of equal scores may change places
        space = ranking_space(loaded)
        products = preference @ space.items(0, space.n_items).numpy().T
        if space.repeat_bias is None:
            np.testing.assert_allclose(products[:, 1:], scores[:, 1:], rtol=1e-4, atol=1e-4)
    [stored] = [entry.value for entry in onnx.load(path).metadata_props if entry.key == "metadata"]
    assert json.loads(stored)["items"] == "model.items.txt" and json.loads(stored)["columns"] == space.columns


def test_scores_of_a_large_catalogue_are_left_to_others(assembled, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST", 10)
    export(assembled("SASRec"), tmp_path / "model.onnx", "onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["preference"]


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("TIGER", (), "TIGER writes semantic ids by a beam search"),
        ("TokenRec-beam", (), "TokenRec-beam writes semantic ids by a beam search"),
        ("ContRec", ("--sampling_steps=2",), r"ContRec: it draws preferences \(sampling_steps=2, num_samples=1\)"),
        ("ContRec", ("--prompt_text=bag",), "ContRec: its prompts hold words"),
        ("TokenRec", ("--backbone=t5",), "TokenRec: only the compact causal language model is translated"),
        ("LightGCN", (), "LightGCN reads user ids, not histories"),
        ("FPMC", (), "FPMC: its scores are no inner products"),
    ],
)
def test_what_is_no_single_pass_is_refused(assembled, tmp_path, model, arguments, message):
    with pytest.raises(UserError, match=message):
        export(assembled(model, *arguments), tmp_path / "model.onnx", "onnx")
    assert [*tmp_path.glob("model*")] == []


def test_users_are_no_part_of_a_graph(assembled, tmp_path):
    with pytest.raises(UserError, match="nothing of users"):
        export(assembled("SASRec"), tmp_path / "model.onnx", "onnx", users="all")


def test_a_graph_that_computes_something_else_is_not_written(assembled, tmp_path, monkeypatch):
    loaded = assembled("SASRec")
    forward = onnx_file.HistoryToPreference.forward

    def otherwise(self, item_ids, lengths):
        return tuple(part + (not torch.compiler.is_compiling()) for part in forward(self, item_ids, lengths))

    monkeypatch.setattr(onnx_file.HistoryToPreference, "forward", otherwise)
    with pytest.raises(UserError, match="onnxruntime computes something else than PyTorch"):
        export(loaded, tmp_path / "model.onnx", "onnx")
    assert [*tmp_path.glob("model*")] == []


def test_a_missing_package_is_named_with_its_extra(assembled, tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "is_installed", lambda package: package != "onnxruntime")
    with pytest.raises(UserError, match=r"--format=onnx needs onnxruntime.*recbole_contrec\[onnx\]"):
        export(assembled("SASRec"), tmp_path / "model.onnx", "onnx")
