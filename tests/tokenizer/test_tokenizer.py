"""The tokenizer sub-package: vectors, sigma-VAE, training and health report."""

import json
import math

import numpy as np
import pytest
import torch

from recbole_contrec.tokenizer import (
    SigmaVAE,
    fit_tokenizer,
    health_report,
    history_means,
    load_vectors,
    reconstruction_error,
    seen_rows,
    split_rows,
    standardise,
    svd_vectors,
    twins_redundancy,
)
from recbole_contrec.tokenizer import fit as fit_module


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def interactions(n_users, n_items, density, seed=0):
    matrix = np.random.default_rng(seed).random((n_users, n_items)) < density
    matrix[0] = matrix[:, 0] = False
    return matrix, *np.nonzero(matrix)


def low_rank(n=400, d=16, rank=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, rank, generator=g) @ torch.randn(rank, d, generator=g)
    x[0] = 0
    return standardise(x)


# ------------------------------------------------------------------------------------------ collaborative vectors


# Below and above the limit at which svds takes over, with more users than items and with fewer.
@pytest.mark.parametrize("shape, density", [((30, 20), 0.2), ((320, 300), 0.05), ((280, 330), 0.05), ((12, 40), 0.3)])
def test_svd_equals_dense_reference(shape, density):
    n_users, n_items = shape
    matrix, users, items = interactions(n_users, n_items, density)
    size = 6
    got = svd_vectors(users, items, n_users, n_items, size)

    degree_u, degree_i = matrix.sum(1, keepdims=True), matrix.sum(0, keepdims=True)
    dense = matrix / np.sqrt(np.maximum(degree_u, 1)) / np.sqrt(np.maximum(degree_i, 1))
    left, values, right = np.linalg.svd(dense)
    for vectors, basis in ((got.users, left[:, :size]), (got.items, right[:size].T)):
        assert vectors.dtype == torch.float32
        np.testing.assert_allclose(vectors.abs().numpy(), np.abs(basis * np.sqrt(values[:size])), atol=1e-5)
        assert vectors[0].abs().sum() == 0
    best = (left[:, :size] * values[:size]) @ right[:size]  # signs of both sides agree
    np.testing.assert_allclose((got.users @ got.items.T).numpy(), best, atol=1e-5)
    peaks = got.items[got.items.abs().argmax(0), torch.arange(size)]
    assert (peaks > 0).all()


def test_svd_counts_a_pair_once_and_ignores_padding():
    _, users, items = interactions(30, 20, 0.2)
    once = svd_vectors(users, items, 30, 20, 5)
    more = svd_vectors(np.r_[users, users[:9], 0, 3], np.r_[items, items[:9], 4, 0], 30, 20, 5)
    assert torch.equal(once.users, more.users) and torch.equal(once.items, more.items)


def test_svd_pads_columns_beyond_the_rank():
    _, users, items = interactions(9, 7, 0.5)
    got = svd_vectors(users, items, 9, 7, 32)
    assert got.users.shape == (9, 32) and got.items.shape == (7, 32)
    assert got.items[:, :3].abs().sum(0).min() > 0 and got.items[:, 6:].abs().sum() == 0


@pytest.mark.parametrize("blocks", [4, 200])  # equal singular values, below and above the limit of the exact path
def test_svd_is_deterministic(blocks):
    matrix = np.kron(np.eye(blocks), np.ones((2, 2)))
    users, items = (index + 1 for index in np.nonzero(matrix))
    state = np.random.get_state()[1].copy()
    runs = [svd_vectors(users, items, 2 * blocks + 1, 2 * blocks + 1, 6, seed=3).items for _ in range(3)]
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])
    assert (np.random.get_state()[1] == state).all()


def test_svd_knows_only_the_pairs_it_is_given():
    matrix, users, items = interactions(30, 20, 0.2)
    u, i = next((u, i) for u in range(1, 30) for i in range(1, 20) if not matrix[u, i])  # planted validation pair
    before = svd_vectors(users, items, 30, 20, 5)
    leaked = svd_vectors(np.r_[users, u], np.r_[items, i], 30, 20, 5)
    after = svd_vectors(users, items, 30, 20, 5)
    assert torch.equal(before.items, after.items) and torch.equal(before.users, after.users)
    assert not torch.allclose(before.items, leaked.items, atol=1e-4)  # so a leak would have shown


def test_what_has_no_interaction_has_no_vector():
    """Exactly none: rounding errors would pass for a vector."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(1, 30, 200), rng.integers(1, 20, 200)
    found = svd_vectors(users[items != 7], items[items != 7], 32, 20, 6)
    assert not found.items[7].any() and not found.users[31].any()
    assert found.items[6].any() and found.users[29].any()


@pytest.mark.parametrize(
    "users, items, message",
    [
        ([1, 2], [1], "one length"),
        ([1, 9], [1, 1], "user numbers"),
        ([1], [-1], "item numbers"),
        ([0], [0], "no training"),
    ],
)
def test_svd_rejects_bad_interactions(users, items, message):
    with pytest.raises(ValueError, match=message):
        svd_vectors(users, items, 3, 3, 2)


def test_standardise_uses_one_scale_and_leaves_unseen_rows():
    x = torch.randn(2000, 3) * torch.tensor([5.0, 1.0, 0.0]) + torch.tensor([3.0, -2.0, 0.0])
    x[0], x[7] = 9.0, 0.0
    y = standardise(x)
    seen = seen_rows(x)
    assert not y[0].any() and not y[7].any() and not seen[0] and not seen[7] and seen.sum() == 1998
    torch.testing.assert_close(y[seen].mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    variance = y[seen].var(0, unbiased=False)
    assert variance[:2].mean() == pytest.approx(1, abs=1e-4)  # the dead column does not count
    assert variance[0] / variance[1] == pytest.approx(25, rel=0.2)  # relative weight of columns is kept
    assert standardise(x, skip_first=False)[0].any()
    assert not standardise(torch.zeros(4, 2)).any()


def test_history_means():
    vectors = torch.tensor([[8.0, 8], [1, 2], [3, 4], [0, 0]])  # row 0 padding, item 3 without a vector
    users, items = [1, 1, 1, 1, 2, 0], [1, 2, 2, 3, 3, 1]
    means = history_means(users, items, vectors, n_users=4)
    torch.testing.assert_close(means, torch.tensor([[0.0, 0], [2, 3], [0, 0], [0, 0]]))


def write_vectors(folder, vectors, tokens):
    np.save(folder / "v.npy", vectors)
    (folder / "v.tokens.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return folder / "v.npy"


def test_load_vectors_aligns_rows(tmp_path):
    path = write_vectors(tmp_path, np.arange(8.0).reshape(4, 2), ["c", "a b", "é\u2028x", "[PAD]"])
    with pytest.warns(UserWarning, match="1 of 4"):
        got = load_vectors(str(path), ["[PAD]", "a b", "zz", "c", "é\u2028x"])
    assert got.missing == 1 and got.vectors.dtype == torch.float32
    assert got.vectors.tolist() == [[0, 0], [2, 3], [0, 0], [0, 1], [4, 5]]


@pytest.mark.parametrize(
    "vectors, tokens, message",
    [
        (np.ones((2, 2)), ["a"], "1 tokens but the array has 2 rows"),
        (np.ones(2), ["a", "b"], "must be .rows, d."),
        (np.array([[1, np.nan], [1, 1]]), ["a", "b"], "row 0"),
        (np.array([[1, 1], [1e300, 1]]), ["a", "b"], "row 1"),
        (np.ones((2, 2)), ["x", "[PAD]"], "no item token in common"),
        (np.ones((2, 2)), ["a", "a"], "twice"),
        (np.array([["a"]]), ["a"], "real numbers"),
        (np.array([[{}]], dtype=object), ["a"], "numpy.save"),  # a pickle is never opened
    ],
)
def test_load_vectors_rejects(tmp_path, vectors, tokens, message):
    path = write_vectors(tmp_path, vectors, tokens)
    with pytest.raises(ValueError, match=message) as caught:
        load_vectors(path, ["[PAD]", "a", "b"])
    assert "\n" not in str(caught.value)


def test_load_vectors_names_the_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="v.npy"):
        load_vectors(tmp_path / "v.npy", ["[PAD]", "a"])
    np.save(tmp_path / "v.npy", np.ones((1, 2)))
    with pytest.raises(FileNotFoundError, match="v.tokens.txt"):
        load_vectors(tmp_path / "v.npy", ["[PAD]", "a"])
    (tmp_path / "v.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="numpy.save"):
        load_vectors(tmp_path / "v.npy", ["[PAD]", "a"])


# --------------------------------------------------------------------------------------------------- sigma-VAE


def test_mask_is_fresh_per_example_and_out_of_place():
    model = SigmaVAE(50, mask_ratio=0.3, dropout=0.0, variant="deterministic").train()
    seen = []
    model.encoders.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    x = torch.rand(400, 50) + 1
    kept = x.clone()
    loss = model.loss(x)
    model.encode(x)
    first, second = (inputs[0] == 0 for inputs in seen)  # [n, d]
    assert torch.equal(x, kept)  # the target of the reconstruction stays whole
    assert first.float().mean() == pytest.approx(0.3, abs=0.02)
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)
    assert first.all(1).sum() == 0 and first.float().mean(0).std() > 0  # elements, not rows or columns
    assert torch.equal(seen[0][0][~first], x[~first])  # not rescaled
    assert loss.reconstruction > 0.5  # against x, whose mean square is about 2.3
    model.eval().encode(x)
    assert torch.equal(seen[-1][0], x)


def test_sigma_noise_is_drawn_per_example_and_call():
    model = SigmaVAE(4, n_tokens=2, token_size=256, sigma=0.2)
    means = torch.randn(3000, 2, 256)
    noise = model.sample(means) - means
    assert not torch.equal(noise, model.sample(means) - means)
    level = noise.flatten(1).std(1)  # |sigma_i|, half normal of scale 0.2
    assert level.square().mean().sqrt() == pytest.approx(0.2, rel=0.05)
    assert level.mean() == pytest.approx(0.2 * math.sqrt(2 / math.pi), rel=0.05)
    assert level.std() == pytest.approx(0.2 * math.sqrt(1 - 2 / math.pi), rel=0.06)
    token_levels = noise.std(2)  # one level for both tokens of an example, independent eps
    assert torch.corrcoef(token_levels.T)[0, 1] > 0.95
    assert torch.corrcoef(noise[level > 0.1].transpose(0, 1).flatten(1)[:, :100000])[0, 1].abs() < 0.03


def test_encode_is_the_mean_and_deterministic_in_eval():
    model, x = SigmaVAE(8).eval(), torch.randn(5, 8)
    out = model(x)
    assert out.tokens.shape == (5, 2, 64) and out.reconstruction.shape == (5, 8) and out.log_variance is None
    assert torch.equal(model.encode(x), model.encode(x))
    assert torch.equal(out.means, model.encode(x)) and torch.equal(out.tokens, out.means)
    torch.testing.assert_close(model.encode(x[2:3]), out.means[2:3])  # a token does not depend on its batch
    model.train()
    out = model(x)
    assert not torch.equal(out.tokens, out.means)
    model(x[:1])  # a batch of one


def test_variants():
    x = torch.randn(6, 8)
    plain = SigmaVAE(8, variant="plain")
    out = plain(x)
    assert out.log_variance.shape == out.means.shape == (6, 2, 64)
    with pytest.raises(ValueError, match="log_variance"):
        plain.sample(out.means)
    many = torch.stack([plain.sample(out.means, out.log_variance) for _ in range(3000)])
    torch.testing.assert_close(many.var(0), out.log_variance.exp(), rtol=0.25, atol=0)
    sure = SigmaVAE(8, variant="deterministic")
    assert torch.equal(sure.sample(out.means), out.means)


def test_plain_penalty_is_the_kl_divergence():
    model = SigmaVAE(8, variant="plain", mask_ratio=0.0, dropout=0.0)
    x = torch.randn(6, 8)
    out = model(x)
    posterior = torch.distributions.Normal(out.means, (0.5 * out.log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(model.loss(x, mean_weight=0.3).mean_penalty, 0.3 * expected)


def test_loss_terms_are_weighted():
    model = SigmaVAE(8, mask_ratio=0.0, dropout=0.0, variant="deterministic")
    x = torch.randn(32, 8)
    out, loss = model(x), model.loss(x, mean_weight=0.3, twins_weight=0.7)
    torch.testing.assert_close(loss.reconstruction, (out.reconstruction - x).square().mean())
    torch.testing.assert_close(loss.mean_penalty, 0.3 * out.means.square().mean() / 2)
    torch.testing.assert_close(loss.twins, 0.7 * twins_redundancy(out.tokens))
    assert sum(loss).dim() == 0 and model.loss(x).twins == 0
    assert SigmaVAE(8, n_tokens=1).loss(x, 0.5, 0.5).twins == 0


def test_twins_follows_the_paper():
    z = torch.randn(50, 3, 5)
    expected = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        first, second = ((z[:, k] - z[:, k].mean(0)) / z[:, k].std(0, unbiased=False) for k in (a, b))
        c = (first.T @ second / 50).numpy()
        off = (c**2).sum() - (np.diag(c) ** 2).sum()
        expected.append((((1 - np.diag(c)) ** 2).sum() + 0.005 * off) / 5)
    assert twins_redundancy(z).item() == pytest.approx(np.mean(expected), rel=1e-4)
    copies = torch.linalg.qr(torch.randn(50, 5) - 0).Q[:, None].expand(-1, 2, -1)
    assert twins_redundancy(copies) < 0.01 < twins_redundancy(torch.randn(50, 2, 5))


def test_decoder_reads_the_mean_of_the_tokens():
    model = SigmaVAE(8, n_tokens=3).eval()
    z = torch.randn(5, 3, 64)
    torch.testing.assert_close(model.decode(z), model.decode(z[:, [2, 0, 1]]))
    torch.testing.assert_close(model.decode(z), model.decode(z.mean(1, keepdim=True).expand(-1, 3, -1)))
    assert not torch.allclose(model.decode(z), model.decode(z * torch.tensor([2.0, 1, 1])[:, None]))


def test_encoders_are_independent_and_all_learn():
    model = SigmaVAE(8, n_tokens=3)
    sum(model.loss(torch.randn(16, 8))).backward()
    for name, parameter in model.encoders.named_parameters():
        assert parameter.shape[0] == 3 and (parameter.grad.flatten(1).norm(dim=1) > 0).all(), name
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    model.zero_grad()
    model.eval().encode(torch.randn(16, 8))[:, 1].square().sum().backward()
    norms = model.encoders[0].weight.grad.flatten(1).norm(dim=1)
    assert norms[1] > 0 and norms[0] == norms[2] == 0


@pytest.mark.parametrize(
    "settings, message",
    [({"variant": "vq"}, "sigma, plain"), ({"mask_ratio": 1.0}, "mask_ratio"), ({"n_tokens": 0}, "at least 1")],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        SigmaVAE(8, **settings)


def test_width_of_the_input_is_checked():
    with pytest.raises(ValueError, match=r"\[n, 8\]"):
        SigmaVAE(8)(torch.randn(3, 9))


# --------------------------------------------------------------------------------------------------- training


def fitted(x, mean_weight=0.0, twins_weight=0.0, seed=0, model_settings=None, **settings):
    torch.manual_seed(11)
    model = SigmaVAE(x.shape[1], token_size=16, hidden_size=64, **(model_settings or {}))
    settings = {"epochs": 40, "batch_size": 64, **settings}
    return model, fit_tokenizer(model, x, mean_weight=mean_weight, twins_weight=twins_weight, seed=seed, **settings)


@pytest.mark.parametrize("variant", ["sigma", "plain", "deterministic"])
def test_round_trip_after_fit(variant):
    x = low_rank()
    model, report = fitted(x, mean_weight=0.001, model_settings={"variant": variant})
    assert not model.training
    assert report.held_out_error < 0.1 and report.train_error < 0.1  # standardised, so the variance is 1
    with torch.no_grad():
        rows = x[1:]
        assert (model.decode(model.encode(rows)) - rows).square().mean() < 0.1
    assert 1 <= report.best_epoch <= report.epochs_run <= 40 and report.seconds > 0


def test_fit_leaves_out_rows_without_a_vector():
    x = low_rank()
    x[5] = 0
    split = split_rows(x, 0.25, seed=3)
    assert len(split.held_out) == round(0.25 * 398)
    assert sorted(torch.cat(split).tolist()) == [row for row in range(400) if row not in (0, 5)]
    assert torch.equal(split.train, split_rows(x, 0.25, seed=3).train)
    assert not torch.equal(split.train, split_rows(x, 0.25, seed=4).train)
    model, report = fitted(x, epochs=3, held_out=0.25, seed=3)
    assert report.held_out_error == pytest.approx(reconstruction_error(model, x[split.held_out]), rel=1e-6)
    assert report.train_error == pytest.approx(reconstruction_error(model, x[split.train]), rel=1e-6)


def test_mean_penalty_shrinks_the_means():
    x = low_rank()
    free, held = (fitted(x, mean_weight=weight, epochs=15)[0] for weight in (0.0, 1.0))
    with torch.no_grad():
        assert held.encode(x[1:]).norm() < 0.7 * free.encode(x[1:]).norm()


def test_twins_make_tokens_agree_and_dimensions_differ():
    x = low_rank(rank=16)
    free, tied = (health_report(fitted(x, twins_weight=weight, epochs=15)[0], x) for weight in (0.0, 1.0))
    assert tied.token_agreement > free.token_agreement + 0.2
    # The off-diagonal term by itself: fewer correlations between different dimensions.
    torch.manual_seed(0)
    z = torch.nn.Parameter((torch.randn(200, 1, 3) @ torch.randn(3, 8)).repeat(1, 2, 1) + 0.1 * torch.randn(200, 2, 8))
    before = off_diagonal_correlation(z)
    optimizer = torch.optim.Adam([z], 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        twins_redundancy(z).backward()
        optimizer.step()
    assert off_diagonal_correlation(z) < 0.5 * before


def off_diagonal_correlation(z):
    scaled = (z.detach() - z.detach().mean(0)) / z.detach().std(0, unbiased=False)
    c = (scaled[:, 0].T @ scaled[:, 1] / len(z)).abs()
    return c[~torch.eye(len(c), dtype=torch.bool)].mean()


def test_fit_is_deterministic_and_leaves_the_global_generator_alone():
    x = low_rank()
    states = []
    models, reports = [], []
    for noise in (1, 2):  # whatever the global state is
        torch.manual_seed(11)
        model = SigmaVAE(16, token_size=16, hidden_size=32)
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        reports.append(fit_tokenizer(model, x, mean_weight=0.1, twins_weight=0.1, epochs=3, seed=5))
        states.append(torch.equal(before, torch.get_rng_state()))
        models.append(model)
    assert all(states)
    assert reports[0][:-1] == reports[1][:-1]
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
    assert fitted(x, epochs=3, seed=6)[1].train_error != fitted(x, epochs=3, seed=7)[1].train_error


def test_early_stopping_restores_the_best_weights(monkeypatch):
    x = low_rank()
    errors = [0.9, 0.5, 0.7, 0.4, 0.6, 0.6, 0.6, 0.6]  # held-out error by epoch
    weights, calls = [], []
    measure = fit_module.reconstruction_error

    def scripted(model, rows):
        if len(calls) == len(weights) and len(rows) == 40:  # the held-out rows
            weights.append(model.decoder[0].weight.detach().clone())
            return errors[len(weights) - 1]
        return measure(model, rows)

    monkeypatch.setattr(fit_module, "reconstruction_error", scripted)
    model, report = fitted(x, epochs=8, patience=3, on_epoch=lambda *call: calls.append(call))
    assert (report.epochs_run, report.best_epoch, report.held_out_error) == (7, 4, 0.4)
    assert torch.equal(model.decoder[0].weight, weights[3]) and not torch.equal(weights[3], weights[6])
    assert [call[:2] for call in calls] == [(epoch, 8) for epoch in range(1, 8)]
    assert [call[3] for call in calls] == errors[:7] and all(call[2] > 0 for call in calls)


def test_fit_names_epoch_and_term_of_a_nan():
    x = low_rank()
    x[split_rows(x, 0.1, 0).train[0], 3] = math.nan
    with pytest.raises(FloatingPointError, match="epoch 1: reconstruction is nan"):
        fitted(x)
    x = low_rank()
    x[split_rows(x, 0.1, 0).held_out[0], 3] = math.nan
    with pytest.raises(FloatingPointError, match="epoch 1: held-out error"):
        fitted(x)


@pytest.mark.parametrize("rows, epochs", [(40, 200), (5000, 100), (60000, 20)])
def test_default_epochs_follow_the_size_of_the_table(monkeypatch, rows, epochs):
    totals = []

    def no_training(model, optimizer, *_):
        optimizer.step()
        return fit_module.TokenizerLoss(0.0, 0.0, 0.0)

    monkeypatch.setattr(fit_module, "_train_epoch", no_training)
    x = torch.ones(rows, 2)
    fitted(x, epochs=None, batch_size=300, patience=1, on_epoch=lambda _, total, *rest: totals.append(total))
    assert totals[-1] == epochs


def test_fit_rejects_what_it_cannot_train_on():
    with pytest.raises(ValueError, match="two rows"):
        fitted(torch.zeros(5, 4))
    with pytest.raises(ValueError, match="held_out"):
        fitted(low_rank(), held_out=0.0)
    fitted(low_rank(n=3), epochs=2, held_out=0.9, twins_weight=1.0)  # one row to train on


# ---------------------------------------------------------------------------------------------- health report


class Stub(torch.nn.Module):
    """A tokenizer whose means and reconstruction are given functions of x."""

    def __init__(self, encode, decode, n_tokens, token_size):
        super().__init__()
        self.encode, self.decode, self.n_tokens, self.token_size = encode, decode, n_tokens, token_size
        self.device = torch.nn.Parameter(torch.zeros(()))


def copies(x):
    return torch.stack([x, x], dim=1)


def test_health_of_identical_tokens():
    x = torch.randn(300, 6)
    x[9] = 0
    health = health_report(Stub(copies, lambda z: z.mean(1), 2, 6), x, held_out_rows=torch.tensor([4, 8]))
    assert health.rows == 298 and health.dimensions == 12 and health.active_dimensions == 12
    assert health.unexplained_train == health.unexplained_held_out == 0
    assert health.token_agreement == pytest.approx(1, abs=1e-6)
    assert health.token_correlation == pytest.approx((1 + 5 * 0.05) / 6, abs=0.05)
    assert health.neighbour_overlap == 1 and health.queries == 298 and health.neighbours == 10
    assert health.token_scale == pytest.approx(1, abs=0.1)
    assert json.loads(json.dumps(health._asdict())) == health._asdict()
    assert all(type(value) in (int, float) for value in health._asdict().values())


def test_health_counts_dead_dimensions_and_unexplained_variance():
    x = torch.randn(500, 4)
    scale = torch.tensor([1.0, 0.0, 0.05, 0.2])  # variances 1, 0, .0025, .04: two are active
    target = x.mean(0)

    def encode(rows):
        return torch.stack([rows * scale, rows.flip(1)], dim=1)

    def decode(tokens):  # the mean of all rows for half of the columns
        return torch.cat([target[:2].expand(len(tokens), -1), tokens[:, 1].flip(1)[:, 2:]], dim=1)

    health = health_report(Stub(encode, decode, 2, 4), x, held_out_rows=torch.arange(100))
    assert health.active_dimensions == 6 and health.dimensions == 8
    assert health.unexplained_train == pytest.approx(0.5, abs=0.06)
    assert health.unexplained_held_out == pytest.approx(0.5, abs=0.12)
    assert health.unexplained_train != health.unexplained_held_out
    assert health.token_agreement < 0.2  # the dead dimension is left out, the others are independent
    half_dead = health_report(Stub(lambda rows: copies(rows * scale), lambda z: z.mean(1), 2, 4), x)
    assert half_dead.token_agreement == pytest.approx(1, abs=1e-6)
    constant = health_report(Stub(lambda r: torch.ones(len(r), 2, 3), lambda z: target.expand(len(z), -1), 2, 3), x)
    assert constant.active_dimensions == 0 and constant.token_agreement == 0
    assert constant.unexplained_train == pytest.approx(1, abs=0.01) and constant.unexplained_held_out is None


def test_health_neighbours_against_a_plain_computation(monkeypatch):
    monkeypatch.setattr("recbole_contrec.tokenizer.report.CHUNK", 64)  # several chunks
    x, mix = torch.randn(301, 8), torch.randn(8, 3)
    stub = Stub(lambda rows: (rows @ mix)[:, None], lambda z: torch.zeros(len(z), 8), 1, 3)
    health = health_report(stub, x, neighbours=7)

    def nearest(vectors):
        vectors = torch.nn.functional.normalize(vectors, dim=1)
        return (vectors @ vectors.T).fill_diagonal_(-2).topk(7).indices.tolist()

    rows = x[1:]
    pairs = zip(nearest(rows), nearest(rows @ mix), strict=True)
    assert health.neighbour_overlap == pytest.approx(np.mean([len(set(a) & set(b)) / 7 for a, b in pairs]), abs=1e-4)
    assert 0.03 < health.neighbour_overlap < 0.9
    few = health_report(stub, x, sample=50)
    assert few.queries == 50 and few == health_report(stub, x, sample=50)
    assert health_report(stub, x[:5]).neighbours == 3


def test_health_leaves_mode_and_generator_alone():
    x = low_rank()
    model = SigmaVAE(16).train()
    before = torch.get_rng_state()
    first, second = health_report(model, x), health_report(model, x)
    assert first == second and model.training and torch.equal(before, torch.get_rng_state())
