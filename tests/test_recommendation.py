"""recbole_contrec.recommendation: lists for users and for histories of somebody new."""

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_contrec.errors import UserError
from recbole_contrec.quick_start import load_data_and_model
from recbole_contrec.recommendation import recommend, whole_histories


@pytest.fixture
def trained(run_tiny):
    return load_data_and_model(run_tiny("ContRec", "--epochs=1")["checkpoint"])


def test_recommend_for_known_users(trained):
    table = recommend(trained, ["u3", "u7"], k=4)
    assert list(table.columns) == ["user_id", "rank", "item_id", "score", "title", "genre"]
    assert table["user_id"].tolist() == ["u3"] * 4 + ["u7"] * 4 and table["rank"].tolist() == [1, 2, 3, 4] * 2
    assert (table.groupby("user_id")["score"].diff().dropna() <= 0).all()
    assert (table["title"] == "Title of " + table["item_id"].str[1:]).all()
    histories = whole_histories(trained)
    names = {trained.data.dataset.token2id("user_id", user): user for user in ("u3", "u7")}
    for number, user in names.items():
        seen = set(trained.data.dataset.id2token("item_id", histories[number]))
        assert not seen & set(table.loc[table["user_id"] == user, "item_id"])


def test_recommend_reads_the_whole_history(trained, tiny):
    """Also the last two items, which training never saw, and in the order of the file."""
    lines = [line.split("\t") for line in (tiny / "tiny" / "tiny.inter").read_text().splitlines()[1:]]
    for user in ("u0", "u11"):
        wanted = [item for who, item, *_ in lines if who == user]
        number = trained.data.dataset.token2id("user_id", user)
        assert trained.data.dataset.id2token("item_id", whole_histories(trained)[number]).tolist() == wanted


def test_histories_of_recbole_models_are_whole_as_well(run_tiny, trained):
    for model in ("SASRec", "LightGCN"):
        other = load_data_and_model(run_tiny(model, "--epochs=1", "--MAX_ITEM_LIST_LENGTH=5")["checkpoint"])
        ours, theirs = whole_histories(trained), whole_histories(other)
        assert {u: h.tolist() for u, h in ours.items()} == {u: h.tolist() for u, h in theirs.items()}
        assert len(recommend(other, ["u1"], k=3)) == 3


def test_batches_change_nothing(trained):
    one, many = recommend(trained, k=5, batch_size=7), recommend(trained, k=5, batch_size=1000)
    assert one["user_id"].nunique() == 40
    pd.testing.assert_frame_equal(one, many, rtol=1e-4, atol=1e-4)


def test_somebody_new(trained):
    table = recommend(trained, histories=[["i1", "i2", "i3"], ["i9"]], k=3)
    assert table["user_id"].tolist() == ["new-1"] * 3 + ["new-2"] * 3
    assert not set(table["item_id"][:3]) & {"i1", "i2", "i3"}
    again = recommend(trained, histories=[["i1", "i2", "i3"]], k=60, exclude_seen=False)
    assert {"i1", "i2", "i3"} <= set(again["item_id"])


def test_everything_seen_leaves_fewer_than_k(trained):
    everything = [f"i{number}" for number in range(58)]
    table = recommend(
        trained,
        histories=[[item for item in everything if item in trained.data.dataset.field2token_id["item_id"]]],
        k=10,
    )
    assert 0 < len(table) < 10 and table["rank"].tolist() == list(range(1, len(table) + 1))


def test_unknown_names_are_errors(trained):
    with pytest.raises(UserError, match="no user 'u77'.*did you mean"):
        recommend(trained, ["u77"])
    with pytest.raises(UserError, match="no item 'j1'"):
        recommend(trained, histories=[["j1"]])
    with pytest.raises(UserError, match="k=0"):
        recommend(trained, ["u1"], k=0)
    with pytest.raises(UserError, match="history is empty"):
        recommend(trained, histories=[[]])
    with pytest.raises(UserError, match="batch_size=-1"):
        recommend(trained, ["u1"], batch_size=-1)


@pytest.mark.parametrize("asked", [dict(users="12"), dict(histories="12"), dict(histories=["12", "i1"])])
def test_a_text_is_no_list_of_names(trained, asked):
    with pytest.raises(UserError, match="'12' is one text; give a list"):
        recommend(trained, **asked)


def test_histories_may_be_an_array(trained):
    histories = [["i1", "i2"], ["i9", "i3"]]
    pd.testing.assert_frame_equal(
        recommend(trained, histories=np.array(histories), k=3), recommend(trained, histories=histories, k=3)
    )


def test_a_list_is_no_longer_than_the_catalogue(trained):
    assert (
        len(recommend(trained, histories=[["i1"]], k=10**12, exclude_seen=False)) == trained.data.dataset.item_num - 1
    )


def test_a_model_left_in_training_mode_recommends_the_same(trained):
    wanted = recommend(trained, ["u1", "u2"], k=5)
    trained.model.train()
    pd.testing.assert_frame_equal(recommend(trained, ["u1", "u2"], k=5), wanted)


@pytest.mark.parametrize("model", ["FPMC", "TransRec"])
def test_somebody_new_reads_no_row_that_was_never_trained(run_tiny, model):
    loaded, lists = load_data_and_model(run_tiny(model, "--epochs=1")["checkpoint"]), []
    tables = [
        part
        for part in loaded.model.modules()
        if isinstance(part, torch.nn.Embedding) and part.num_embeddings == loaded.data.dataset.user_num
    ]
    for number in (-9.0, 9.0):
        for table in tables:
            torch.nn.init.constant_(table.weight[0], number)
        lists.append(recommend(loaded, histories=[["i1", "i2"]], k=5))
    assert tables
    pd.testing.assert_frame_equal(*lists)


def test_a_column_named_like_the_answers_is_kept(trained, monkeypatch):
    trained.data.dataset.item_texts["answer"] = trained.data.dataset.item_texts["title"]
    assert "answer" in recommend(trained, ["u1"], k=3)
    monkeypatch.setattr(type(trained.model), "can_answer", True)
    monkeypatch.setattr(trained.model, "answers", lambda rows, encoding: ["said"] * len(rows))
    encode = trained.model.encode_histories
    monkeypatch.setattr(trained.model, "encode_histories", lambda rows, answer: encode(rows))
    table = recommend(trained, ["u1"], k=3)
    assert (table["answer"] == "said").all() and (table["item_answer"] == table["title"]).all()


def test_a_general_model_has_nothing_to_say_about_new_users(run_tiny):
    loaded = load_data_and_model(run_tiny("LightGCN", "--epochs=1")["checkpoint"])
    with pytest.raises(UserError, match="reads user ids, not histories"):
        recommend(loaded, histories=[["i1"]])


def test_a_model_that_reads_more_than_histories_says_so(run_tiny, monkeypatch):
    loaded = load_data_and_model(run_tiny("SASRec", "--epochs=1")["checkpoint"])
    monkeypatch.setattr(loaded.model, "full_sort_predict", lambda rows: rows["rating_list"])
    with pytest.raises(UserError, match="reads .*rating_list.* which histories of items do not have"):
        recommend(loaded, ["u1"], k=3)


def test_a_model_of_contexts_is_asked_item_by_item_if_it_knows_enough(run_tiny, monkeypatch):
    loaded = load_data_and_model(run_tiny("FM", "--epochs=1", "--threshold={'rating': 3}")["checkpoint"])
    assert len(recommend(loaded, ["u1", "u2"], k=3)) == 6
    monkeypatch.setattr(loaded.model, "predict", lambda rows: rows["rating_list"])
    with pytest.raises(UserError, match="FM reads .* which histories of items do not have"):
        recommend(loaded, ["u1"], k=3)
