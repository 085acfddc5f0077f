"""recbole_contrec.recommender: item ids in, item ids out."""

import pytest

from recbole_contrec import Recommender, load_data_and_model, recommend
from recbole_contrec.errors import UserError
from recbole_contrec.recommender import Recommendation

OURS = ("ContRec", "DeftRec", "TokenRec", "TokenRec-beam", "TIGER", "SIIT", "SASRecAll")
SEQUENTIAL = ("SASRec", "GRU4Rec", "BERT4Rec", "FPMC")
HISTORIES = [["i1", "i2", "i3"], ["i9"], ["i4", "i1"]]


@pytest.fixture
def trained(run_tiny):
    return Recommender.load(run_tiny("SASRec", "--epochs=1")["checkpoint"])


@pytest.mark.parametrize("model", [*OURS, *SEQUENTIAL])
def test_histories_and_users_get_what_recommend_lists(run_tiny, model):
    checkpoint = run_tiny(model, "--epochs=1", "--refine_rounds=0" if model == "SIIT" else "--epochs=1")["checkpoint"]
    recommender, loaded = Recommender.load(checkpoint), load_data_and_model(checkpoint)
    table = recommend(loaded, histories=HISTORIES, k=4)
    assert recommender.recommend(HISTORIES, k=4) == _lists(table, ["new-1", "new-2", "new-3"])
    table = recommend(loaded, ["u3", "u0"], k=4, exclude_seen=False)
    assert recommender.recommend(users=["u3", "u0"], k=4, exclude_seen=False) == _lists(table, ["u3", "u0"])


def _lists(table, names):
    rows = {name: part for name, part in table.groupby("user_id")}
    return [Recommendation(rows[name]["item_id"].tolist(), rows[name]["score"].tolist()) for name in names]


def test_lists_are_of_plain_types(trained):
    (items, scores), *_ = trained.recommend(HISTORIES, k=3, batch_size=2)
    assert {type(value) for value in items} == {str} and {type(value) for value in scores} == {float}
    assert set(items) <= set(trained.items) and not set(items) & set(HISTORIES[0])
    assert sorted(scores, reverse=True) == scores and "u3" in trained.users


def test_histories_may_be_generators(trained):
    assert trained.recommend((iter(history) for history in HISTORIES), k=3) == trained.recommend(HISTORIES, k=3)
    assert trained.recommend([], k=3) == trained.recommend(users=[], k=3) == []


def test_an_unknown_item_is_named_or_left_out(trained):
    asked = [["i1", "j1", "i2"], ["j1"], ["i9"]]
    with pytest.raises(UserError, match="no item 'j1'"):
        trained.recommend(asked)
    known, nothing, other = trained.recommend(asked, k=3, unknown="skip")
    assert [known, other] == trained.recommend([["i1", "i2"], ["i9"]], k=3)
    assert nothing == ([], [])
    with pytest.raises(UserError, match=r"no item '\[PAD\]'"):
        trained.recommend([["[PAD]"]])


def test_a_model_of_user_ids_answers_users_alone(run_tiny):
    recommender = Recommender.load(run_tiny("LightGCN", "--epochs=1")["checkpoint"])
    assert [len(items) for items, _ in recommender.recommend(users=["u1", "u2"], k=3)] == [3, 3]
    for unknown in ("error", "skip"):
        with pytest.raises(UserError, match="LightGCN reads user ids, not histories"):
            recommender.recommend([["i1"]], unknown=unknown)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (dict(), "either histories"),
        (dict(histories=[["i1"]], users=["u1"]), "either histories"),
        (dict(histories=["i1", "i2"]), "'i1' is one text; give a list"),
        (dict(histories="i1"), "'i1' is one text; give a list"),
        (dict(users="u1"), "'u1' is one text; give a list"),
        (dict(histories=[["i1"], None]), "a history: None is no list of ids"),
        (dict(histories=5), "histories: 5 is no list of ids"),
        (dict(users=5), "users: 5 is no list of ids"),
        (dict(histories=[["i1"]], k="3"), "k='3': a whole number is needed"),
        (dict(histories=[["i1"]], k=2.5), "k=2.5: a whole number is needed"),
        (dict(users=["nobody"]), "no user 'nobody'"),
        (dict(histories=[[]]), "history is empty"),
        (dict(histories=[["i1"]], k=0), "k=0"),
        (dict(histories=[["i1"]], unknown="ignore"), "unknown='ignore': choose one of error, skip"),
        (dict(histories=[["i1"]], index="hnsw"), "SASRec does not rank by item vectors"),
    ],
)
def test_bad_questions_are_told_in_a_line(trained, asked, message):
    with pytest.raises(UserError, match=message):
        trained.recommend(**asked)
