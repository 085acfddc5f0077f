"""Identities of the noise schedule and of DDIM's steps."""

import math

import pytest
import torch

from recbole_contrec.diffusion import (
    PREDICTIONS,
    SCHEDULES,
    NoiseSchedule,
)


def draws(levels, n=6, d=5):
    """Clean vectors, noise and levels, the two ends among them, in float64."""
    x0, eps = torch.randn(2, n, d, dtype=torch.float64)
    t = torch.randint(levels, (n,))
    t[0], t[-1] = 0, levels - 1
    return x0, eps, t


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
