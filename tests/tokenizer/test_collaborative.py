"""Vectors of users and items from interactions, and those of a file."""

import numpy as np
import pytest
import torch

from recbole_contrec.tokenizer import history_means, load_vectors, seen_rows, standardise, svd_vectors


def interactions(n_users, n_items, density, seed=0):
    matrix = np.random.default_rng(seed).random((n_users, n_items)) < density
    matrix[0] = matrix[:, 0] = False
    return matrix, *np.nonzero(matrix)


# Below and above the limit at which svds takes over, with more users than items and with fewer.
@pytest.mark.parametrize("shape, density", [((30, 20), 0.2), ((320, 300), 0.05), ((280, 330), 0.05), ((12, 40), 0.3)])
def test_svd_equals_dense_reference(shape, density):
    n_users, n_items = shape
    matrix, users, items = interactions(n_users, n_items, density)
    size = 6
    got = svd_vectors(users, items, n_users, n_items, size)

    degree_u, degree_i = matrix.sum(1, keepdims=True), matrix.sum(0, keepdims=True)
    dense = matrix / np.sqrt(np.maximum(degree_u, 1)) / np.sqrt(np.maximum(degree_i, 1))
    left, values, right = np.linalg.svd(dense)
    for vectors, basis in ((got.users, left[:, :size]), (got.items, right[:size].T)):
        assert vectors.dtype == torch.float32
        np.testing.assert_allclose(vectors.abs().numpy(), np.abs(basis * np.sqrt(values[:size])), atol=1e-5)
        assert vectors[0].abs().sum() == 0
    best = (left[:, :size] * values[:size]) @ right[:size]  # signs of both sides agree
    np.testing.assert_allclose((got.users @ got.items.T).numpy(), best, atol=1e-5)
    peaks = got.items[got.items.abs().argmax(0), torch.arange(size)]
    assert (peaks > 0).all()


def test_svd_counts_a_pair_once_and_ignores_padding():
    _, users, items = interactions(30, 20, 0.2)
    once = svd_vectors(users, items, 30, 20, 5)
    more = svd_vectors(np.r_[users, users[:9], 0, 3], np.r_[items, items[:9], 4, 0], 30, 20, 5)
    assert torch.equal(once.users, more.users) and torch.equal(once.items, more.items)


def test_svd_pads_columns_beyond_the_rank():
    _, users, items = interactions(9, 7, 0.5)
    got = svd_vectors(users, items, 9, 7, 32)
    assert got.users.shape == (9, 32) and got.items.shape == (7, 32)
    assert got.items[:, :3].abs().sum(0).min() > 0 and got.items[:, 6:].abs().sum() == 0


@pytest.mark.parametrize("blocks", [4, 200])  # equal singular values, below and above the limit of the exact path
def test_svd_is_deterministic(blocks):
    matrix = np.kron(np.eye(blocks), np.ones((2, 2)))
    users, items = (index + 1 for index in np.nonzero(matrix))
    state = np.random.get_state()[1].copy()
    runs = [svd_vectors(users, items, 2 * blocks + 1, 2 * blocks + 1, 6, seed=3).items for _ in range(3)]
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])
    assert (np.random.get_state()[1] == state).all()


def test_svd_knows_only_the_pairs_it_is_given():
    matrix, users, items = interactions(30, 20, 0.2)
    u, i = next((u, i) for u in range(1, 30) for i in range(1, 20) if not matrix[u, i])  # planted validation pair
    before = svd_vectors(users, items, 30, 20, 5)
    leaked = svd_vectors(np.r_[users, u], np.r_[items, i], 30, 20, 5)
    after = svd_vectors(users, items, 30, 20, 5)
    assert torch.equal(before.items, after.items) and torch.equal(before.users, after.users)
    assert not torch.allclose(before.items, leaked.items, atol=1e-4)  # so a leak would have shown


def test_what_has_no_interaction_has_no_vector():
    """Exactly none: rounding errors would pass for a vector."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(1, 30, 200), rng.integers(1, 20, 200)
    found = svd_vectors(users[items != 7], items[items != 7], 32, 20, 6)
    assert not found.items[7].any() and not found.users[31].any()
    assert found.items[6].any() and found.users[29].any()


@pytest.mark.parametrize(
    "users, items, message",
    [
        ([1, 2], [1], "one length"),
        ([1, 9], [1, 1], "user numbers"),
        ([1], [-1], "item numbers"),
        ([0], [0], "no training"),
    ],
)
def test_svd_rejects_bad_interactions(users, items, message):
    with pytest.raises(ValueError, match=message):
        svd_vectors(users, items, 3, 3, 2)


def test_standardise_uses_one_scale_and_leaves_unseen_rows():
    x = torch.randn(2000, 3) * torch.tensor([5.0, 1.0, 0.0]) + torch.tensor([3.0, -2.0, 0.0])
    x[0], x[7] = 9.0, 0.0
    y = standardise(x)
    seen = seen_rows(x)
    assert not y[0].any() and not y[7].any() and not seen[0] and not seen[7] and seen.sum() == 1998
    torch.testing.assert_close(y[seen].mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    variance = y[seen].var(0, unbiased=False)
    assert variance[:2].mean() == pytest.approx(1, abs=1e-4)  # the dead column does not count
    assert variance[0] / variance[1] == pytest.approx(25, rel=0.2)  # relative weight of columns is kept
    assert standardise(x, skip_first=False)[0].any()
    assert not standardise(torch.zeros(4, 2)).any()


def test_history_means():
    vectors = torch.tensor([[8.0, 8], [1, 2], [3, 4], [0, 0]])  # row 0 padding, item 3 without a vector
    users, items = [1, 1, 1, 1, 2, 0], [1, 2, 2, 3, 3, 1]
    means = history_means(users, items, vectors, n_users=4)
    torch.testing.assert_close(means, torch.tensor([[0.0, 0], [2, 3], [0, 0], [0, 0]]))


def write_vectors(folder, vectors, tokens):
    np.save(folder / "v.npy", vectors)
    (folder / "v.tokens.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return folder / "v.npy"


def test_load_vectors_aligns_rows(tmp_path):
    path = write_vectors(tmp_path, np.arange(8.0).reshape(4, 2), ["c", "a b", "é\u2028x", "[PAD]"])
    with pytest.warns(UserWarning, match="1 of 4"):
        got = load_vectors(str(path), ["[PAD]", "a b", "zz", "c", "é\u2028x"])
    assert got.missing == 1 and got.vectors.dtype == torch.float32
    assert got.vectors.tolist() == [[0, 0], [2, 3], [0, 0], [0, 1], [4, 5]]


@pytest.mark.parametrize(
    "vectors, tokens, message",
    [
        (np.ones((2, 2)), ["a"], "1 tokens but the array has 2 rows"),
        (np.ones(2), ["a", "b"], "must be .rows, d."),
        (np.array([[1, np.nan], [1, 1]]), ["a", "b"], "row 0"),
        (np.array([[1, 1], [1e300, 1]]), ["a", "b"], "row 1"),
        (np.ones((2, 2)), ["x", "[PAD]"], "no item token in common"),
        (np.ones((2, 2)), ["a", "a"], "twice"),
        (np.array([["a"]]), ["a"], "real numbers"),
        (np.array([[{}]], dtype=object), ["a"], "numpy.save"),  # a pickle is never opened
    ],
)
def test_load_vectors_rejects(tmp_path, vectors, tokens, message):
    path = write_vectors(tmp_path, vectors, tokens)
    with pytest.raises(ValueError, match=message) as caught:
        load_vectors(path, ["[PAD]", "a", "b"])
    assert "\n" not in str(caught.value)


def test_load_vectors_names_the_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="v.npy"):
        load_vectors(tmp_path / "v.npy", ["[PAD]", "a"])
    np.save(tmp_path / "v.npy", np.ones((1, 2)))
    with pytest.raises(FileNotFoundError, match="v.tokens.txt"):
        load_vectors(tmp_path / "v.npy", ["[PAD]", "a"])
    (tmp_path / "v.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="numpy.save"):
        load_vectors(tmp_path / "v.npy", ["[PAD]", "a"])
