"""Users and items that were not in training: their vectors, and what models make of them."""

import numpy as np
import pytest
import torch

from recbole_contrec.tokenizer import FoldIn, history_means, standardise, svd_vectors

USERS, ITEMS, SIZE = 60, 40, 8


@pytest.fixture
def pairs():
    """Users 1 to 59 and items 1 to 38 with 3 to 12 pairs a user; item 39 has none."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(1, USERS), rng.integers(3, 13, USERS - 1))
    return users, rng.integers(1, ITEMS - 1, len(users))


def histories_of(pairs, rows):
    """Partners of every row, padded with zeros."""
    found = [pairs[1][pairs[0] == row] for row in range(rows)]
    table = torch.zeros(rows, max(map(len, found)), dtype=torch.long)
    for row, partners in enumerate(found):
        table[row, :len(partners)] = torch.from_numpy(partners)
    return table


@pytest.fixture
def vectors(pairs):
    found = svd_vectors(*pairs, USERS, ITEMS, SIZE)
    return standardise(found.users), standardise(found.items)


def test_folding_a_training_user_or_item_in_gives_back_its_svd_vector(pairs, vectors):
    users, items = vectors
    fold_in = FoldIn(ITEMS, SIZE)
    fold_in.fit(users, items, *pairs)
    torch.testing.assert_close(fold_in(histories_of(pairs, USERS)), users, atol=2e-4, rtol=0)
    of_items = FoldIn(USERS, SIZE)
    of_items.fit(items, users, *pairs[::-1])
    torch.testing.assert_close(of_items(histories_of(pairs[::-1], ITEMS)), items, atol=2e-4, rtol=0)


def test_order_repetition_padding_and_unknown_partners_change_nothing(pairs, vectors):
    fold_in = FoldIn(ITEMS, SIZE)
    fold_in.fit(*vectors, *pairs)
    expected = fold_in(torch.tensor([[3, 7, 11]]))
    assert not torch.allclose(expected, fold_in(torch.tensor([[3, 7, 12]])), atol=0.01)
    for history in ([11, 3, 7], [3, 7, 11, 7, 3], [0, 3, 0, 7, 11, 0], [3, 39, 7, 11]):
        torch.testing.assert_close(fold_in(torch.tensor([history])), expected)
    assert not fold_in(torch.tensor([[0, 0], [39, 0]])).any()  # nothing known is no vector


def test_vectors_that_are_no_svd_are_fitted_closely(pairs):
    """Means of given item vectors are nearly linear in what the map reads; noise around them is not learned."""
    items = torch.randn(ITEMS, SIZE, generator=torch.Generator().manual_seed(0))
    items[0] = 0
    users = standardise(history_means(*pairs, items, USERS))
    fold_in = FoldIn(ITEMS, SIZE)
    fold_in.fit(users, standardise(items), *pairs)
    error = (fold_in(histories_of(pairs, USERS)) - users)[1:].square().mean()
    assert error < 0.25  # of a variance of 1


@pytest.mark.parametrize("model", ["ContRec", "DeftRec", "TokenRec"])
def test_a_new_user_with_a_training_history_reads_the_tokens_of_its_user(assembled, model):
    """With a width of 16 the history of a training user, folded in, is that user."""
    loaded = assembled(model)
    loaded.trainer._run_stages(loaded.data.train, False)
    recommender = loaded.model.eval()
    histories = loaded.data.train.histories
    users = torch.from_numpy(histories.users[:20])
    sequences = torch.zeros(20, 30, dtype=torch.long)
    for row in range(20):
        items = histories.items[histories.offsets[row]:histories.offsets[row + 1]]
        sequences[row, :len(items)] = torch.from_numpy(items)
    known = recommender._read_users(users, sequences)
    new = recommender._read_users(torch.zeros_like(users), sequences)
    torch.testing.assert_close(new, known, atol=1e-3, rtol=0)
    assert not torch.allclose(new[:1], new[1:2], atol=0.01)
    nothing = recommender._read_users(torch.zeros_like(users), torch.zeros_like(sequences))
    torch.testing.assert_close(nothing, nothing[:1].expand_as(nothing))  # the stand-in


@pytest.mark.parametrize("model", ["ContRec", "TokenRec"])
def test_folding_in_can_be_left_out(assembled, model):
    loaded = assembled(model, "--fold_in=False")
    loaded.trainer._run_stages(loaded.data.train, False)
    nobody, sequences = torch.zeros(2, dtype=torch.long), torch.tensor([[3, 4, 5], [6, 7, 8]])
    tokens = loaded.model.eval()._read_users(nobody, sequences)
    assert torch.equal(tokens[0], tokens[1])
