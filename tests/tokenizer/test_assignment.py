"""Identifiers handed out anew: the best sum that there is, distinct for all, and nobody worse off."""

from itertools import product

import pytest
import torch

from recbole_contrec.tokenizer.assignment import METHODS, assign

NONE = -torch.inf


def identifiers(*numbers):
    """Tuples of two codes [..., 2] of numbers below 25."""
    numbers = torch.tensor(numbers)
    return torch.stack([numbers // 5, numbers % 5], dim=-1)


def numbers(codes):
    return (5 * codes[..., 0] + codes[..., 1]).tolist()


def drawn(seed, n=5, width=4):
    """Items with identifiers 0..n-1, and candidates among 0..7, in duplicates, some of them not there."""
    generator = torch.Generator().manual_seed(seed)
    candidates = torch.randint(8, (n, width), generator=generator)
    scores = torch.randn(n, width, generator=generator) - 1
    scores = scores.masked_fill(torch.rand(n, width, generator=generator) < 0.1, NONE)
    own_scores = torch.randn(n, generator=generator) - 1
    return identifiers(*range(n)), own_scores, identifiers(*candidates.tolist()), scores


def gains_of(own, own_scores, candidates, scores, margin=0.0):
    """For every item the identifiers that it may get, with their gain."""
    allowed = []
    for item, mine in enumerate(numbers(own)):
        options = {mine: 0.0}
        for candidate, score in zip(numbers(candidates)[item], scores[item].tolist()):
            gain = score - own_scores[item].item()
            if gain > margin and candidate != mine:
                options[candidate] = max(gain, options.get(candidate, NONE))
        allowed.append(options)
    return allowed


@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(15))
def test_optimal_is_the_best_of_all_assignments(seed, margin):
    given = drawn(seed)
    allowed = gains_of(*given, margin)
    best = max(
        sum(options[wanted] for options, wanted in zip(allowed, choice))
        for choice in product(*allowed)
        if len(set(choice)) == len(choice)
    )
    found = numbers(assign(*given, margin))
    assert len(set(found)) == 5
    assert sum(options[wanted] for options, wanted in zip(allowed, found)) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(15))
def test_greedy_takes_the_largest_gain_that_is_free(seed, margin):
    given = drawn(seed)
    pairs = sorted(
        (
            (gain, item, wanted)
            for item, options in enumerate(gains_of(*given, margin))
            for wanted, gain in options.items()
            if gain > 0
        ),
        reverse=True,
    )
    choice, taken, moved = [*range(5)], {*range(5)}, set()
    for _, item, wanted in pairs:
        if item not in moved and wanted not in taken:
            choice[item] = wanted
            moved.add(item)
            taken.add(wanted)
    assert numbers(assign(*given, margin, method="greedy")) == choice


@pytest.mark.parametrize("method", METHODS)
def test_many_items_stay_distinct_and_nobody_is_worse_off(method):
    generator = torch.Generator().manual_seed(0)
    tuples = torch.cartesian_prod(*[torch.arange(8)] * 3)
    own = tuples[torch.randperm(512, generator=generator)[:200]]
    candidates = tuples[torch.randint(512, (200, 10), generator=generator)]
    table = torch.randn(200, 512, generator=generator)  # what each would say of every tuple

    def score(codes):
        return (codes * torch.tensor([64, 8, 1])).sum(-1)

    own_scores = table.gather(1, score(own)[:, None]).squeeze(1)
    found = assign(own, own_scores, candidates, table.gather(1, score(candidates)), method=method)
    assert len(found.unique(dim=0)) == 200
    after = table.gather(1, score(found)[:, None]).squeeze(1)
    assert (after >= own_scores).all() and (after > own_scores).float().mean() > 0.6
    stays = (found == own).all(1)
    assert ((found[:, None] == candidates).all(2).any(1) | stays).all()


def test_two_items_may_swap_in_the_optimal_assignment_only():
    own, candidates = identifiers(3, 4), identifiers([4], [3])
    given = own, torch.tensor([-2.0, -2.0]), candidates, torch.tensor([[-1.0], [-1.0]])
    assert numbers(assign(*given)) == [4, 3]
    assert numbers(assign(*given, method="greedy")) == [3, 4]


def test_the_optimal_assignment_gives_way_where_the_sum_gains():
    own, candidates = identifiers(0, 1), identifiers([2, 3], [2, 2])
    given = own, torch.tensor([-5.0, -5.0]), candidates, torch.tensor([[-1.0, -1.5], [-1.2, NONE]])
    assert numbers(assign(*given)) == [3, 2]
    assert numbers(assign(*given, method="greedy")) == [2, 1]


@pytest.mark.parametrize("method", METHODS)
def test_all_stay_where_nothing_is_better(method):
    own, own_scores, candidates, scores = drawn(0)
    assert torch.equal(assign(own, own_scores.fill_(10.0), candidates, scores, method=method), own)
    assert torch.equal(assign(own, own_scores, candidates, scores.fill_(NONE), method=method), own)


@pytest.mark.parametrize("method", METHODS)
def test_what_gains_no_more_than_the_margin_is_left(method):
    given = identifiers(0, 1), torch.tensor([-2.0, -2.0]), identifiers([5], [6]), torch.tensor([[-1.0], [-1.5]])
    assert numbers(assign(*given, 0.4, method)) == [5, 6]
    assert numbers(assign(*given, 0.5, method)) == [5, 1]
    assert numbers(assign(*given, 1.0, method)) == [0, 1]


@pytest.mark.parametrize("method", METHODS)
def test_a_candidate_named_twice_counts_with_its_best_score(method):
    given = identifiers(0), torch.tensor([-3.0]), identifiers([5, 6, 5, 0]), torch.tensor([[-2.5, -2.0, -1.0, -0.5]])
    assert numbers(assign(*given, method=method)) == [5]  # and its own, named among them, is no gain


@pytest.mark.parametrize("method", METHODS)
def test_one_candidate_wanted_by_all_goes_to_the_largest_gain(method):
    given = (
        identifiers(0, 1, 2),
        torch.tensor([-3.0, -3.0, -3.0]),
        identifiers([9], [9], [9]),
        torch.tensor([[-2.0], [-1.0], [-2.5]]),
    )
    assert numbers(assign(*given, method=method)) == [0, 9, 2]


def test_errors():
    given = drawn(0)
    with pytest.raises(ValueError, match="'fair'.*optimal, greedy"):
        assign(*given, method="fair")
    with pytest.raises(ValueError, match="two items have the same identifier"):
        assign(identifiers(0, 1, 2, 3, 1), *given[1:])
