"""Similarity, its loss and the top K against plain reference computations."""

import pytest
import torch
import torch.nn.functional as F

from recbole_contrec.retrieval import (
    CandidateSampler,
    CatalogueCrossEntropy,
    Retrieval,
    SampledItems,
    TextEvidence,
)


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


# sampled softmax


class Given(CandidateSampler):
    """Draws what it is told."""

    def __init__(self, numbers, log_weights):
        super().__init__(1, 10**6)
        self.given = SampledItems(torch.tensor(numbers), torch.as_tensor(log_weights))

    def forward(self, device=None):
        return self.given


def gradients(loss, *inputs):
    return torch.autograd.grad(loss, inputs)


def mean_of_draws(retrieval, inputs, target, history=None, draws=150):
    """Loss of a sampled softmax and its gradients, each the mean over draws."""
    losses, found = [], []
    for _ in range(draws):
        losses.append(retrieval.ranking_loss(*inputs, target, history))
        found.append(torch.cat([g.flatten() for g in gradients(losses[-1], *inputs)]))
    return torch.stack(losses).mean(), torch.stack(found).mean(0)


@pytest.fixture
def skewed():
    """Preferences that like popular items, 400 items in all, whose popularity is Zipf's."""
    torch.manual_seed(0)
    popularity = torch.cat([torch.zeros(1), (4000 / torch.arange(1, 401)).floor()]).long()
    items = torch.randn(401, 8, dtype=torch.float64)
    items[1:, 0] += popularity[1:].clamp_min(1).log() / 2
    preference = torch.randn(50, 8, dtype=torch.float64) * 0.3
    preference[:, 0] = 1
    target = torch.multinomial(popularity.double(), 50, replacement=True)
    return (preference.requires_grad_(), items.requires_grad_()), target, popularity


@pytest.mark.parametrize("similarity", ["cosine", "inner"])
@pytest.mark.parametrize("repeats", [None, 0.1])
def test_a_sample_of_all_items_gives_the_full_softmax(skewed, similarity, repeats):
    inputs, target, _ = skewed
    history = None if repeats is None else torch.randint(0, 401, (50, 30))
    retrieval = Retrieval(similarity, repeat_rate=repeats).double()
    learned = *inputs, *retrieval.parameters()
    full = retrieval.ranking_loss(*inputs, target, history)
    wanted = gradients(full, *learned)
    retrieval.sampler = Given(list(range(1, 401)), torch.zeros(400, dtype=torch.float64))
    sampled = retrieval.ranking_loss(*inputs, target, history)
    assert sampled.item() == pytest.approx(full.item(), rel=1e-6)
    for ours, theirs in zip(gradients(sampled, *learned), wanted):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-5)


def test_as_many_uniform_draws_as_items_are_all_items():
    numbers, log_weights = CandidateSampler(400, 401)()
    assert numbers.tolist() == list(range(1, 401)) and not log_weights.any()


def test_with_enough_draws_the_whole_catalogue_is_ranked(skewed):
    inputs, target, popularity = skewed
    full = Retrieval("inner").ranking_loss(*inputs, target)
    for draws, alpha in ((400, 0.0), (500, 0.75)):
        sampler = CandidateSampler(draws, 401, popularity, alpha)
        assert sampler.covers_all and Retrieval("inner", sampler=sampler).ranking_loss(*inputs, target) == full


@pytest.mark.parametrize("alpha", [0.0, 0.75, 1.0])
def test_the_draws_have_the_probabilities_that_the_correction_names(skewed, alpha):
    """Each item stands for one item in expectation, whatever the proposal; those without interactions as well."""
    popularity = skewed[2].clone()
    popularity[300:] = 0
    sampler, total, drawn = CandidateSampler(60, 401, popularity, alpha), torch.zeros(401), torch.zeros(401)
    for _ in range(4000):
        numbers, log_weights = sampler()
        assert (numbers.diff() > 0).all() and numbers.min() >= 1 and numbers.max() <= 400
        total[numbers] += log_weights.exp() / 4000
        drawn[numbers] += 1
    assert (drawn[1:] > 0).all()
    weights = popularity[1:].clamp_min(1).double().pow(alpha)
    expected = 60 * weights / weights.sum()
    spread = (expected.clamp(max=1) / expected.square() / 4000).sqrt()  # about the standard error of a mean
    assert ((total[1:] - 1).abs() < 5 * spread + 1e-3).all()


@pytest.mark.parametrize("alpha", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("repeats", [None, 0.02])
def test_the_sampled_softmax_approaches_the_full_one(skewed, alpha, repeats):
    inputs, target, popularity = skewed
    history = None if repeats is None else torch.randint(1, 401, (50, 100))  # many repeats, so that the bias shows
    retrieval = Retrieval("inner", repeat_rate=repeats).double()
    full = retrieval.ranking_loss(*inputs, target, history)
    wanted = torch.cat([g.flatten() for g in gradients(full, *inputs)])
    retrieval.sampler = CandidateSampler(120, 401, popularity, alpha)
    loss, gradient = mean_of_draws(retrieval, inputs, target, history)
    assert loss.item() == pytest.approx(full.item(), rel=0.02)
    assert (gradient - wanted).norm() < 0.1 * wanted.norm()


def test_without_the_correction_a_biased_proposal_is_found_out(skewed):
    inputs, target, popularity = skewed

    class Uncorrected(CandidateSampler):
        def forward(self, device=None):
            numbers, _ = super().forward(device)
            return SampledItems(numbers, torch.full(numbers.shape, 400 / len(numbers)).log())

    retrieval = Retrieval("inner")
    full = retrieval.ranking_loss(*inputs, target)
    wanted = torch.cat([g.flatten() for g in gradients(full, *inputs)])
    retrieval.sampler = Uncorrected(120, 401, popularity, 1.0)
    loss, gradient = mean_of_draws(retrieval, inputs, target)
    assert loss.item() != pytest.approx(full.item(), rel=0.06)
    assert (gradient - wanted).norm() > 0.2 * wanted.norm()


def test_a_drawn_target_is_no_negative_of_its_own():
    preference, items = torch.randn(3, 8), torch.randn(6, 8)
    target, retrieval = torch.tensor([2, 4, 5]), Retrieval("inner", sampler=Given([2, 4], [0.3, -0.2]))
    scores = preference @ items.T
    others = [[scores[0, 4] - 0.2], [scores[1, 2] + 0.3], [scores[2, 2] + 0.3, scores[2, 4] - 0.2]]
    wanted = [
        torch.stack([own, *negatives]).logsumexp(0) - own for own, negatives in zip(scores[range(3), target], others)
    ]
    torch.testing.assert_close(retrieval.ranking_loss(preference, items, target), torch.stack(wanted).mean())


def test_a_target_without_negatives_costs_nothing():
    preference, items = torch.randn(4, 8), torch.randn(3, 8)  # two items: the target is drawn sooner or later
    retrieval, target = Retrieval("inner", sampler=CandidateSampler(1, 3)), torch.ones(4, dtype=torch.long)
    losses = torch.stack([retrieval.ranking_loss(preference, items, target) for _ in range(30)])
    assert (losses == 0).any() and torch.isfinite(losses).all()


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_new_items_are_drawn_too(skewed, alpha):
    sampler = CandidateSampler(300, 401, skewed[2], alpha)
    sampler.add_items(3)
    drawn = torch.cat([sampler().numbers for _ in range(200)])
    assert drawn.max() == 403 and len(drawn.unique()) == 403


def test_popularity_needs_numbers_of_interactions():
    with pytest.raises(ValueError, match="alpha=0.5 needs"):
        CandidateSampler(3, 10, alpha=0.5)


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
