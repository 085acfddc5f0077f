"""The tokenizer sub-package: vectors, sigma-VAE, training and health report."""

import math

import numpy as np
import pytest
import torch

from recbole_contrec.tokenizer import (
    SigmaVAE,
    fit_tokenizer,
    health_report,
    reconstruction_error,
    split_rows,
    standardise,
    twins_redundancy,
)
from recbole_contrec.tokenizer import fit as fit_module


def low_rank(n=400, d=16, rank=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, rank, generator=g) @ torch.randn(rank, d, generator=g)
    x[0] = 0
    return standardise(x)


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
