"""Approximate search: candidates of a graph, exact scores."""

import logging

import pandas as pd
import pytest
import torch

from recbole_contrec import packages
from recbole_contrec.errors import UserError
from recbole_contrec.recommendation import recommend
from recbole_contrec.retrieval import Retrieval, TextEvidence, candidates
from recbole_contrec.retrieval.candidates import distinct
from recbole_contrec.retrieval.index import HNSWIndex

N, ALL = 600, 10**6  # items, and more candidates than there are


class Texts(torch.nn.Module):
    """A stand-in for the similarity of texts, with vectors far larger than those of the items."""

    weight = 4.0

    def __init__(self):
        super().__init__()
        self.vectors = torch.nn.functional.normalize(torch.randn(N, 5), dim=1)

    def queries(self, history):
        return torch.nn.functional.normalize(self.vectors[history].sum(1), dim=1)

    def forward(self, history, first, count):
        return self.weight * self.queries(history) @ self.vectors[first : first + count].T


def evidence(users):
    return TextEvidence(torch.randn(users, 9), torch.arange(N) % 9, torch.arange(users) % 4, torch.randint(1, 4, (N,)))


CASES = {
    "cosine": {},
    "inner": dict(similarity="inner"),
    "repeats": dict(repeat_rate=0.9),
    "repeats are rare": dict(repeat_rate=0.01),
    "texts": dict(text_similarity=True),
    "answers": dict(text_bonus=0.3, text_weight=0.7),
    "all": dict(repeat_rate=0.9, text_similarity=True, text_bonus=0.3, text_weight=0.7),
}


@pytest.fixture
def asked():
    """Items, preferences of 12 users, their histories and what is left out."""
    torch.manual_seed(3)
    history = torch.randint(1, N, (12, 6))
    history[3:, 4:] = 0
    return torch.randn(N, 8), torch.randn(12, 8), history, torch.cat([history, torch.randint(0, N, (12, 30))], 1)


def retrieval_of(case):
    settings = dict(CASES[case])
    settings["text_similarity"] = Texts() if settings.get("text_similarity") else None
    return Retrieval(**settings)


@pytest.mark.parametrize("pooling", ["likelihood", "mean"])
@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("case", CASES)
def test_all_candidates_give_the_exact_list(asked, case, samples, pooling):
    items, preference, history, excluded = asked
    retrieval = retrieval_of(case)
    retrieval.pooling = pooling
    retrieval.score_penalty = torch.rand(N) * 3 if case == "all" else None
    preference = preference if samples is None else torch.randn(samples, 12, 8)
    text = evidence(12) if retrieval.text_bonus else None
    for left_out in (None, excluded):
        wanted = retrieval.top_k(preference, items, 10, left_out, history, text=text)
        with retrieval.searching(items, ALL):
            found = retrieval.top_k(preference, items, 10, left_out, history, text=text)
        torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-4)
        assert torch.equal(found[1], wanted[1])
    assert retrieval.approximate is None


def test_vectors_are_gathered_for_few_users_at_a_time(asked, monkeypatch):
    """Long histories and many candidates would take gigabytes; what comes out is the same."""
    items, preference, history, _ = asked
    numbers, queries, gathered = torch.randint(0, N, (12, 40)), preference[:, :, None], []
    wanted = (items[numbers] @ queries).squeeze(2)
    normalize = torch.nn.functional.normalize
    monkeypatch.setattr(candidates, "GATHERED", 3 * 40 * 8)
    monkeypatch.setattr(candidates.F, "normalize", lambda v, dim: gathered.append(len(v)) or normalize(v, dim=dim))
    candidates.products(items, numbers, queries, normalised=True)
    assert gathered == [3, 3, 3, 3]
    torch.testing.assert_close(candidates.products(items, numbers, queries)[:, :, 0], wanted)


def test_which_items_stand_in_a_list():
    numbers, lists = torch.tensor([[5, 0, 9], [1, 2, 3]]), torch.tensor([[9, 5, 0, 0], [4, 2, 2, 0]])
    assert candidates.within(numbers, lists).tolist() == [[True, True, True], [False, True, False]]


@pytest.mark.parametrize("case", ["cosine", "texts"])
def test_few_candidates_find_most(asked, case):
    items, preference, history, excluded = asked
    retrieval = retrieval_of(case)
    wanted = retrieval.top_k(preference, items, 10, excluded, history)[1]
    with retrieval.searching(items, 30):
        found = retrieval.top_k(preference, items, 10, excluded, history)[1]
    hits = (wanted[:, :, None] == found[:, None]).any(2).float().mean()
    assert hits > 0.9


def test_what_is_left_out_never_comes_and_makes_no_list_shorter(asked):
    items, preference, history, _ = asked
    retrieval = Retrieval()
    excluded = retrieval.top_k(preference, items, 60)[1]  # all that the smallest search would find
    with retrieval.searching(items, 1):
        scores, numbers = retrieval.top_k(preference, items, 10, excluded, history)
    assert (numbers > 0).all() and torch.isfinite(scores).all()
    assert not (numbers[:, :, None] == excluded[:, None]).any()


def test_own_items_come_by_their_repeat_bias(asked):
    """Also those that the graph does not find."""
    items, preference, history, _ = asked
    retrieval = Retrieval(temperature=1.0, repeat_rate=1 - 1e-9)
    wanted = retrieval.top_k(preference, items, 3, None, history)[1]
    with retrieval.searching(items, 1):
        numbers = retrieval.top_k(preference, items, 3, None, history)[1]
    assert all({*row.tolist()} <= {*own.tolist()} for row, own in zip(numbers, history))
    assert torch.equal(numbers, wanted)


def test_fewer_items_than_are_asked_for(asked):
    items, preference, history, _ = asked
    retrieval = Retrieval()
    excluded = torch.arange(1, N - 2).expand(12, -1)
    with retrieval.searching(items, 5):
        scores, numbers = retrieval.top_k(preference, items, 4, excluded)
    assert (numbers[:, :2] >= N - 2).all() and (numbers[:, 2:] == 0).all() and (scores[:, 2:] == -torch.inf).all()


def test_the_padding_is_never_found(asked):
    items, preference, *_ = asked
    assert (HNSWIndex(items, ALL).search(preference) > 0).all()
    assert distinct(torch.tensor([[3, 1, 3, 0, 1]])).tolist() == [[0, 1, 0, 3, 0]]


# lists


@pytest.mark.parametrize("model", ["ContRec", "DeftRec", "TokenRec"])
def test_lists_by_an_index_are_those_of_the_whole_catalogue(staged, caplog, model):
    loaded = staged(model)
    with caplog.at_level(logging.INFO):
        found = recommend(loaded, k=5, batch_size=30, index="hnsw", ef_search=100)
    wanted = recommend(loaded, k=5, batch_size=30)
    same = ["user_id", "rank", "score"]  # items whose scores differ in the last digit alone may change places
    pd.testing.assert_frame_equal(found[same], wanted[same], rtol=1e-4)
    assert (found["item_id"] == wanted["item_id"]).mean() > 0.95
    assert "hnsw, ef_search=100: 100.00 % of the exact top 5 of the first 30 users" in caplog.text


@pytest.mark.parametrize("model", ["TIGER", "SASRec", "SASRecAll", "TokenRec-beam"])
def test_models_without_item_vectors_to_search_are_named(staged, model):
    with pytest.raises(UserError, match=f"^{model} does not rank by item vectors"):
        recommend(staged(model), ["u1"], index="hnsw")


def test_without_faiss_the_command_is_told(staged, monkeypatch):
    loaded, installed = staged("TokenRec"), packages.is_installed
    monkeypatch.setattr(packages, "is_installed", lambda name: name != "faiss" and installed(name))
    with pytest.raises(UserError, match="index=hnsw needs faiss, which is not installed: pip install faiss-cpu"):
        recommend(loaded, ["u1"], index="hnsw")
    with pytest.raises(UserError, match="index=best: choose one of exact, hnsw"):
        recommend(loaded, ["u1"], index="best")
