"""The diffusion head with its denoiser: losses, gradients where they belong, sampling step by step, and bad calls."""

import pytest
import torch

from recbole_contrec.diffusion import (
    PREDICTIONS,
    Denoised,
    Denoiser,
    dispersive_loss,
)
from recbole_contrec.diffusion import head as head_module
from recbole_contrec.diffusion.denoiser import Prepared
from tests.helpers.heads import make_head

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


def test_a_head_computes_as_it_was_trained():
    old, new = make_head(noisy_skip=False), make_head()
    assert (old.space, new.space) == ("x0", "v")
    for state, space in ((old.state_dict(), "x0"), (new.state_dict(), "v")):
        other = make_head(noisy_skip=space == "v")
        other.noisy_skip = space == "x0"
        other.load_state_dict(state)
        assert other.space == space


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
