"""recbole_contrec.exporting: vectors whose inner product is the score, and codes, as files."""

import json
import weakref

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from recbole_contrec import exporting, load_data_and_model, recommend
from recbole_contrec.errors import UserError
from recbole_contrec.exporting import export, export_of, formats
from recbole_contrec.fold_in import fold_in_interactions
from recbole_contrec.recommendation import whole_histories

USERS = [f"u{number}" for number in range(12)]
REPEATS = ("--repeat_bias=True", "--text_similarity=2")
CASES = {
    "ContRec": ("ContRec", *REPEATS),
    "ContRec, inner product": ("ContRec", "--similarity=inner"),
    "ContRec, mean of samples": ("ContRec", "--num_samples=3", "--sampling_steps=2", "--sample_pooling=mean"),
    "DeftRec": ("DeftRec",),
    "TokenRec": ("TokenRec", *REPEATS),
    "SASRecAll": ("SASRecAll", *REPEATS),
    "SASRec": ("SASRec",),
    "GRU4Rec": ("GRU4Rec",),
}


def trained(run_tiny, model, *arguments):
    return load_data_and_model(run_tiny(model, "--epochs=1", *arguments)["checkpoint"])


def top_10(loaded, arrays, metadata, exclude_seen):
    """Lists of an export by its own rules: item ids and scores of every user."""
    scores = arrays["user_vectors"] @ arrays["item_vectors"].T  # [u, N - 1]
    dataset, histories = loaded.data.dataset, whole_histories(loaded)
    for row, user in enumerate(arrays["user_ids"]):
        seen = histories[dataset.token2id(dataset.uid_field, str(user))] - 1
        if metadata["repeat_bias"] is not None:
            scores[row, np.unique(seen[-loaded.config["MAX_ITEM_LIST_LENGTH"] :])] += metadata["repeat_bias"]
        if exclude_seen:
            scores[row, seen] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    return arrays["item_ids"][best], np.take_along_axis(scores, best, 1)


@pytest.mark.parametrize("case", CASES)
def test_products_rank_as_the_model_does(run_tiny, tmp_path, case):
    loaded = trained(run_tiny, *CASES[case])
    assert export(loaded, tmp_path / "space.npz", users=USERS, batch_size=5) == (loaded.model.n_items - 1, 12)
    with np.load(tmp_path / "space.npz") as arrays:
        arrays = dict(arrays)
    metadata = json.loads(str(arrays["metadata"]))
    assert metadata["left_out"] == []
    assert (metadata["repeat_bias"] is not None) == ("Rec" in case and case not in ("SASRec", "GRU4Rec"))
    assert "text_similarity" in metadata["columns"] or REPEATS[1] not in CASES[case]
    assert max(last for _, last in metadata["columns"].values()) == arrays["item_vectors"].shape[1]
    for exclude_seen in (True, False):
        table = recommend(loaded, USERS, k=10, exclude_seen=exclude_seen)
        items, scores = top_10(loaded, arrays, metadata, exclude_seen)
        np.testing.assert_allclose(scores.ravel(), table["score"], rtol=1e-4, atol=1e-4)
        assert (items.ravel() == table["item_id"]).mean() > 0.98  # those of equal scores may change places


def test_new_items_are_held_back_in_the_product_as_well(run_tiny, tmp_path):
    loaded = trained(run_tiny, "ContRec")
    fold_in_interactions(loaded, {f"new{number}": USERS[number : number + 4] for number in range(8)})
    loaded.model.hold_back(loaded.model.item_vectors.weight.new_ones(loaded.model.n_items))
    export(loaded, tmp_path / "space.npz", users=USERS)
    with np.load(tmp_path / "space.npz") as arrays:
        arrays = dict(arrays)
    metadata = json.loads(str(arrays["metadata"]))
    assert "new0" in arrays["item_ids"] and "new_item_penalty" in metadata["columns"]
    scores = top_10(loaded, arrays, metadata, True)[1]
    np.testing.assert_allclose(scores.ravel(), recommend(loaded, USERS)["score"], rtol=1e-4, atol=1e-4)


def test_all_formats_hold_the_same(run_tiny, tmp_path):
    loaded = trained(run_tiny, "TokenRec")
    for name in ("space.npz", "space.safetensors", "space"):
        format = name.partition(".")[2] or "parquet"
        assert export(loaded, tmp_path / name, format, users="all") == (loaded.data.dataset.item_num - 1, 40)
    with np.load(tmp_path / "space.npz") as arrays:
        wanted = dict(arrays)
    assert wanted["item_codes"].shape == (loaded.data.dataset.item_num - 1, loaded.model.code_table.num_codebooks)
    metadata = json.loads(str(wanted.pop("metadata")))
    tensors = load_file(tmp_path / "space.safetensors")
    with safe_open(tmp_path / "space.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["metadata"]) == metadata
    items, users = (pd.read_parquet(tmp_path / "space" / name) for name in (formats.ITEMS, formats.USERS))
    assert json.loads((tmp_path / "space" / formats.METADATA).read_text()) == metadata
    tables = {"item": items, "user": users}
    assert {*wanted} == {*tensors} == {"item_ids", "item_vectors", "item_codes", "user_ids", "user_vectors"}
    for name, array in wanted.items():
        what, column = name.split("_")
        if column == "ids":
            assert tensors[name].tobytes().decode().split("\n") == array.tolist()
            assert tables[what][f"{what}_id"].tolist() == array.tolist()
        else:
            column = column.replace("vectors", "vector")
            assert np.array_equal(tensors[name], array)
            assert np.array_equal(np.stack(tables[what][column]), array)


def test_parquet_holds_no_more_than_a_batch_of_users(assembled, tmp_path, monkeypatch):
    loaded, alive, most = assembled("SASRec"), [], []
    rows = exporting.space.Rows

    def watched(ids, vectors, codes=None):
        alive.append(weakref.ref(vectors))
        most.append(sum(one() is not None for one in alive))
        return rows(ids, vectors, codes)

    monkeypatch.setattr(exporting.space, "Rows", watched)
    export(loaded, tmp_path / "space", "parquet", users="all", batch_size=4)
    assert len(alive) == 11 and max(most) <= 3  # items, the batch that is made, and the one that was written before it
    assert len(pd.read_parquet(tmp_path / "space" / formats.USERS)) == 40


def test_items_are_made_in_parts(assembled, tmp_path, monkeypatch):
    loaded = assembled("SASRec")
    export(loaded, tmp_path / "whole.npz")
    monkeypatch.setattr(exporting.space, "ITEMS_AT_ONCE", 7)
    assert len(list(export_of(loaded).items())) > 5
    export(loaded, tmp_path / "parts.npz")
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "parts.npz") as parts:
        assert {*whole} == {*parts} == {"item_ids", "item_vectors", "metadata"}
        assert all(np.array_equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("model", ["TIGER", "SIIT", "TokenRec-beam"])
def test_models_that_write_semantic_ids_export_these(staged, tmp_path, model):
    loaded = staged(model)
    loaded.model.code_table.codes[[3, 5]] = loaded.model.code_table.unknown_code
    export(loaded, tmp_path / "ids.npz")
    with np.load(tmp_path / "ids.npz") as arrays:
        assert {*arrays} == {"item_ids", "item_codes", "metadata"}
        codes, table = arrays["item_codes"], loaded.model.code_table
        known = table.known[1:].numpy()
        assert np.array_equal(codes[known], table.codes[1:].numpy()[known]) and (codes[~known] == -1).all()
        assert not known[[2, 4]].any()
    with pytest.raises(UserError, match=f"{model} writes semantic ids and has no preference vectors"):
        export(loaded, tmp_path / "more.npz", users="all")


def test_what_answers_in_words_add_is_named(assembled):
    loaded = assembled("ContRec", "--answer_weight=0.1", "--text_bonus=0.2", "--text_weight=0.3")
    assert export_of(loaded).metadata["left_out"] == [
        "text_bonus=0.2: what answers in words add",
        "text_weight=0.3: what answers in words add",
    ]


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("BERT4Rec", (), "BERT4Rec: its scores are no inner products"),
        ("LightGCN", (), "LightGCN: its scores are no inner products"),
        ("FPMC", (), "FPMC: its scores are no inner products"),
        ("ContRec", ("--num_samples=2", "--sampling_steps=2"), "joins num_samples=2 preferences by the log"),
    ],
)
def test_scores_that_are_no_products_are_refused(assembled, tmp_path, model, arguments, message):
    with pytest.raises(UserError, match=message):
        export(assembled(model, *arguments), tmp_path / "space.npz")
    assert [*tmp_path.glob("space*")] == []


def test_what_cannot_be_written_is_told_in_a_line(assembled, tmp_path):
    loaded = assembled("SASRec")
    for output, format, users, message in (
        ("space.json", "json", None, "format=json: choose one of"),
        ("space.npz", "parquet", None, "the ending says npz, and --format=parquet"),
        ("none/space.npz", "npz", None, "there is no folder"),
        ("space.npz", "npz", "u1", "'u1' is one text"),
        ("space.npz", "npz", ["nobody"], "no user 'nobody'"),
    ):
        with pytest.raises(UserError, match=message):
            export(loaded, tmp_path / output, format, users)
    export(loaded, tmp_path / "space", "parquet")
    with pytest.raises(UserError, match="holds items.parquet already"):
        export(loaded, tmp_path / "space", "parquet")


def test_the_command_writes_what_the_function_does(run_tiny, tmp_path, capsys):
    from recbole_contrec.cli import main

    run_tiny("SASRec", "--epochs=1", "--run_name=one")
    assert main(["export", "--checkpoint=saved/one", "--output=space.npz", "--users=u1,u2"]) == 0
    loaded = load_data_and_model("saved/one")
    assert capsys.readouterr().out.endswith(f"{loaded.data.dataset.item_num - 1} items, 2 users\n")
    export(loaded, tmp_path / "again.npz", users=["u1", "u2"])
    with np.load("space.npz") as written, np.load("again.npz") as again:
        assert all(np.array_equal(written[name], again[name]) for name in again)
    for arguments, message in (
        ([], "name both --checkpoint=PATH and --output=FILE"),
        (["--checkpoint=saved/one", "--output=space"], "name the --format"),
        (["--checkpoint=saved/one", "--output=space.npz", "--all", "--users=u1"], "leave --users away"),
        (["--checkpoint=saved/one", "--output=space.txt"], "format=txt: choose one of"),
    ):
        assert main(["export", *(arguments or ["--output=space.npz"])]) == 2
        assert message in capsys.readouterr().err
