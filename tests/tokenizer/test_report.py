"""Health of tokens and of codes, measured on constructed ones."""

import json
import math

import numpy as np
import pytest
import torch

from recbole_contrec.tokenizer import MaskedVQ, SigmaVAE, code_report, collision_rate, health_report
from tests.helpers.models import low_rank


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


class Given(MaskedVQ):
    """A tokenizer whose codes are the first K entries of a row, and that knows the rows by heart or not at all."""

    def __init__(self, d, n_tokens, codes, keeps=True):
        super().__init__(d, n_tokens, codes, token_size=1)
        self.keeps = keeps
        with torch.no_grad():
            self.codebooks.copy_(torch.arange(codes).float()[None, :, None].expand(n_tokens, -1, -1))

    def encode(self, x):
        return x[:, : self.n_tokens].long()

    def decode(self, tokens):
        back = torch.zeros(len(tokens), self.d)
        back[:, : self.n_tokens] = tokens.squeeze(2) * self.keeps
        return back


def test_health_of_constructed_codes():
    codes = torch.cartesian_prod(torch.arange(4), torch.arange(4)).repeat(5, 1)[:, [1, 0]]  # all pairs, five times
    x = torch.cat([codes, torch.ones(80, 0)], 1).float()
    x = torch.cat([torch.zeros(1, 2), x])
    health = code_report(Given(2, 2, 8), x)
    real = 80 - 5  # (0, 0) is a row without a vector
    assert health.rows == real and health.codebook_size == 8 and health.codes_in_use == [0.5, 0.5]
    share = np.array([15, 20, 20, 20]) / real
    assert health.perplexity == pytest.approx([math.exp(-(share * np.log(share)).sum()) / 8] * 2, abs=1e-3)
    assert health.collisions == health.identical_rows == 1.0
    assert health.unexplained_train == 0 and health.unexplained_held_out is None
    assert code_report(Given(2, 2, 8, keeps=False), x).unexplained_train > 1


def test_health_of_a_dead_codebook_and_of_single_collisions():
    x = torch.zeros(102, 3)
    x[1:, 0] = torch.arange(101) % 100 + 0.0
    x[1:, 1] = 1.0
    x[101, 2] = 0.5  # the codes of row 1, another vector
    health = code_report(Given(3, 2, 100), x, neighbours=3)
    assert health.codes_in_use == [1.0, 0.01] and health.perplexity[0] > 0.99 and health.perplexity[1] == 0.01
    assert health.collisions == pytest.approx(2 / 101) and health.identical_rows == 0


def test_collision_rate_counts_every_row_that_shares():
    assert collision_rate(torch.tensor([[1, 2], [1, 2], [2, 1], [1, 2], [0, 0]])) == pytest.approx(3 / 5)
    assert collision_rate(torch.arange(6).view(3, 2)) == 0
