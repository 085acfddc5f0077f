"""Similarity, its loss and the top K against plain reference computations."""

import pytest
import torch
import torch.nn.functional as F

from recbole_contrec.retrieval import CatalogueCrossEntropy, Retrieval, TextEvidence


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
    best, numbers = retrieval.top_k(preference, items, 6, excluded, chunk=chunk)
    torch.testing.assert_close(best, wanted)
    assert torch.equal(numbers, order)


def test_top_k_says_where_nothing_is_left(vectors):
    excluded = torch.arange(1, 31).expand(5, -1)[:, :28]
    best, numbers = Retrieval("inner").top_k(vectors[0][:5], vectors[1], 4, excluded)
    assert (numbers[:, :2] > 28).all() and (numbers[:, 2:] == 0).all() and (best[:, 2:] == -torch.inf).all()


# repeat bias


@pytest.fixture
def history():
    """Two items, one of them twice; one item; nothing; a full row."""
    rows = [[3, 9, 3, 0], [30, 0, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4]]
    return torch.tensor(rows * 175)


def with_bias(scores, history, bias):
    """The plain way: a matrix of what was seen."""
    seen = torch.zeros_like(scores).scatter(1, history, 1.0)
    seen[:, 0] = 0
    return scores + bias * seen


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_fused_cross_entropy_with_repeats_equals_torch(vectors, history, smoothing):
    query, items = (v.clone().requires_grad_() for v in vectors)
    bias = torch.tensor(-1.3, dtype=torch.float64, requires_grad=True)
    target = torch.randint(1, 31, (700,))
    target[:4] = torch.tensor([9, 30, 5, 6])  # some targets are repeats
    reference = F.cross_entropy(with_bias(query @ items.T, history, bias)[:, 1:], target - 1, label_smoothing=smoothing)
    wanted = torch.autograd.grad(3 * reference, (query, items, bias))
    loss = CatalogueCrossEntropy.apply(query, items[1:], target - 1, smoothing, history, bias)
    found = torch.autograd.grad(3 * loss, (query, items, bias))
    assert loss.item() == pytest.approx(reference.item(), rel=1e-6)
    for ours, theirs in zip(found, wanted):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("similarity", ["cosine", "inner"])
def test_repeats_get_the_bias_in_every_kind_of_score(vectors, history, similarity):
    preference, items = (v.float() for v in vectors)
    retrieval, plain = Retrieval(similarity, repeat_rate=0.1), Retrieval(similarity)
    assert retrieval.repeat_bias.item() == pytest.approx(-2.1972, abs=1e-4)  # the log odds of 0.1
    wanted = with_bias(plain.scores(preference, items), history, retrieval.repeat_bias)
    scores = retrieval.scores(preference, items, history)
    torch.testing.assert_close(scores, wanted)
    target = torch.randint(1, 31, (700,))
    torch.testing.assert_close(
        retrieval.paired_scores(preference, items[target], target, history), wanted.gather(1, target[:, None])[:, 0]
    )
    for chunk in (1, 4, 100):
        best, numbers = retrieval.top_k(preference, items, 5, history=history, chunk=chunk)
        expected, order = wanted[:, 1:].topk(5, dim=1)
        torch.testing.assert_close(best, expected)
        assert torch.equal(numbers, order + 1)


def test_without_a_history_or_a_rate_nothing_is_added(vectors, history):
    preference, items = (v.float() for v in vectors)
    plain = Retrieval("inner")
    assert torch.equal(plain.scores(preference, items, history), plain.scores(preference, items))
    assert torch.equal(Retrieval("inner", repeat_rate=0.1).scores(preference, items), plain.scores(preference, items))


def test_sampled_softmax_with_repeats_approaches_the_full_one(vectors):
    preference, items = vectors[0].float(), torch.randn(3001, 8)
    history = torch.randint(1, 3001, (700, 600))  # a fifth of the catalogue, so that the bias shows
    retrieval, target = Retrieval("inner", repeat_rate=0.02), torch.randint(1, 3001, (700,))
    full = retrieval.ranking_loss(preference, items, target, history=history).item()
    assert full != pytest.approx(retrieval.ranking_loss(preference, items, target).item(), rel=0.03)
    sampled = [retrieval.ranking_loss(preference, items, target, 1000, history).item() for _ in range(20)]
    assert sum(sampled) / 20 == pytest.approx(full, rel=0.03)


def test_the_bias_learns_how_often_people_return():
    """Targets are drawn from the history in three rows of four; vectors say nothing."""
    torch.manual_seed(0)
    items = torch.zeros(31, 4)
    retrieval = Retrieval("inner", repeat_rate=0.001)
    optimizer = torch.optim.Adam(retrieval.parameters(), lr=0.3)
    history = torch.stack([torch.randperm(30)[:3] + 1 for _ in range(400)])
    target = torch.where(torch.rand(400) < 0.75, history[:, 0], torch.randint(1, 31, (400,)))
    share = (history == target[:, None]).any(1).float().mean()
    for _ in range(150):
        optimizer.zero_grad()
        retrieval.ranking_loss(torch.zeros(400, 4), items, target, history=history).backward()
        optimizer.step()
    mass = retrieval.scores(torch.zeros(1, 4), items, torch.tensor([[1, 2, 3]]))[:, 1:].softmax(1)[0, :3].sum()
    assert mass.item() == pytest.approx(share.item(), abs=0.01)


def test_unknown_similarity_names_the_choices():
    with pytest.raises(ValueError, match="cosine, inner"):
        Retrieval("dot")


@pytest.mark.parametrize("similarity", ["cosine", "inner"])
def test_what_is_said_enters_every_kind_of_score(similarity):
    """Bonus and likelihood, beside the repeat bias, in whole scores, pairs and chunks."""
    preference, items = torch.randn(6, 8), torch.randn(31, 8)
    text = TextEvidence(
        torch.randn(6, 5), torch.randint(0, 5, (31,)), torch.tensor([1, 2, 0] * 2), torch.randint(0, 3, (31,))
    )
    history, target = torch.randint(0, 31, (6, 4)), torch.tensor([9, 30, 4, 1, 1, 1])
    retrieval = Retrieval(similarity, repeat_rate=0.1, text_bonus=0.1, text_weight=0.7)
    agrees = (text.category_of == text.answered[:, None]) & (text.answered[:, None] > 0)
    assert agrees.any() and (text.category_of == 0).any()
    seen = torch.zeros(6, 31).scatter(1, history, 1.0)
    seen[:, 0] = 0
    vectors = retrieval.scores(preference, items)
    grown = torch.where(vectors > 0, vectors * 1.1, vectors * 0.9)  # whoever agrees gains
    wanted = torch.where(agrees, grown, vectors) + 0.7 * text.log_probs[:, text.text_of] + retrieval.repeat_bias * seen
    torch.testing.assert_close(retrieval.scores(preference, items, history, text=text), wanted)
    torch.testing.assert_close(
        retrieval.paired_scores(preference, items[target], target, history, text),
        wanted.gather(1, target[:, None])[:, 0],
    )
    for chunk in (1, 4, 100):
        best, numbers = retrieval.top_k(preference, items, 5, history=history, chunk=chunk, text=text)
        expected, order = wanted[:, 1:].topk(5, dim=1)
        torch.testing.assert_close(best, expected)
        assert torch.equal(numbers, order + 1)
    said_only = retrieval.scores(preference, items, history, text=text._replace(log_probs=None, text_of=None))
    torch.testing.assert_close(said_only, wanted - 0.7 * text.log_probs[:, text.text_of])
    with pytest.raises(ValueError, match="text_bonus=-0.1"):
        Retrieval(text_bonus=-0.1)


def test_similarities_of_samples_may_be_averaged():
    preference, items = torch.randn(3, 2, 4), torch.randn(6, 4)
    for similarity in ("inner", "cosine"):
        mean = Retrieval(similarity, pooling="mean")
        expected = torch.stack([mean.scores(one, items) for one in preference]).mean(0)
        torch.testing.assert_close(mean.scores(preference, items), expected)
        torch.testing.assert_close(mean.paired_scores(preference, items[:2]), expected[:, :2].diagonal())
    with pytest.raises(ValueError, match="choose one of likelihood, mean"):
        Retrieval(pooling="median")
