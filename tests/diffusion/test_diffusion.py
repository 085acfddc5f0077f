"""The diffusion head: identities of the schedule, gradients where they belong, and that it learns two modes."""

import math

import pytest
import torch
import torch.nn.functional as F

from recbole_contrec.diffusion import (
    DISPERSIVE_KINDS,
    PREDICTIONS,
    SCHEDULES,
    Denoised,
    Denoiser,
    DiffusionHead,
    NoiseSchedule,
    dispersive_loss,
)
from recbole_contrec.diffusion import head as head_module
from recbole_contrec.diffusion.denoiser import Prepared


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def draws(levels, n=6, d=5):
    """Clean vectors, noise and levels, the two ends among them, in float64."""
    x0, eps = torch.randn(2, n, d, dtype=torch.float64)
    t = torch.randint(levels, (n,))
    t[0], t[-1] = 0, levels - 1
    return x0, eps, t


def make_head(**settings):
    return DiffusionHead(**{"d": 5, "condition_size": 7, "width": 16, "levels": 50, **settings})


# --- schedule ---


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("levels", [2, 10, 200, 1000])
def test_signal_fades_to_noise(kind, levels):
    schedule = NoiseSchedule(kind, levels)
    abar = schedule.alpha_bar
    assert abar.shape == (levels,) and abar.dtype == torch.float32
    assert (abar.diff() <= 0).all() and (abar.diff()[abar[1:] > 1e-4] < 0).all()
    assert abar[0] < 1 and abar[-1] < 0.01 and abar.min() >= 0.99e-4
    if levels >= 10:
        assert abar[0] > 0.8
    t = torch.arange(levels)
    assert schedule.signal(t).shape == (levels, 1)
    torch.testing.assert_close(schedule.signal(t) ** 2 + schedule.noise(t) ** 2, torch.ones(levels, 1))
    assert not schedule.state_dict()


def test_schedules_match_published_values():
    linear = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    torch.testing.assert_close(
        NoiseSchedule("linear", 1000).alpha_bar[:900], (1 - linear).cumprod(0)[:900].float(), rtol=1e-5, atol=0
    )
    # DreamRec, T = 200: beta from 6.2e-4 to 4.9e-2, abar_T = 0.0063
    abar = NoiseSchedule("exp", 200).alpha_bar
    assert 1 - abar[0].item() == pytest.approx(6.2e-4, rel=0.01)
    assert 1 - (abar[-1] / abar[-2]).item() == pytest.approx(4.9e-2, rel=0.01)
    assert abar[-1].item() == pytest.approx(0.0063, rel=0.01)
    # Nichol & Dhariwal: f(t/T) / f(0) at the middle of the way
    middle = math.cos(0.508 / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert NoiseSchedule("cosine", 200).alpha_bar[99].item() == pytest.approx(middle, rel=1e-6)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_target_round_trip(kind, prediction):
    schedule = NoiseSchedule(kind, 200).double()
    x0, eps, t = draws(200)
    x_t = schedule.add_noise(x0, eps, t)
    abar = schedule.alpha_bar[t, None]
    torch.testing.assert_close(x_t, abar.sqrt() * x0 + (1 - abar).sqrt() * eps)
    target = schedule.target(x0, eps, t, prediction)
    expected = {"x0": x0, "noise": eps, "v": abar.sqrt() * eps - (1 - abar).sqrt() * x0}[prediction]
    torch.testing.assert_close(target, expected)
    torch.testing.assert_close(schedule.to_x0(x_t, target, t, prediction), x0)
    torch.testing.assert_close(schedule.to_noise(x_t, x0, t), eps)


def test_steps():
    schedule = NoiseSchedule("cosine", 200)
    assert schedule.steps(1) == [199]
    assert schedule.steps(2) == [199, 99]
    assert schedule.steps(5) == [199, 159, 119, 79, 39]
    assert schedule.steps(200) == list(range(199, -1, -1))
    for count in range(1, 201):
        levels = schedule.steps(count)
        assert len(set(levels)) == count and levels == sorted(levels, reverse=True)
        assert levels[0] == 199 and levels[-1] >= 0


def test_ddim_step_closed_form():
    schedule = NoiseSchedule("cosine", 200).double()
    x0, eps, _ = draws(200)
    guess = x0 + 0.3  # not the truth: the step must use the estimate, in both of its terms
    a, b = schedule.alpha_bar[150], schedule.alpha_bar[60]
    x_t = a.sqrt() * x0 + (1 - a).sqrt() * eps
    direction = (x_t - a.sqrt() * guess) / (1 - a).sqrt()
    expected = b.sqrt() * guess + (1 - b).sqrt() * direction
    torch.testing.assert_close(schedule.step(x_t, guess, 150, 60), expected)
    t, t_next = torch.full((len(x0),), 150), torch.full((len(x0),), 60)
    torch.testing.assert_close(schedule.step(x_t, guess, t, t_next), expected)
    assert schedule.step(x_t, guess, 150, None) is guess
    assert schedule.step(x_t, guess, 150, -1) is guess


@pytest.mark.parametrize("t, t_next", [(150, 149), (150, 60), (199, 100)])
def test_eta_one_is_the_ddpm_posterior(t, t_next):
    """q(x_s | x_t, x0) of Ho et al., eq. 6 and 7, with beta the noise added between the two levels."""
    schedule = NoiseSchedule("cosine", 200).double()
    n = 200_000
    a, b = schedule.alpha_bar[t], schedule.alpha_bar[t_next]
    beta = 1 - a / b
    x0, x_t = torch.full((n, 1), 0.7, dtype=torch.float64), torch.full((n, 1), -1.3, dtype=torch.float64)
    mean = (b.sqrt() * beta * x0[0] + (1 - beta).sqrt() * (1 - b) * x_t[0]) / (1 - a)
    variance = (1 - b) / (1 - a) * beta
    drawn = schedule.step(x_t, x0, t, t_next, eta=1.0)
    assert drawn.mean().item() == pytest.approx(mean.item(), abs=4 * (variance.item() / n) ** 0.5)
    assert drawn.var().item() == pytest.approx(variance.item(), rel=0.02)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("count", [1, 2, 7, 200])
def test_ddim_with_the_truth_returns_it(kind, count):
    schedule = NoiseSchedule(kind, 200).double()
    x0, eps, _ = draws(200)
    levels = schedule.steps(count)
    x = schedule.add_noise(x0, eps, levels[0])
    for t, t_next in zip(levels, [*levels[1:], -1]):
        torch.testing.assert_close(x, schedule.add_noise(x0, eps, t))  # on the line from noise to truth
        x = schedule.step(x, x0, t, t_next)
    torch.testing.assert_close(x, x0)


# --- denoiser ---


def test_denoiser_starts_as_a_projection_of_the_condition():
    net = Denoiser(5, 7, 16, levels=50).double()
    condition = torch.randn(3, 7, dtype=torch.float64)
    no_signal = torch.zeros(3, 1, dtype=torch.float64)
    x_t, t = torch.randn(3, 5, dtype=torch.float64), torch.tensor([0, 20, 49])
    denoised = net(x_t, t, no_signal, condition)
    torch.testing.assert_close(denoised.hidden, net.condition(condition)[:, :16])
    torch.testing.assert_close(denoised.output, net.output(denoised.hidden))
    assert denoised.output.std() > 0.05


def test_denoiser_scales_its_input_by_the_signal():
    net = Denoiser(5, 7, 16, levels=50).double()
    torch.nn.init.normal_(net.modulation.weight, std=0.1)
    x_t, condition, t = torch.randn(3, 5).double(), torch.randn(3, 7).double(), torch.tensor([0, 20, 49])
    half = torch.full((3, 1), 0.5, dtype=torch.float64)
    torch.testing.assert_close(net(x_t, t, half, condition).output, net(x_t / 2, t, 2 * half, condition).output)
    assert not torch.allclose(net(x_t, t, half, condition).output, net(-x_t, t, half, condition).output)
    assert not torch.allclose(net(x_t, t, half, condition).output, net(x_t, t.flip(0), half, condition).output)


def test_denoiser_broadcasts_as_repeated_rows():
    net = Denoiser(5, 7, 16, levels=9).double()
    torch.nn.init.normal_(net.modulation.weight, std=0.1)
    x_t, condition = torch.randn(4, 3, 5).double(), torch.randn(3, 7).double()
    t, signal = torch.randint(9, (4, 3)), torch.rand(4, 3, 1).double()
    wide = net(x_t, t, signal, condition).output  # [4, 3, 5], looked-up levels
    for i in range(4):
        torch.testing.assert_close(wide[i], net(x_t[i], t[i], signal[i], condition).output)
    one_level = net(x_t[0], torch.tensor([6]), signal[0, :1], condition).output
    repeated = net(x_t[0], torch.full((3,), 6), signal[0, :1].expand(3, 1), condition).output
    torch.testing.assert_close(one_level, repeated)


# --- dispersive loss ---


def naive_dispersive(z, kind, temperature):
    n, w = z.shape
    total = 0.0
    for i in range(n):
        for j in range(n):
            squared = ((z[i] - z[j]) ** 2).sum().item() / w
            cosine = (z[i] @ z[j] / (z[i].norm() * z[j].norm())).item()
            total += {
                "infonce_l2": math.exp(-squared / temperature),
                "infonce_cosine": math.exp(cosine / temperature),
                "hinge": max(0.0, 1 - squared) ** 2,
            }[kind]
    mean = total / n**2
    return mean if kind == "hinge" else math.log(mean)


@pytest.mark.parametrize("kind", ["infonce_l2", "infonce_cosine", "hinge"])
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_dispersive_loss_against_a_double_loop(kind, temperature):
    z = 0.6 * torch.randn(9, 4, dtype=torch.float64) + 3
    expected = naive_dispersive(z, kind, temperature)
    assert dispersive_loss(z, kind, temperature).item() == pytest.approx(expected, rel=1e-9)


def test_covariance_kind_is_the_squared_correlation():
    z = torch.randn(40, 4, dtype=torch.float64) @ torch.randn(4, 4, dtype=torch.float64) + 2
    correlation = torch.corrcoef(z.T)
    expected = (correlation.square().sum() - 4) / 4
    assert dispersive_loss(z, "covariance").item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("kind", DISPERSIVE_KINDS)
def test_descending_the_dispersive_loss_spreads(kind):
    z = (0.1 * torch.randn(64, 1) @ torch.ones(1, 6) + 0.1 * torch.randn(64, 6) + 0.2).requires_grad_()

    def spread():
        if kind == "infonce_cosine":
            return torch.pdist(F.normalize(z, dim=-1)).mean().item()
        if kind == "covariance":  # spreads over more directions, at whatever distance
            values = torch.linalg.svdvals(z - z.mean(0))
            return (values.min() / values.max()).item()
        return torch.pdist(z).mean().item()

    before, first = spread(), dispersive_loss(z, kind).item()
    for _ in range(20):
        (gradient,) = torch.autograd.grad(dispersive_loss(z, kind), z)
        with torch.no_grad():
            z -= 0.1 * gradient / gradient.norm()
    assert spread() > 1.05 * before and dispersive_loss(z, kind).item() < first


def test_dispersive_loss_uses_a_random_subset_of_many_rows():
    z = torch.randn(300, 8, dtype=torch.float64)
    chosen = torch.randperm(300, generator=torch.Generator().manual_seed(5))[:100]
    expected = dispersive_loss(z[chosen], "infonce_l2")
    torch.testing.assert_close(
        dispersive_loss(z, "infonce_l2", limit=100, generator=torch.Generator().manual_seed(5)), expected
    )
    assert dispersive_loss(z, "infonce_l2", limit=100).item() != expected.item()
    whole = dispersive_loss(z, "infonce_l2", limit=999)
    torch.testing.assert_close(dispersive_loss(z, "infonce_l2", limit=300), whole)


@pytest.mark.parametrize("kind", DISPERSIVE_KINDS)
def test_dispersive_loss_is_finite_at_the_extremes(kind):
    for z in [torch.zeros(4, 3), torch.full((4, 3), 2.0), 1e4 * torch.randn(4, 3), torch.ones(1, 3)]:
        z = z.requires_grad_()
        loss = dispersive_loss(z, kind)
        (gradient,) = torch.autograd.grad(loss, z)
        assert loss.isfinite() and gradient.isfinite().all()
        assert len(z) > 1 or loss.item() == 0


# --- head ---


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_regression_is_the_error_in_the_space_of_the_prediction(prediction):
    settings = dict(dispersive="infonce_l2", dispersive_temperature=2.0)
    head = make_head(prediction=prediction, noise_draws=3, **settings).double().eval()
    condition, target = torch.randn(4, 7).double(), torch.randn(4, 5).double()
    torch.manual_seed(3)
    loss = head.loss(condition, target)
    torch.manual_seed(3)
    t = torch.randint(50, (3, 4))
    eps = torch.randn(3, 4, 5, dtype=torch.float64)
    s, n = head.schedule.signal(t), head.schedule.noise(t)
    x_t = s * target + n * eps
    raw, hidden = head.denoiser(x_t, t, s, condition)
    error = {
        "x0": (s * x_t - n * raw - target) / n,
        "noise": n * x_t + s * raw - eps,
        "v": raw - (s * eps - n * target),
    }[prediction]
    torch.testing.assert_close(loss.regression, error.square().mean())
    if prediction == "x0":
        bare = make_head(noisy_skip=False, noise_draws=3).double().eval()
        bare.denoiser.load_state_dict(head.denoiser.state_dict())
        torch.manual_seed(3)
        torch.testing.assert_close(bare.loss(condition, target).regression, (raw - target).square().mean())
    # one draw of each condition: its other copies are not to be pushed away from it
    torch.testing.assert_close(loss.dispersive, dispersive_loss(hidden[0], "infonce_l2", 2.0))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("dispersive", [None, "infonce_l2"])
def test_loss_trains_condition_and_head_but_not_the_target(prediction, dispersive):
    head = make_head(prediction=prediction, dispersive=dispersive, noise_draws=4, condition_dropout=0.5)
    condition, target = torch.randn(8, 7, requires_grad=True), torch.randn(8, 5, requires_grad=True)
    loss = head.loss(condition, target)
    assert loss.regression.shape == loss.dispersive.shape == ()
    assert (loss.dispersive.item() == 0) == (dispersive is None)
    (loss.regression + loss.dispersive).backward()
    assert target.grad is None
    assert condition.grad.abs().sum() > 0 and head.none.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_condition_dropout_replaces_conditions_in_training_only():
    head = make_head(condition_dropout=0.5)
    condition = torch.randn(400, 7, requires_grad=True)

    def untouched():
        (gradient,) = torch.autograd.grad(head.loss(condition, torch.randn(400, 5)).regression, condition)
        return (gradient.abs().sum(1) == 0).float().mean().item()

    assert 0.4 < untouched() < 0.6
    head.eval()
    assert untouched() == 0
    assert make_head(condition_dropout=0.0).none is None


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_estimate_has_gradient_from_the_first_step(prediction):
    head = make_head(prediction=prediction, condition_dropout=0.9)
    condition = torch.randn(6, 7, requires_grad=True)
    estimate = head.estimate(condition)
    assert estimate.shape == (6, 5) and estimate.abs().max() < 10
    (gradient,) = torch.autograd.grad(estimate.square().sum(), condition)
    assert (gradient.abs().sum(1) > 1e-3).all()  # of every row: no condition dropout here
    assert not torch.equal(head.estimate(condition), estimate)
    head.eval()
    assert torch.equal(head.estimate(condition), head.estimate(condition))
    assert torch.equal(head.estimate(condition), head.sample(condition, 1, 1)[0])


def test_plain_regression_estimates_without_noise_in_training_too():
    head, condition = make_head(objective="regression", dropout=0.0), torch.randn(6, 7)
    assert head.training and torch.equal(head.estimate(condition), head.estimate(condition))


def test_sampling_is_the_chain_of_steps():
    head = make_head(prediction="v").double().eval()
    condition = torch.randn(3, 7, dtype=torch.float64)
    for eta in (0.0, 1.0):
        drawn = head.sample(condition, 4, 2, eta=eta, generator=torch.Generator().manual_seed(1))
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
        schedule, levels = head.schedule, head.schedule.steps(4)
        for t, t_next in zip(levels, [*levels[1:], -1]):
            output = head.denoiser(x, torch.tensor([t]), schedule.signal(t), condition).output
            x = schedule.step(x, schedule.to_x0(x, output, t, "v"), t, t_next, eta, generator)
        torch.testing.assert_close(drawn, x)
    assert not drawn.requires_grad and drawn.shape == (2, 3, 5)


def test_guidance():
    head = make_head(guidance=2.0, condition_dropout=0.2).double().eval()
    torch.nn.init.normal_(head.none)
    condition = torch.randn(3, 7, dtype=torch.float64)
    given = head.sample(condition, 1, 1, guidance=0.0)
    none = head.sample(head.none.detach().expand(3, 7), 1, 1, guidance=0.0)
    assert not torch.allclose(given, none)
    torch.testing.assert_close(head.sample(condition, 1, 1), 3 * given - 2 * none)
    torch.testing.assert_close(head.sample(condition, 1, 1, guidance=0.5), 1.5 * given - 0.5 * none)

    def several(guidance):
        return head.sample(condition, 5, 4, guidance=guidance, generator=torch.Generator().manual_seed(0))

    plain = make_head(condition_dropout=0.2).double().eval()
    plain.load_state_dict(head.state_dict())
    expected = plain.sample(condition, 5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(several(0.0), expected)
    torch.testing.assert_close(several(1e-12), expected)  # the batched branch agrees
    assert not torch.allclose(several(2.0), expected)


def test_samples_are_independent_and_follow_the_generator():
    class Echo(torch.nn.Module):
        """Answers with its input: samples are then as independent as their noise."""

        prepare = staticmethod(lambda condition: Prepared(condition, condition))

        def denoise(self, x_t, t, signal, condition):
            return Denoised(x_t, x_t)

    head = make_head().eval()
    head.denoiser = Echo()
    drawn = head.sample(torch.zeros(500, 7), steps=3, samples=4)
    correlation = torch.corrcoef(drawn.flatten(1))
    assert (correlation - torch.eye(4)).abs().max() < 0.1

    head = make_head().eval()
    condition = torch.randn(6, 7)

    def sample(seed, **kwargs):
        return head.sample(condition, generator=torch.Generator().manual_seed(seed), **kwargs)

    for eta in (0.0, 1.0):
        settings = dict(steps=5, samples=3, eta=eta)
        assert torch.equal(sample(1, **settings), sample(1, **settings))
        assert not torch.equal(sample(1, **settings), sample(2, **settings))
    assert torch.equal(sample(1, steps=1, samples=1), sample(2, steps=1, samples=1))
    assert not torch.equal(sample(1, steps=1, samples=2), sample(2, steps=1, samples=2))
    assert head.sample(condition[:0], 5, 3).shape == (3, 0, 5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_autocast_keeps_the_noise_algebra_in_full_precision(prediction):
    head = make_head(prediction=prediction, dispersive="infonce_l2", guidance=1.0)
    condition, target = torch.randn(6, 7), torch.randn(6, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head.loss(condition.bfloat16(), target)
        drawn = head.sample(condition.bfloat16(), 5, 2)
    assert loss.regression.dtype == drawn.dtype == torch.float32
    assert loss.regression.isfinite() and loss.dispersive.isfinite() and drawn.isfinite().all()
    loss.regression.backward()


def test_chunks_of_conditions_stay_in_order(monkeypatch):
    head = make_head().double().eval()
    condition = torch.randn(7, 7, dtype=torch.float64)
    whole = head.sample(condition, 1, 1)
    monkeypatch.setattr(head_module, "MAX_ROWS", 2)
    torch.testing.assert_close(head.sample(condition, 1, 1), whole)
    assert head.sample(condition, 3, 5).shape == (5, 7, 5)


class Perfect(torch.nn.Module):
    """The best answers in v space where the truth is a Gaussian around the condition."""

    def __init__(self, schedule, std):
        super().__init__()
        self.schedule, self.std = schedule, std

    def prepare(self, condition):
        return Prepared(condition, condition)

    def denoise(self, x_t, t, signal, condition):
        condition, noise = condition.direct, self.schedule.noise(t)
        gain = signal * self.std**2 / (signal**2 * self.std**2 + noise**2)
        x0 = condition + gain * (x_t - signal * condition)
        return Denoised((signal * x_t - x0) / noise, x_t)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("levels, steps", [(200, 200), (200, 20), (50, 50), (1000, 100), (20, 2)])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_spread_is_that_of_a_perfect_denoiser(kind, levels, steps, eta):
    head = make_head(condition_size=5, schedule=kind, levels=levels, prediction="v").eval()
    condition = torch.linspace(-1, 1, 5).expand(1, 5)
    for std in (0.1, 1.0):
        head.denoiser = Perfect(head.schedule, std)
        drawn = head.sample(condition, steps, 6000, eta=eta)[:, 0]
        assert drawn.std(0).mean().item() == pytest.approx(head.schedule.spread(std, steps, eta), rel=0.02)
        # exp ends at a signal of 8 %, so that pure noise is a little beside the truth
        torch.testing.assert_close(drawn.mean(0), condition[0], atol=0.1 if std == 1 else 0.01, rtol=0)
    if levels == steps == 200:
        assert head.schedule.spread(0.1, steps, eta) > 0.085 and head.schedule.spread(1.0, steps, eta) > 0.95


@pytest.mark.parametrize("kind, prediction", [("exp", "x0"), ("cosine", "x0"), ("linear", "v"), ("exp", "noise")])
def test_draws_of_a_trained_head_spread_as_the_truth(kind, prediction):
    weight = torch.tensor([[0.6, -0.4], [0.5, 0.7]])
    head = DiffusionHead(
        d=2, condition_size=2, width=32, schedule=kind, prediction=prediction, noise_draws=4, condition_dropout=0.0
    )
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 250)
    for _ in range(250):
        condition = torch.randn(64, 2)
        loss = head.loss(condition, condition @ weight + 0.1 * torch.randn(64, 2)).regression
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    head.eval()
    condition = torch.randn(20, 2)
    for eta in (0.0, 1.0):
        drawn = head.sample(condition, 200, 50, eta=eta)
        assert drawn.std(0).mean().item() == pytest.approx(0.1, rel=0.2)
        assert (drawn.mean(0) - condition @ weight).abs().mean() < 0.06


def test_conditions_of_one_path_share_their_draws_whatever_stands_beside_them():
    head, condition = make_head().eval(), torch.randn(1, 7).expand(5, 7)

    def drawn(paths):
        rows = torch.tensor(paths)
        generator = torch.Generator().manual_seed(3)
        return head.sample(condition[: len(rows)], 5, 2, eta=1.0, generator=generator, common_noise=True, paths=rows)

    first = drawn([1, 2, 1 + head_module.PATHS, 3, 2])
    torch.testing.assert_close(first[:, 0], first[:, 2])
    torch.testing.assert_close(first[:, 1], first[:, 4])
    assert (first[:, 0] - first[:, 1]).abs().mean() > 0.05 < (first[:, 3] - first[:, 1]).abs().mean()
    torch.testing.assert_close(drawn([2])[:, 0], first[:, 1], atol=1e-5, rtol=1e-5)


def test_draws_of_the_recipe_spread_as_the_truth():
    """With the settings of ContRec-paper: dispersive loss, dropped conditions, all levels visited with fresh noise."""
    from recbole_contrec.catalogue.places import package_properties
    from recbole_contrec.settings.registry import find_model

    paper = find_model("ContRec-paper", [package_properties()]).values
    weight = torch.randn(4, 4) / 2
    head = DiffusionHead(
        d=4,
        condition_size=4,
        width=paper["denoiser_width"],
        depth=paper["denoiser_depth"],
        schedule=paper["noise_schedule"],
        levels=paper["noise_levels"],
        prediction=paper["prediction"],
        condition_dropout=paper["condition_dropout"],
        dispersive=paper["dispersive_loss"],
        dispersive_temperature=paper["dispersive_temperature"],
    )
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for _ in range(400):
        condition = torch.randn(256, 4)
        loss = head.loss(condition, condition @ weight + 0.5 * torch.randn(256, 4))
        optimizer.zero_grad()
        (paper["regression_weight"] * loss.regression + paper["dispersive_weight"] * loss.dispersive).backward()
        optimizer.step()
        decay.step()
    condition = torch.randn(50, 4)
    drawn = head.eval().sample(condition, paper["sampling_steps"], 50, eta=paper["ddim_eta"])
    assert drawn.std(0).mean().item() == pytest.approx(0.5, rel=0.2)
    assert (drawn.mean(0) - condition @ weight).abs().mean() < 0.15


def test_a_head_computes_as_it_was_trained():
    old, new = make_head(noisy_skip=False), make_head()
    assert (old.space, new.space) == ("x0", "v")
    for state, space in ((old.state_dict(), "x0"), (new.state_dict(), "v")):
        other = make_head(noisy_skip=space == "v")
        other.noisy_skip = space == "x0"
        other.load_state_dict(state)
        assert other.space == space


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_learns_two_modes_for_each_condition(prediction):
    """Condition k has the two modes centre[k] +- offset[k]; one step can only answer with the centre."""
    centre = torch.tensor([[1.0, 0.0], [-1.0, 0.5]])
    offset = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    code = 2 * torch.eye(2)
    settings = dict(prediction=prediction, noise_draws=4, condition_dropout=0.0)
    head = DiffusionHead(d=2, condition_size=2, width=32, levels=100, **settings)
    updates = 600 if prediction == "x0" else 400  # x0 is slower to tell modes apart
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        k, sign = torch.randint(2, (2, 64))
        loss = head.loss(code[k], centre[k] + (2 * sign[:, None] - 1) * offset[k]).regression
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    head.eval()
    # in noise space the regression hardly weighs the level that one step uses
    atol = 0.6 if prediction == "noise" else 0.2
    torch.testing.assert_close(head.sample(code, 1, 1)[0], centre, atol=atol, rtol=0)

    away = head.sample(code, steps=20, samples=300) - centre  # [300, condition, 2]
    side = (away * offset).sum(-1)  # -1 and 1 are the modes
    assert (away - side[..., None] * offset).abs().mean() < 0.1
    near_a_mode = ((side.abs() - 1).abs() < 0.5).float().mean(0)  # of a Gaussian: 0.48
    assert (near_a_mode > 0.7).all(), near_a_mode
    share = (side > 0).float().mean(0)
    assert ((share > 0.3) & (share < 0.7)).all(), share


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(schedule="sigmoid"), "schedule must be one of linear, cosine, exp, not 'sigmoid'"),
        (dict(levels=1), "levels must be an integer of at least 2, not 1"),
        (dict(prediction="score"), "prediction must be one of x0, noise, v, not 'score'"),
        (dict(prediction="v", noisy_skip=False), "noisy_skip can be left out of prediction x0 alone, not of v"),
        (dict(dispersive="l2"), "dispersive must be None or one of infonce_l2, infonce_cosine, hinge, covariance"),
        (dict(dispersive_temperature=0), "dispersive_temperature must be positive"),
        (dict(depth=0), "depth must be an integer of at least 1, not 0"),
        (dict(noise_draws=0), "noise_draws must be an integer of at least 1"),
        (dict(dropout=1.0), r"dropout must lie in \[0, 1\), not 1.0"),
        (dict(condition_dropout=-0.1), r"condition_dropout must lie in \[0, 1\)"),
        (dict(guidance=-1.0), "guidance must be 0 \\(off\\) or positive"),
        (dict(guidance=1.0, condition_dropout=0.0), "guidance needs a head trained with condition_dropout > 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        make_head(**settings)


def test_bad_calls():
    head = make_head(condition_dropout=0.0)
    condition = torch.randn(3, 7)
    for steps in (0, 51, 2.0):
        with pytest.raises(ValueError, match="steps must be an integer from 1 to 50"):
            head.sample(condition, steps, 1)
    with pytest.raises(ValueError, match="samples must be an integer of at least 1, not 0"):
        head.sample(condition, 1, 0)
    with pytest.raises(ValueError, match="guidance needs a head trained"):
        head.sample(condition, 1, 1, guidance=1.0)
    with pytest.raises(ValueError, match="eta must lie between 0"):
        head.sample(condition, 2, 1, eta=1.5)
    with pytest.raises(ValueError, match=r"condition must be \[n, 7\], not \[3, 6\]"):
        head.estimate(condition[:, :6])
    with pytest.raises(ValueError, match=r"target must be \[3, 5\], not \[3, 4\]"):
        head.loss(condition, torch.randn(3, 4))
    with pytest.raises(ValueError, match="the loss needs at least one row"):
        head.loss(condition[:0], torch.randn(0, 5))
    with pytest.raises(ValueError, match="dispersive must be one of infonce_l2.*, not 'l2'"):
        dispersive_loss(condition, "l2")
    with pytest.raises(ValueError, match="prediction must be one of"):
        head.schedule.to_x0(condition, condition, 0, "eps")
