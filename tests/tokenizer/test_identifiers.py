"""Identifiers without a network: similar items share codes from the front on, and every item has its own in the end."""

import numpy as np
import pytest
import scipy.sparse
import torch

from recbole_contrec.tokenizer import (
    cluster_codes,
    identifier_report,
    product_codes,
    random_codes,
    residual_kmeans,
    seen_rows,
    with_counter,
)

C, N = 8, 161
GROUP = torch.arange(N - 1) % 8  # of every item but the padding


def table():
    """Vectors of eight groups far from each other; the padding and item 5 have none."""
    generator = torch.Generator().manual_seed(0)
    centres = 5 * torch.randn(8, 12, generator=generator)
    vectors = torch.cat([torch.zeros(1, 12), centres[GROUP] + 0.3 * torch.randn(N - 1, 12, generator=generator)])
    vectors[5] = 0
    return vectors


def histories():
    """Interactions of users who stay within a group of items, mostly; nobody meets item 5."""
    rng = np.random.default_rng(0)
    users, items = [], []
    for user in range(1, 121):
        for _ in range(15):
            group = user % 8 if rng.random() < 0.95 else rng.integers(8)
            item = 1 + group + 8 * rng.integers(20)
            if item != 5:
                users.append(user)
                items.append(item)
    return np.array(users), np.array(items), 121, N


WAYS = {
    "rkmeans": lambda tokens, seed=0: residual_kmeans(table(), tokens, C, seed),
    "pq": lambda tokens, seed=0: product_codes(table(), tokens, C, seed),
    "clusters": lambda tokens, seed=0: cluster_codes(*histories(), tokens, C, seed),
    "random": lambda tokens, seed=0: random_codes(seen_rows(table()), tokens, C, seed),
}


@pytest.mark.parametrize("way", WAYS)
def test_items_get_codes_and_rows_without_a_vector_none(way):
    codes = WAYS[way](3)
    assert codes.shape == (N, 3) and codes.dtype == torch.int64
    none = (codes == C).all(1)
    assert none.nonzero().squeeze(1).tolist() == [0, 5]
    assert codes[~none].min() == 0 and codes[~none].max() < C


@pytest.mark.parametrize("way", WAYS)
def test_equal_seeds_give_equal_codes(way):
    assert torch.equal(WAYS[way](2, seed=3), WAYS[way](2, seed=3))


@pytest.mark.parametrize("way", ["rkmeans", "pq", "random"])
def test_another_seed_gives_other_codes(way):
    assert not torch.equal(WAYS[way](2, seed=3), WAYS[way](2, seed=4))


def share_alike(way):
    """How often the first code of two items of one group is the same, and of two items of different groups."""
    codes = WAYS[way](3)[1:, 0]
    known = codes < C
    alike = (codes[:, None] == codes)[known][:, known]
    same = (GROUP[:, None] == GROUP)[known][:, known] & ~torch.eye(int(known.sum()), dtype=torch.bool)
    other = (GROUP[:, None] != GROUP)[known][:, known]
    return alike[same].double().mean(), alike[other].double().mean()


@pytest.mark.parametrize("way", ["rkmeans", "pq", "clusters"])
def test_similar_items_share_the_first_code(way):
    within, across = share_alike(way)
    assert within > 0.7 and across < 0.25


def test_random_codes_know_nothing_of_similarity():
    within, across = share_alike("random")
    assert within < 0.2 and across < 0.2


# residual k-means


def test_residual_kmeans_takes_a_sum_of_codewords_apart():
    """A table of all sums of a large, a middle and a small step has one code a step on every level."""
    steps = torch.cartesian_prod(*[torch.arange(3)] * 3)  # [27, 3]
    vectors = torch.cat([torch.zeros(1, 3), torch.tensor([100.0, 10.0, 1.0]) * (steps - 1.0) + 1e-3])
    codes = residual_kmeans(vectors, 3, 3)[1:]
    for level in range(3):
        pairs = torch.stack([steps[:, level], codes[:, level]], dim=1)
        assert len(codes[:, level].unique()) == 3 and len(pairs.unique(dim=0)) == 3
    assert len(codes.unique(dim=0)) == 27


def test_fewer_items_than_codes():
    vectors = torch.cat([torch.zeros(1, 4), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))])
    assert sorted(residual_kmeans(vectors, 2, 8)[1:, 0].tolist()) == [0, 1, 2]
    assert (product_codes(vectors, 2, 8)[1:] < 3).all()


# product quantisation


def test_codes_of_a_product_are_made_of_parts():
    """Every part alone tells the groups apart, for the rotation gives each a share of what differs."""
    codes = product_codes(table(), 3, C)
    for level in range(3):
        pairs = torch.stack([GROUP, codes[1:, level]], dim=1)[codes[1:, level] < C]
        most = sum(int(torch.bincount(pairs[pairs[:, 0] == group, 1]).max()) for group in range(8))
        assert most / len(pairs) > 0.6


def test_first_columns_that_say_all_are_spread_over_the_parts():
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([10.0] * 3 + [0.0] * 9)
    vectors = torch.cat([torch.zeros(1, 12), torch.randn(200, 12, generator=generator) * scale])
    used = [len(column.unique()) for column in product_codes(vectors, 4, C)[1:].T]
    assert used == [C] * 4


def test_vectors_narrower_than_the_parts_are_refused():
    with pytest.raises(ValueError, match="width 2 cannot be split into 3 parts"):
        product_codes(torch.randn(5, 2), 3, C)


# clusters


def test_communities_get_first_codes_of_their_own():
    codes = cluster_codes(*histories(), 2, 13)[1:, 0]
    known = codes < 13
    assert len(codes[known].unique()) == 13  # the square root of 159, upwards
    for code in codes[known].unique():
        groups = torch.bincount(GROUP[codes == code])
        assert groups.max() / groups.sum() > 0.8


def test_clusters_split_into_equal_shares_of_what_is_left():
    """Three levels for 159 items: six, six and as many as there are; tuples are all different."""
    codes = cluster_codes(*histories(), 3, 64)
    known = codes[codes[:, 0] < 64]
    assert len(known[:, 0].unique()) == 6 and len(known.unique(dim=0)) == len(known) == 159


def test_no_cluster_has_more_parts_than_codes():
    codes = cluster_codes(*histories(), 2, 4)
    assert codes[codes < 4].max() == 3 and (codes.unique() == torch.arange(5)).all()


def test_few_items_are_each_a_cluster():
    users, items = np.array([1, 1, 2, 2, 3]), np.array([1, 2, 2, 3, 1])
    codes = cluster_codes(users, items, 4, 4, 1, C)
    assert sorted(codes[1:, 0].tolist()) == [0, 1, 2]


# the last code


def test_a_counter_numbers_items_of_equal_codes():
    codes = torch.tensor([[9, 9], [1, 2], [3, 4], [1, 2], [9, 9], [1, 2], [2, 1], [3, 4]])
    assert with_counter(codes, 9)[:, 2].tolist() == [9, 0, 0, 1, 9, 2, 0, 1]
    assert torch.equal(with_counter(codes, 9)[:, :2], codes)


@pytest.mark.parametrize("way", WAYS)
def test_with_a_counter_all_are_distinct(way):
    codes = with_counter(WAYS[way](1), 64)
    known = codes[codes[:, 0] < C]
    assert (codes.shape, len(known.unique(dim=0))) == ((N, 2), N - 2)
    for code in range(C):  # from 0 on, without gaps
        counter = known[known[:, 0] == code, 1]
        assert sorted(counter.tolist()) == [*range(len(counter))]


def test_a_counter_has_no_more_numbers_than_there_are_codes():
    codes = torch.tensor([[4]] + [[1]] * 4)
    assert with_counter(codes, 4)[1:, 1].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="5 items have the same codes, and a last code tells only 4 apart"):
        with_counter(torch.cat([codes, codes[1:2]]), 4)


def test_nobody_with_codes_needs_no_counter():
    assert with_counter(torch.full((3, 2), 4), 4).tolist() == [[4] * 3] * 3


# report


def test_the_report_counts_what_is_used():
    codes = torch.tensor([[4, 4], [0, 0], [0, 1], [1, 0], [1, 0], [2, 0], [4, 4]])
    report = identifier_report(codes, 4)
    assert report["items"] == 5 and report["codes_in_use"] == [0.75, 0.5] and report["collisions"] == pytest.approx(0.4)
    shares = [np.array([2, 2, 1]) / 5, np.array([4, 1]) / 5]
    assert report["perplexity"] == pytest.approx([np.exp(-(p * np.log(p)).sum()) / 4 for p in shares], abs=1e-4)


def test_the_report_of_distinct_and_even_codes():
    report = identifier_report(torch.cartesian_prod(torch.arange(4), torch.arange(4)), 4)
    assert report == {
        "items": 16,
        "codes_in_use": [1.0, 1.0],
        "perplexity": [1.0, 1.0],
        "beginnings": [0.25, 1.0],
        "collisions": 0.0,
    }


@pytest.mark.parametrize("n_tokens", [2, 3])
def test_items_that_stand_together_with_none_are_dealt_out(n_tokens):
    """Users of one training item each: their items have no co-occurrence to be clustered by."""
    rng = np.random.default_rng(0)
    users = np.concatenate([np.repeat(np.arange(1, 101), 8), 100 + np.arange(1, 121)])
    items = np.concatenate([rng.integers(1, 301, 800), 300 + np.arange(1, 121)])
    codes = cluster_codes(users, items, 221, 421, n_tokens, 64)
    together, alone = codes[torch.from_numpy(np.unique(items[:800]))], codes[301:]
    assert (codes[torch.from_numpy(np.unique(items))] < 64).all()
    assert len(alone[:, 0].unique()) > 5 and len(together[:, 0].unique()) > 5


def test_clusters_are_those_of_the_whole_cooccurrence():
    """Without forming it: the eigenvectors against those of the dense matrix."""
    from recbole_contrec.tokenizer.identifiers import _leading_vectors

    matrix = scipy.sparse.random(200, 90, 0.1, random_state=0, format="csc")
    dense = (matrix.T @ matrix).toarray()
    own = np.diag(dense).copy()
    found = _leading_vectors(matrix, own, 4, 0)
    values, vectors = np.linalg.eigh(dense - np.diag(own))
    np.testing.assert_allclose(np.abs(np.linalg.svd(found.T @ vectors[:, -4:])[1]), 1, atol=1e-3)
