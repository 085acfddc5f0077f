"""Draws of a trained head: as spread as the truth, shared where they shall be, and of two modes where there are two."""

import pytest
import torch

from recbole_contrec.diffusion import (
    PREDICTIONS,
    SCHEDULES,
    Denoised,
    DiffusionHead,
)
from recbole_contrec.diffusion import head as head_module
from recbole_contrec.diffusion.denoiser import Prepared
from tests.helpers.heads import make_head


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
