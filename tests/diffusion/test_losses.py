"""The dispersive loss, against a double loop and at the extremes."""

import math

import pytest
import torch
import torch.nn.functional as F

from recbole_contrec.diffusion import (
    DISPERSIVE_KINDS,
    dispersive_loss,
)


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
