"""The residual quantiser: codes from coarse to fine, gradients where they belong, codebooks that stay alive."""

import numpy as np
import pytest
import torch

from recbole_contrec.tokenizer import ResidualVQ, code_report, encode_rows, fit_tokenizer, split_rows
from tests.helpers.models import low_rank


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small(**settings):
    return ResidualVQ(**{"d": 16, "n_tokens": 3, "codebook_size": 32, "token_size": 8, "hidden_size": 32, **settings})


# codes


def test_codes_equal_a_plain_loop():
    model, x = small().eval(), low_rank()[1:30]
    model.start_codebooks(low_rank()[1:])
    encoded, codes = model.encoder(x).detach(), model.encode(x)
    for row in range(len(x)):
        left = encoded[row]
        for level in range(3):
            distances = [(left - word).square().sum().item() for word in model.codebooks[level].detach()]
            assert codes[row, level] == int(np.argmin(distances))
            left = left - model.codebooks[level, codes[row, level]].detach()


def test_the_decoder_reads_the_sum_of_the_codewords():
    model, x = small().eval(), low_rank()[1:60]
    out, codes = model(x), model.encode(x)
    words = sum(model.codebooks[level][codes[:, level]] for level in range(3))
    torch.testing.assert_close(out.reconstruction, model.decoder(words))
    torch.testing.assert_close(model.decode(model.tokens(codes)), out.reconstruction)


def test_codes_do_not_depend_on_the_batch():
    model, x = small().eval(), low_rank()[1:]
    codes = model.encode(x)
    assert codes.shape == (399, 3) and codes.dtype == torch.int64 and 0 <= codes.min() <= codes.max() < 32
    assert torch.equal(codes[:7], model.encode(x[:7]))


def test_rows_without_a_vector_have_no_codes():
    x = low_rank()
    x[9] = 0
    codes = encode_rows(small().eval(), x)
    assert (codes == 32).all(1).nonzero().squeeze(1).tolist() == [0, 9]


# gradients and losses


def test_reconstruction_reaches_the_encoder_and_no_codebook():
    model, x = small(), low_rank()[1:]
    model.loss(x).reconstruction.backward()
    assert all(parameter.grad.any() for parameter in model.encoder.parameters())
    assert model.codebooks.grad is None or not model.codebooks.grad.any()


def test_reconstruction_passes_straight_through():
    """The encoder's gradient is that of what the decoder reads."""
    model, x = small().eval(), low_rank()[1:50]
    seen = {}

    def keep(name, tensor):
        tensor.retain_grad()
        seen[name] = tensor

    model.encoder.register_forward_hook(lambda _, __, out: keep("encoded", out))
    model.decoder.register_forward_pre_hook(lambda _, inputs: keep("read", inputs[0]))
    model.loss(x).reconstruction.backward()
    torch.testing.assert_close(seen["encoded"].grad, seen["read"].grad)
    assert seen["read"].grad.any()


def test_losses_against_a_plain_computation():
    model, x = small().eval(), low_rank()[1:40]
    loss, codes = model.loss(x, codebook_weight=0.7, commitment_weight=0.3), model.encode(x)
    residual, squares = model.encoder(x).detach(), []
    for level in range(3):
        word = model.codebooks[level, codes[:, level]].detach()
        squares.append((residual - word).square().mean().item())
        residual = residual - word
    assert loss.codebook.item() == pytest.approx(0.7 * np.mean(squares), rel=1e-4)
    assert loss.commitment.item() == pytest.approx(0.3 * np.mean(squares), rel=1e-4)
    assert loss.reconstruction.item() == pytest.approx((model(x).reconstruction - x).square().mean().item(), rel=1e-4)


def test_codebook_loss_moves_codewords_and_commitment_moves_the_encoder():
    model, x = small(), low_rank()[1:]
    model.loss(x).codebook.backward()
    assert model.codebooks.grad.flatten(1).any(1).all() and model.encoder[0].weight.grad is None
    model.zero_grad()
    model.loss(x).commitment.backward()
    assert model.encoder[0].weight.grad.any() and model.codebooks.grad is None


def test_codebook_loss_of_a_level_asks_for_its_residual_alone():
    """A codeword's gradient points from the mean of the residuals that it stands for, whatever the levels behind it
    do."""
    model, x = small().eval(), low_rank()[1:]
    out = model(x)
    model.loss(x).codebook.backward()
    for level in range(3):
        code = out.codes[:, level].mode().values
        own = out.codes[:, level] == code
        away = (model.codebooks[level, code] - out.encoded[own, level].mean(0)).detach()
        wanted = 2 * own.sum() * away / out.encoded.numel()
        torch.testing.assert_close(model.codebooks.grad[level, code], wanted, atol=1e-7, rtol=1e-3)


# codebooks


def test_codebooks_start_at_the_residuals_level_by_level():
    model, x = small().eval(), low_rank()[1:]
    random = model.loss(x).codebook
    model.start_codebooks(x)
    out = model(x)
    assert model.loss(x).codebook < 0.1 * random
    sizes = out.encoded.norm(dim=2).mean(0)
    assert sizes[1] < 0.7 * sizes[0] and sizes[2] < sizes[1]
    for level in range(3):  # Lloyd's fixed point, nearly: a codeword is the mean of the residuals that it stands for
        means = torch.stack(
            [out.encoded[out.codes[:, level] == code, level].mean(0) for code in out.codes[:, level].unique()]
        )
        used = model.codebooks[level, out.codes[:, level].unique()]
        assert (means - used).norm(dim=1).mean() < 0.2 * used.norm(dim=1).mean()


def test_dead_codes_come_back():
    def in_use(restart_below):
        torch.manual_seed(0)
        model, x = small(restart_below=restart_below), low_rank()[1:]
        model.start_codebooks(x)
        with torch.no_grad():
            model.codebooks[:, 8:] = 1e3  # out of reach
        for _ in range(40):
            model.loss(x)
        return [len(column.unique()) / 32 for column in model.eval().encode(x).T]

    assert in_use(0.0) == [0.25] * 3
    assert min(in_use(0.2)) > 0.7


def test_restarts_leave_eval_mode_alone():
    model, x = small().eval(), low_rank()[1:]
    with torch.no_grad():
        model.codebooks[1, 5] = 1e3
    before = model.codebooks.detach().clone()
    for _ in range(40):
        model.loss(x)
    assert torch.equal(model.codebooks, before)


def test_starting_leaves_the_mode_as_it_was():
    for training in (True, False):
        model = small(dropout=0.5).train(training)
        model.start_codebooks(low_rank()[1:])
        assert model.training == training


# fit


def test_more_levels_reconstruct_better():
    x = low_rank(n=800)
    errors = []
    for n_tokens in (1, 2, 4):
        torch.manual_seed(0)
        model = small(n_tokens=n_tokens)
        fit_tokenizer(model, x, epochs=15, batch_size=128, learning_rate=5e-3)
        with torch.no_grad():
            errors.append((model.decode(model.tokens(model.encode(x[1:]))) - x[1:]).square().mean().item())
    assert errors[0] > 1.2 * errors[1] and errors[1] > 1.2 * errors[2] and errors[2] < 0.3


def test_a_fitted_quantiser_is_healthy_and_the_report_knows_it():
    x = low_rank(n=800)
    model = small()
    fit_tokenizer(model, x, epochs=15, batch_size=128, learning_rate=5e-3)
    health = code_report(model, x, split_rows(x, 0.1, 0).held_out)
    assert min(health.codes_in_use) > 0.9 and health.unexplained_held_out < 0.6 and health.unexplained_train < 0.4


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"codebook_size": 0}, "at least 1"),
        ({"n_tokens": 0}, "at least 1"),
        ({"dropout": 1.0}, "dropout"),
        ({"restart_below": -0.1}, "restart_below"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_width_of_the_input_is_checked():
    with pytest.raises(ValueError, match=r"\[n, 16\]"):
        small()(torch.randn(3, 9))
