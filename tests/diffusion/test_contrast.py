"""The contrast of a diffusion head with negatives, against plain computations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_contrec.diffusion import PREDICTIONS, Contrast, DiffusionHead


def test_contrasts_against_their_formulas():
    positive = torch.tensor([0.1, 0.5, 0.9, 0.2], dtype=torch.float64)
    negative = torch.tensor([[0.3, 0.5, 0.1, 0.7], [1.0, 0.4, 0.8, 0.1], [0.6, 2.0, 0.0, 0.2]], dtype=torch.float64)
    leads = [(negative[j, i] - positive[i]).item() for j in range(3) for i in range(4)]
    bpr = [np.log(1 + np.exp(-5 * lead)) for lead in leads]
    assert Contrast("bpr", scale=5.0)(positive, negative).item() == pytest.approx(np.mean(bpr), rel=1e-12)
    hinge = [max(0, 0.3 - lead) for lead in leads]
    assert 0 in hinge and max(hinge) > 0.3  # both sides of the margin
    assert Contrast("hinge", margin=0.3)(positive, negative).item() == pytest.approx(np.mean(hinge), rel=1e-12)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(kind="bqr"), "contrast must be one of bpr, hinge, not 'bqr'"),
        (dict(scale=0.0), "scale of a contrast must be positive"),
        (dict(margin=-1.0), "margin of a contrast must be positive"),
    ],
)
def test_bad_contrasts(settings, message):
    with pytest.raises(ValueError, match=message):
        Contrast(**settings)


def make_head(**settings):
    defaults = {"d": 5, "condition_size": 7, "width": 16, "levels": 50, "condition_dropout": 0.0}
    return DiffusionHead(**{**defaults, **settings})


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("same_noise", [True, False])
@pytest.mark.parametrize("kind", ["bpr", "hinge"])
def test_contrastive_loss_against_one_row_at_a_time(prediction, same_noise, kind):
    contrast = Contrast(kind, scale=3.0, margin=0.2, same_noise=same_noise)
    head = make_head(prediction=prediction, noisy_skip=prediction != "x0", noise_draws=2, contrast=contrast).double()
    torch.nn.init.normal_(head.denoiser.modulation.weight, std=0.3)
    condition, target = torch.randn(4, 7).double(), torch.randn(4, 5).double()
    negatives = torch.randn(4, 3, 5).double()
    torch.manual_seed(3)
    loss = head.contrastive_loss(condition, target, negatives)
    torch.manual_seed(3)
    t = torch.randint(50, (2, 4))
    eps = torch.randn(2, 4, 5, dtype=torch.float64) if same_noise else torch.randn(4, 2, 4, 5, dtype=torch.float64)

    def error(x0, number, draw, row):
        level = t[draw, row]
        noise = eps[draw, row] if same_noise else eps[number, draw, row]
        s, n = head.schedule.signal(level), head.schedule.noise(level)
        x_t = s * x0 + n * noise
        raw = head.denoiser(x_t[None], level[None], s[None], condition[row][None]).output[0]
        wanted = {"x0": x0, "noise": noise, "v": s * noise - n * x0}[head.space]
        return ((n * x_t + s * raw if prediction == "noise" else raw) - wanted).square().mean()

    regression, contrasts = [], []
    for draw in range(2):
        for row in range(4):
            positive = error(target[row], 0, draw, row)
            regression.append(positive)
            for j in range(3):
                lead = error(negatives[row, j], 1 + j, draw, row) - positive
                contrasts.append(-F.logsigmoid(3 * lead) if kind == "bpr" else F.relu(0.2 - lead))
    torch.testing.assert_close(loss.regression, torch.stack(regression).mean())
    torch.testing.assert_close(loss.contrast, torch.stack(contrasts).mean())
    assert loss.dispersive == 0


@pytest.mark.parametrize("objective", ["denoising", "regression"])
def test_regression_is_that_of_the_loss_without_negatives(objective):
    head = make_head(dispersive="infonce_l2", objective=objective, noise_draws=2)
    condition, target, negatives = torch.randn(6, 7), torch.randn(6, 5), torch.randn(6, 3, 5)
    torch.manual_seed(1)
    plain = head.loss(condition, target)
    torch.manual_seed(1)
    contrasted = head.contrastive_loss(condition, target, negatives)
    torch.testing.assert_close(contrasted.regression, plain.regression)
    torch.testing.assert_close(contrasted.dispersive, plain.dispersive)
    assert plain.dispersive != 0


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_plain_regression_is_the_error_of_the_estimate(prediction):
    contrast = Contrast(same_noise=True)
    head = make_head(prediction=prediction, objective="regression", contrast=contrast).double().eval()
    condition, target, negatives = torch.randn(6, 7).double(), torch.randn(6, 5).double(), torch.randn(6, 3, 5).double()
    loss = head.train().contrastive_loss(condition, target, negatives)
    estimate = head.eval().estimate(condition)
    positive = (estimate - target).square().mean(-1)
    negative = (estimate[:, None] - negatives).square().mean(-1)
    torch.testing.assert_close(loss.regression, positive.mean())
    torch.testing.assert_close(loss.contrast, -F.logsigmoid(negative - positive[:, None]).mean())


@pytest.mark.parametrize("objective", ["denoising", "regression"])
def test_neither_targets_nor_negatives_get_a_gradient(objective):
    head = make_head(objective=objective)
    condition, target = torch.randn(6, 7, requires_grad=True), torch.randn(6, 5, requires_grad=True)
    negatives = torch.randn(6, 3, 5, requires_grad=True)
    loss = head.contrastive_loss(condition, target, negatives)
    (loss.regression + loss.contrast).backward()
    assert target.grad is None and negatives.grad is None
    assert condition.grad.abs().sum() > 0
    (alone,) = torch.autograd.grad(head.contrastive_loss(condition, target, negatives).contrast, condition)
    assert alone.abs().sum() > 0


@pytest.mark.parametrize("objective", ["denoising", "regression"])
def test_autocast_keeps_the_errors_in_full_precision(objective):
    head = make_head(prediction="noise", objective=objective)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head.contrastive_loss(torch.randn(6, 7).bfloat16(), torch.randn(6, 5), torch.randn(6, 2, 5))
    assert loss.regression.dtype == loss.contrast.dtype == torch.float32
    (loss.regression + loss.contrast).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)


def test_learning_the_contrast_widens_the_lead():
    """Two targets a condition, of which one is a negative: only the contrast can tell them apart."""
    leads = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        head = make_head(prediction="noise", contrast=Contrast(scale=5.0))
        optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
        condition, target = torch.randn(32, 7), torch.randn(32, 5)
        negatives = torch.randn(32, 1, 5)
        for _ in range(150):
            loss = head.contrastive_loss(condition, target, negatives)
            optimizer.zero_grad()
            (loss.regression + weight * loss.contrast).backward()
            optimizer.step()
        torch.manual_seed(1)
        leads[weight] = sum(head.contrastive_loss(condition, target, negatives).contrast.item() for _ in range(20)) / 20
    assert leads[1.0] < 0.8 * leads[0.0]


def test_bad_calls():
    head = make_head()
    condition, target = torch.randn(3, 7), torch.randn(3, 5)
    for negatives in (torch.randn(3, 5), torch.randn(2, 4, 5), torch.randn(3, 0, 5), torch.randn(3, 4, 6)):
        with pytest.raises(ValueError, match=r"negatives must be \[3, R, 5\], not"):
            head.contrastive_loss(condition, target, negatives)
    with pytest.raises(ValueError, match="objective must be one of denoising, regression, not 'plain'"):
        make_head(objective="plain")
