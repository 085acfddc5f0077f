"""The masked vector quantiser: gradients reach every encoder, codes stay alive, and its health is measured rightly."""

import numpy as np
import pytest
import torch

from recbole_contrec.tokenizer import (
    MaskedVQ,
    code_report,
    collision_rate,
    default_codes,
    distinct_codes,
    encode_rows,
    fit_tokenizer,
    masked_vq,
    split_rows,
)
from tests.helpers.models import low_rank


def small(**settings):
    return MaskedVQ(**{"d": 16, "n_tokens": 3, "codebook_size": 32, "token_size": 8, "hidden_size": 32, **settings})


# ------------------------------------------------------------------------------------------------ gradients and losses


def assert_reconstruction_reaches_every_encoder(model, x):
    model.zero_grad()
    model.loss(x).reconstruction.backward()
    for name, parameter in model.encoders.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad.flatten(1).norm(dim=1) > 0).all(), name  # of each of the K encoders
    assert model.codebooks.grad is None or not model.codebooks.grad.any()  # they learn by their own loss


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_straight_through_reaches_every_encoder(gradient):
    assert_reconstruction_reaches_every_encoder(small(gradient=gradient), low_rank()[1:])


@pytest.mark.parametrize(
    "planted",
    [
        lambda self, encoded, codewords: codewords,
        lambda self, encoded, codewords: codewords.detach(),
        lambda self, encoded, codewords: (encoded + codewords - encoded).detach(),
    ],
)
def test_a_planted_break_of_the_gradient_is_found(monkeypatch, planted):
    monkeypatch.setattr(MaskedVQ, "_pass", planted)
    with pytest.raises(AssertionError):
        assert_reconstruction_reaches_every_encoder(small(), low_rank()[1:])


def test_straight_through_passes_the_gradient_of_the_codeword_on():
    model, x = small().eval(), low_rank()[1:50]
    out = model(x)
    out.encoded.retain_grad()
    out.tokens.retain_grad()
    (out.reconstruction - x).square().mean().backward()
    assert torch.equal(out.encoded.grad, out.tokens.grad) and out.tokens.grad.any()
    torch.testing.assert_close(out.tokens, out.codewords)


def test_losses_against_a_plain_computation():
    model, x = small().eval(), low_rank()[1:40]
    loss = model.loss(x, codebook_weight=0.7, commitment_weight=0.3)
    encoded = model.encoders(x.expand(3, -1, -1)).detach().transpose(0, 1)
    squares, chosen = [], torch.zeros(len(x), 3, dtype=torch.long)
    for row in range(len(x)):
        for k in range(3):
            distance = [(encoded[row, k] - word).square().sum().item() for word in model.codebooks[k].detach()]
            chosen[row, k] = int(np.argmin(distance))
            squares.append(min(distance) / 8)
    assert torch.equal(model.encode(x), chosen)
    assert loss.codebook.item() == pytest.approx(0.7 * np.mean(squares), rel=1e-4)
    assert loss.commitment.item() == pytest.approx(0.3 * np.mean(squares), rel=1e-4)
    pooled = sum(model.codebooks[k][chosen[:, k]] for k in range(3)) / 3  # mean pooling
    assert loss.reconstruction.item() == pytest.approx((model.decoder(pooled) - x).square().mean().item(), rel=1e-4)


def test_codebook_loss_moves_codewords_and_commitment_moves_encoders():
    model, x = small(), low_rank()[1:]
    model.loss(x).codebook.backward()
    assert model.codebooks.grad.abs().sum() > 0 and model.encoders[0].weight.grad is None
    model.zero_grad()
    model.loss(x).commitment.backward()
    assert model.encoders[0].weight.grad.abs().sum() > 0 and model.codebooks.grad is None


def test_rotation_gives_the_codeword_and_turns_the_gradient():
    encoded = torch.randn(20, 3, 8, dtype=torch.float64, requires_grad=True)
    codewords = torch.randn(20, 3, 8, dtype=torch.float64)
    turned = masked_vq.rotated(encoded, codewords)
    torch.testing.assert_close(turned, codewords)
    upstream = torch.randn_like(turned)
    turned.backward(upstream)
    stretch = codewords.norm(dim=-1) / encoded.norm(dim=-1)
    torch.testing.assert_close(encoded.grad.norm(dim=-1), upstream.norm(dim=-1) * stretch)  # a rotation keeps norms
    angle = torch.cosine_similarity(upstream, codewords, dim=-1)  # and the angle to what it turned
    torch.testing.assert_close(torch.cosine_similarity(encoded.grad, encoded, dim=-1), angle)


# ----------------------------------------------------------------------------------------------------------------- mask


def seen_by_encoders(model, x):
    read = []
    handle = model.encoders.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].clone()))
    model.loss(x)
    handle.remove()
    return read[0]


def test_mask_falls_on_elements_in_training_only():
    model, x = small(mask_ratio=0.3), torch.ones(500, 16)
    read = seen_by_encoders(model.train(), x)[0]  # the same for all encoders
    assert set(read.unique().tolist()) == {0.0, 1.0}  # nothing is rescaled
    assert (read == 0).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert len(read.unique(dim=0)) > 400  # one draw a row ...
    assert (read == 0).float().mean(0).sub(0.3).abs().max() < 0.1  # ... and an element
    assert not torch.equal(read, seen_by_encoders(model, x)[0])
    assert torch.equal(seen_by_encoders(model.eval(), x)[0], x)


def test_no_row_of_the_batch_is_written_to():
    x = low_rank()[1:]
    before = x.clone()
    model = small(mask_ratio=0.5).train()
    sum(model.loss(x)).backward()
    model.start_codebooks(x)
    assert torch.equal(x, before)


# -------------------------------------------------------------------------------------------------------------- codes


def test_codes_are_deterministic_in_eval_mode():
    model, x = small(), low_rank()[1:]
    model.start_codebooks(x)
    model.eval()
    codes = model.encode(x)
    assert codes.shape == (399, 3) and codes.dtype == torch.int64 and 0 <= codes.min() <= codes.max() < 32
    assert torch.equal(codes, model.encode(x)) and torch.equal(codes, model(x).codes)
    assert torch.equal(codes[:7], model.encode(x[:7]))  # whatever else is in the batch
    assert torch.equal(model.tokens(codes)[5, 2], model.codebooks[2, codes[5, 2]])
    model.train()
    assert not torch.equal(model.encode(x), model.encode(x))  # the mask


def test_kmeans_finds_clusters_and_codebooks_start_there():
    centres = 10 * torch.randn(8, 4)
    points = (centres[:, None] + 0.1 * torch.randn(8, 30, 4)).flatten(0, 1)
    assert torch.cdist(centres, masked_vq.kmeans(points, 8)).min(1).values.max() < 0.2
    model, x = small().eval(), low_rank()[1:]
    random = model.loss(x).codebook
    assert len(model.encode(x)[:, 0].unique()) < 32
    model.start_codebooks(x)
    assert model.loss(x).codebook < 0.3 * random
    assert all(len(column.unique()) == 32 for column in model.encode(x).T)
    out = model(x)
    for k in range(3):  # Lloyd's fixed point, nearly: a codeword is the mean of what it stands for
        means = torch.stack([out.encoded[out.codes[:, k] == code, k].mean(0) for code in range(32)])
        assert (means - model.codebooks[k]).norm(dim=1).mean() < 0.1 * model.codebooks[k].norm(dim=1).mean()


def test_kmeans_with_fewer_points_than_clusters():
    points = torch.randn(5, 3)
    centroids = masked_vq.kmeans(points, 8)
    assert centroids.shape == (8, 3) and len(centroids.unique(dim=0)) == 8
    assert torch.cdist(points, centroids).min(1).values.max() == 0


def test_dead_codes_come_back():
    def in_use(restart_below):
        torch.manual_seed(0)
        model, x = small(restart_below=restart_below, mask_ratio=0.0), low_rank()[1:]
        model.start_codebooks(x)
        with torch.no_grad():
            model.codebooks[:, 8:] = 1e3  # out of reach
        for _ in range(40):
            model.loss(x)
        return [len(column.unique()) / 32 for column in model.eval().encode(x).T]

    assert in_use(0.0) == [0.25] * 3
    assert min(in_use(0.2)) > 0.8


def test_restarts_leave_eval_mode_and_used_codes_alone():
    model, x = small(mask_ratio=0.0), low_rank()[1:]
    model.start_codebooks(x)
    before = model.codebooks.detach().clone()
    use = torch.stack([torch.bincount(column, minlength=32) for column in model.encode(x).T]) / len(x) * 32
    with torch.no_grad():
        model.codebooks[1, 5] = before[1, 5] = 1e3
    model.eval()
    for _ in range(40):
        model.loss(x)
    assert torch.equal(model.codebooks, before)
    model.train()
    for _ in range(40):
        model.loss(x)
    moved = (model.codebooks != before).any(2)
    assert moved[1, 5]
    use[1, 5] = 0
    assert not moved[use > 1].any()


# --------------------------------------------------------------------------------------------------------------- fit


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_round_trip_after_fit_is_far_better_than_chance(gradient):
    x = low_rank(n=1200)
    model = small(codebook_size=64, gradient=gradient)
    report = fit_tokenizer(model, x, epochs=40, batch_size=128)
    assert not model.training and report.held_out_error < 0.6  # standardised, so the variance is 1
    with torch.no_grad():
        back = model.decode(model.tokens(model.encode(x[1:])))
    assert (back - x[1:]).square().mean() < 0.5
    health = code_report(model, x, split_rows(x, 0.1, 0).held_out)
    assert min(health.codes_in_use) >= 0.95 and min(health.perplexity) >= 0.6
    assert max(health.unexplained_train, health.unexplained_held_out) < 0.6 and health.neighbour_overlap > 0.2


def test_fit_trains_the_encoders_and_is_deterministic():
    def fitted(seed):
        torch.manual_seed(3)
        model = small()
        before = model.encoders[0].weight.detach().clone()
        torch.manual_seed(seed + 100)  # whatever the global state is
        fit_tokenizer(model, low_rank(), epochs=2, seed=seed, codebook_weight=0.5, commitment_weight=0.1)
        assert not torch.equal(before, model.encoders[0].weight)
        return model.state_dict()

    one, again, other = fitted(1), fitted(1), fitted(2)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["codebooks"], other["codebooks"])


def test_a_misspelt_weight_is_an_error():
    with pytest.raises(TypeError, match="comitment_weight"):
        fit_tokenizer(small(), low_rank(), epochs=1, comitment_weight=1.0)


def test_distinct_codes_move_only_rows_that_share_and_as_little_as_possible():
    x = low_rank(n=200)
    x[50:60], x[7] = x[40].clone(), 0
    model = small()
    model.start_codebooks(x[1:])
    model.eval()
    nearest, codes = encode_rows(model, x), distinct_codes(model, x)
    real = [row for row in range(200) if row not in (0, 7)]
    assert collision_rate(nearest[real]) > 0.05 and collision_rate(codes[real]) == 0
    assert (codes[[0, 7]] == 32).all() and (nearest[[0, 7]] == 32).all()  # no vector, no code
    first = {}
    for row in real:
        first.setdefault(tuple(nearest[row].tolist()), row)
    moved = [row for row in real if not torch.equal(codes[row], nearest[row])]
    assert sorted([*first.values(), *moved]) == real
    assert all((codes[row] != nearest[row]).sum() == 1 for row in moved)
    row = moved[0]  # the first to move has nearly everything free: it takes the cheapest change
    cost = model.distances(model(x[row][None]).encoded)[:, 0]
    cost = cost - cost.gather(1, nearest[row][:, None])
    taken = {tuple(codes.tolist()) for codes in nearest[real]}
    options = sorted(
        (cost[k, c].item(), (*nearest[row, :k].tolist(), c, *nearest[row, k + 1 :].tolist()))
        for k in range(3)
        for c in range(32)
    )
    assert tuple(codes[row].tolist()) == next(option for _, option in options if option not in taken)


def test_distinct_codes_end_where_nothing_is_free():
    model = MaskedVQ(4, n_tokens=1, codebook_size=4, token_size=4).eval()
    codes = distinct_codes(model, torch.ones(7, 4))
    assert codes[1:].squeeze(1).unique().tolist() == [0, 1, 2, 3] and codes.shape == (7, 1)


@pytest.mark.parametrize(
    "rows, codes", [(1, 1), (3, 3), (5, 4), (12, 4), (40, 8), (943, 128), (1682, 256), (6040, 256), (22363, 512)]
)
def test_default_codes_follow_the_number_of_rows(rows, codes):
    assert default_codes(rows) == codes


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"gradient": "none"}, "straight_through, rotation"),
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"codebook_size": 0}, "at least 1"),
        ({"restart_below": -0.1}, "restart_below"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_width_of_the_input_is_checked():
    with pytest.raises(ValueError, match=r"\[n, 16\]"):
        small()(torch.randn(3, 9))
