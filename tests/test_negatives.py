"""Which items are drawn as negatives of a user, and how often."""

import numpy as np
import pytest
import torch

from recbole_contrec.negatives import NegativeSampler

USERS = np.array([1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3])
ITEMS = np.array([2, 5, 5, 3, 1, 6, 5, 1, 2, 3, 7])  # item 4 is nobody's, item 8 and user 4 have no interaction


def shares(sampler, user, targets=None, draws=40_000):
    """How often every item was drawn, [N]."""
    targets = torch.tensor([1]) if targets is None else targets
    drawn = sampler(torch.full((draws // 10,), user), 10, targets)
    assert drawn.shape == (draws // 10, 10)
    return drawn.flatten().bincount(minlength=9) / draws


@pytest.mark.parametrize(
    "user, free", [(1, [1, 4, 6, 7, 8]), (2, [2, 3, 4, 5, 7, 8]), (3, [4, 6, 8]), (4, range(1, 9))]
)
def test_uniform_draws_are_uniform_over_the_others(user, free):
    wanted = torch.zeros(9)
    wanted[list(free)] = 1 / len(free)
    torch.testing.assert_close(shares(NegativeSampler(USERS, ITEMS, 5, 9), user), wanted, atol=0.012, rtol=0)
    assert (shares(NegativeSampler(USERS, ITEMS, 5, 9), user)[wanted == 0] == 0).all()


@pytest.mark.parametrize("user", [1, 2, 3, 4])
def test_popular_draws_follow_popularity_among_the_others(user):
    counts = torch.from_numpy(np.bincount(ITEMS, minlength=9)).float()
    counts[ITEMS[USERS == user]] = 0
    found = shares(NegativeSampler(USERS, ITEMS, 5, 9, "popularity"), user)
    torch.testing.assert_close(found, counts / counts.sum(), atol=0.012, rtol=0)
    assert (found[counts == 0] == 0).all()


def test_draws_from_the_batch_are_its_targets_unless_all_are_the_users_own():
    sampler = NegativeSampler(USERS, ITEMS, 5, 9, "batch")
    found = shares(sampler, 1, torch.tensor([4, 4, 8, 2, 5]))  # 2 and 5 are user 1's
    # what was the user's own in all eight attempts, one in 1,500, is uniform
    torch.testing.assert_close(found[[4, 8]], torch.tensor([2 / 3, 1 / 3]), atol=0.015, rtol=0)
    assert (found[[2, 3, 5]] == 0).all()
    nothing_else = shares(sampler, 1, torch.tensor([2, 5]))
    torch.testing.assert_close(nothing_else[[1, 4, 6, 7, 8]], torch.full((5,), 0.2), atol=0.012, rtol=0)


def test_users_in_one_call_do_not_mix():
    sampler = NegativeSampler(USERS, ITEMS, 5, 9)
    users = torch.tensor([3, 1, 4, 2] * 500)
    for user, drawn in zip(users.tolist(), sampler(users, 20, users)):
        assert not set(drawn.tolist()) & set(ITEMS[USERS == user]) and (drawn > 0).all() and (drawn < 9).all()


@pytest.mark.parametrize(
    "source, message",
    [
        ("uniform", "1 of 2 users have interacted with every item"),
        ("popularity", "1 of 2 users"),
        ("popular", "choose one of uniform"),
    ],
)
def test_bad_samplers(source, message):
    with pytest.raises(ValueError, match=message):
        NegativeSampler(np.array([1, 1, 2]), np.array([1, 2, 1]), 3, 3, source)
