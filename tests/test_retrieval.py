"""Similarity, its loss and the top K against plain reference computations."""

import pytest
import torch
import torch.nn.functional as F

from recbole_contrec.retrieval import CatalogueCrossEntropy, Retrieval


@pytest.fixture
def vectors():
    torch.manual_seed(0)
    return torch.randn(700, 8, dtype=torch.float64), torch.randn(31, 8, dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_fused_cross_entropy_equals_torch(vectors, smoothing):
    query, items = (v.clone().requires_grad_() for v in vectors)  # 700 rows: two sweeps of 512
    target = torch.randint(31, (700,))
    reference = F.cross_entropy(query @ items.T, target, label_smoothing=smoothing)
    wanted = torch.autograd.grad(3 * reference, (query, items))
    loss = CatalogueCrossEntropy.apply(query, items, target, smoothing)
    found = torch.autograd.grad(3 * loss, (query, items))
    assert loss.item() == pytest.approx(reference.item(), rel=1e-6)
    for ours, theirs in zip(found, wanted):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("similarity", ["cosine", "inner"])
def test_ranking_loss_is_the_cross_entropy_of_the_scores(vectors, similarity):
    preference, items = (v.float() for v in vectors)
    retrieval = Retrieval(similarity)
    target = torch.randint(1, 31, (700,))
    wanted = F.cross_entropy(retrieval.scores(preference, items)[:, 1:], target - 1)
    assert retrieval.ranking_loss(preference, items, target).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_temperature_is_learned(vectors):
    retrieval = Retrieval("cosine")
    retrieval.ranking_loss(vectors[0].float(), vectors[1].float(), torch.randint(1, 31, (700,))).backward()
    assert retrieval.log_scale.grad.abs() > 0


def test_sampled_softmax_approaches_the_full_one(vectors):
    preference, items = vectors[0].float(), torch.randn(3001, 8)
    retrieval, target = Retrieval("inner"), torch.randint(1, 3001, (700,))
    full = retrieval.ranking_loss(preference, items, target).item()
    sampled = [retrieval.ranking_loss(preference, items, target, negatives=1000).item() for _ in range(20)]
    assert sum(sampled) / 20 == pytest.approx(full, rel=0.03)


def test_a_drawn_target_is_no_negative(vectors):
    preference, items = torch.randn(4, 8), torch.randn(3, 8)  # two real items: the target is drawn sooner or later
    target = torch.ones(4, dtype=torch.long)
    losses = torch.stack([Retrieval("inner").ranking_loss(preference, items, target, negatives=1) for _ in range(30)])
    assert (losses == 0).any() and torch.isfinite(losses).all()


def test_samples_are_joined_by_their_mean_likelihood(vectors):
    retrieval = Retrieval("inner")
    samples, items = vectors[0][:12].reshape(3, 4, 8), vectors[1]
    wanted = torch.logsumexp(samples @ items.T, 0) - torch.log(torch.tensor(3.0))
    torch.testing.assert_close(retrieval.scores(samples, items), wanted)
    torch.testing.assert_close(retrieval.scores(samples[:1], items), samples[0] @ items.T)


@pytest.mark.parametrize("chunk", [1, 7, 30, 100])
def test_top_k_in_chunks_equals_the_full_ranking(vectors, chunk):
    preference, items = vectors[0][:5], vectors[1]
    retrieval = Retrieval("inner")
    excluded = torch.tensor([[1, 30], [2, 0], [0, 0], [5, 5], [7, 29]])
    scores = retrieval.scores(preference, items)
    scores.scatter_(1, excluded, -torch.inf)
    scores[:, 0] = -torch.inf
    wanted, order = scores.topk(6, dim=1)
    best, numbers = retrieval.top_k(preference, items, 6, excluded, chunk)
    torch.testing.assert_close(best, wanted)
    assert torch.equal(numbers, order)


def test_top_k_says_where_nothing_is_left(vectors):
    excluded = torch.arange(1, 31).expand(5, -1)[:, :28]
    best, numbers = Retrieval("inner").top_k(vectors[0][:5], vectors[1], 4, excluded)
    assert (numbers[:, :2] > 28).all() and (numbers[:, 2:] == 0).all() and (best[:, 2:] == -torch.inf).all()


def test_unknown_similarity_names_the_choices():
    with pytest.raises(ValueError, match="cosine, inner"):
        Retrieval("dot")
