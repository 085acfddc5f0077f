"""Collaborative vectors of users and items: computed from interactions, or read from a file.

Axes: ``U`` users, ``N`` items, ``d`` width of a vector, ``n`` interactions. Row 0 of users and of items is
the padding entry; its vector is zero and no statistic counts it. The same holds for an entity without a
vector: a row of zeros means "nothing is known", and it stays zero.

Pass *training* interactions only. A vector that has seen a validation or test pair carries the answer into the
model (the released ContRec code trains its LightGCN on rows that hold both).
"""

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.linalg import svds
from torch import Tensor

# Up to this many users or items on the smaller side, the Gram matrix of that side is decomposed exactly.
SMALL_SIDE = 256


class CollaborativeVectors(NamedTuple):
    """``users`` [U, d] and ``items`` [N, d], float32, row 0 zero; their inner product scores a pair."""

    users: Tensor
    items: Tensor


class LoadedVectors(NamedTuple):
    """``vectors`` [N, d] float32 in the order asked for; ``missing`` tokens have a row of zeros."""

    vectors: Tensor
    missing: int


def svd_vectors(
    users: np.ndarray, items: np.ndarray, n_users: int, n_items: int, size: int, seed: int = 0
) -> CollaborativeVectors:
    """Truncated SVD of the normalised interaction matrix, ``D_u^-1/2 R D_i^-1/2 ~ P S Q^T``.

    The normalisation is LightGCN's (He et al., SIGIR 2020), so the leading singular vectors are the signals
    that its propagation keeps; here they come in closed form and in seconds. Both sides share the
    singular values: users are ``P sqrt(S)``, items ``Q sqrt(S)``.

    Args:
        users: [n] int, user of each training interaction; entry 0 is padding and is ignored.
        items: [n] int, item of each training interaction; a pair given twice counts once.
        n_users, n_items: table sizes U and N, the padding entry included.
        size: width d; columns beyond the rank of the matrix are zero.
        seed: start vector of the iteration. Equal arguments give equal vectors.

    Raises:
        ValueError: lengths differ, a number is out of range, or no interaction is left.
    """
    if size < 1:
        raise ValueError(f"the width of collaborative vectors must be at least 1, not {size}")
    matrix = interaction_matrix(users, items, n_users, n_items)  # [U, N]
    if matrix.nnz == 0:
        raise ValueError("no training interaction is left: collaborative vectors need at least one user-item pair")
    scale_users = _inverse_root(matrix.sum(axis=1))  # [U]
    scale_items = _inverse_root(matrix.sum(axis=0))  # [N]
    normalised = (scipy.sparse.diags(scale_users) @ matrix @ scipy.sparse.diags(scale_items)).tocsr()

    left, values, right = _leading_singular_vectors(normalised, min(size, min(matrix.shape) - 1), seed)
    root = np.sqrt(values)
    # Where nothing is known the decomposition leaves rounding errors, which would pass for a vector.
    left, right = left * (scale_users > 0)[:, None], right * (scale_items > 0)[:, None]
    return CollaborativeVectors(_table(left * root, size), _table(right * root, size))


def history_means(users: np.ndarray, items: np.ndarray, item_vectors: Tensor, n_users: int) -> Tensor:
    """Mean vector of each user's training items, for when only items have vectors.

    Args:
        users, items: [n] int, training interactions; a pair given twice counts once.
        item_vectors: [N, d]; items without a vector (zero rows) are skipped, not averaged in as zeros.
        n_users: table size U, the padding entry included.

    Returns:
        [U, d] float32; zero for users none of whose items has a vector.
    """
    known = seen_rows(item_vectors).cpu().numpy()  # [N]
    matrix = interaction_matrix(users, items, n_users, len(known)) @ scipy.sparse.diags(known.astype(np.float64))
    counts = np.asarray(matrix.sum(axis=1)).ravel()  # [U]
    sums = matrix @ item_vectors.detach().cpu().numpy().astype(np.float64)  # [U, d]
    return torch.from_numpy((sums / np.maximum(counts, 1)[:, None]).astype(np.float32))


def standardise(x: Tensor, skip_first: bool = True) -> Tensor:
    """Centre the rows that carry a vector, then divide by one scale for all columns.

    One scale and not one a column: the columns of an SVD are ordered by how much they explain, and
    giving each unit variance would lift the last, noisiest directions to the weight of the first in every
    squared error and cosine that follows. Columns that never vary (padding of the SVD) do not enter
    the scale, so that the mean variance of the others is 1.

    Args:
        x: [N, d]; rows of zeros stay zero and enter no statistic.
        skip_first: treat row 0 as padding whatever it holds.
    """
    rows = seen_rows(x, skip_first)  # [N]
    result = torch.zeros_like(x, dtype=torch.float32)
    if not rows.any():
        return result
    centred = x[rows].double()
    centred = centred - centred.mean(dim=0)
    variance = centred.square().mean(dim=0)  # [d]
    varies = variance > 1e-12 * variance.max()
    if varies.any():
        result[rows] = (centred / variance[varies].mean().sqrt()).float()
    return result


def seen_rows(x: Tensor, skip_first: bool = True) -> Tensor:
    """Which rows of ``x`` [N, d] carry a vector: [N] bool, false for rows of zeros and for padding row 0."""
    rows = (x != 0).any(dim=1)  # [N]
    if skip_first:
        rows[:1] = False
    return rows


def interaction_matrix(users: np.ndarray, items: np.ndarray, n_users: int, n_items: int) -> scipy.sparse.csr_matrix:
    """Binary sparse [U, N] matrix of interactions, without row and column 0."""
    users, items = np.asarray(users, dtype=np.int64), np.asarray(items, dtype=np.int64)
    if users.ndim != 1 or users.shape != items.shape:
        raise ValueError(f"users {users.shape} and items {items.shape} must be two lists of one length")
    for name, numbers, limit in (("user", users, n_users), ("item", items, n_items)):
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < limit:
            found = f"from {numbers.min()} to {numbers.max()}"
            raise ValueError(f"{name} numbers run {found}: they must lie in [0, {limit})")
    real = (users > 0) & (items > 0)
    pairs = (users[real], items[real])
    matrix = scipy.sparse.csr_matrix((np.ones(len(pairs[0])), pairs), shape=(n_users, n_items))
    matrix.data[:] = 1.0  # repeated pairs were summed
    return matrix


def load_vectors(path: str | Path, tokens: Sequence[str]) -> LoadedVectors:
    """Read item vectors keyed by item token.

    Beside ``vectors.npy`` of shape [rows, d] lies ``vectors.tokens.txt`` (UTF-8) with one item token a line, in row
    order. No pickled object is ever executed.

    Args:
        path: the ``.npy`` file.
        tokens: [N] item tokens in the order wanted; ``tokens[0]`` is the padding token, whose row is zero.

    Returns:
        Rows aligned to ``tokens``, and how many tokens the file does not hold (a warning says so too).

    Raises:
        FileNotFoundError: either file is missing.
        ValueError: not a plain array of numbers [rows, d], non-finite values, tokens that do not match the rows,
            are repeated, or have nothing in common with ``tokens``.
    """
    path = Path(path)
    vectors = _as_vectors(path, read_rows(path))  # [rows, d]
    row_of = {token: row for row, token in enumerate(read_tokens(path.with_suffix(".tokens.txt"), len(vectors)))}
    rows = np.array([-1] + [row_of.get(token, -1) for token in tokens[1:]])  # [N]
    found = rows >= 0
    if not found.any():
        raise ValueError(
            f"{path} and the data set have no item token in common: "
            f"the file has e.g. {next(iter(row_of), '')!r}, the data set e.g. {tokens[-1]!r}"
        )
    aligned = np.zeros((len(rows), vectors.shape[1]), dtype=np.float32)  # [N, d]
    aligned[found] = vectors[rows[found]]
    missing = len(rows) - 1 - int(found.sum())
    if missing:
        warnings.warn(f"{path} has no vector for {missing} of {len(rows) - 1} items; theirs are zero", stacklevel=2)
    return LoadedVectors(torch.from_numpy(aligned), missing)


def save_vectors(path: str | Path, tokens: Sequence[str], vectors: Tensor) -> None:
    """Write item vectors as :func:`load_vectors` reads them; both files appear when both are complete.

    Args:
        path: the ``.npy`` file.
        tokens: [rows] item tokens.
        vectors: [rows, d].

    Raises:
        ValueError: the path has another ending.
        OSError: it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".npy":
        raise ValueError(f"{path}: the name of a vector file ends in .npy")
    names = path.with_suffix(".tokens.txt")
    parts = [file.with_name(f"{file.name}.{os.getpid()}.part") for file in (path, names)]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with parts[0].open("wb") as file:  # given a name, numpy would add its ending
            np.save(file, vectors.detach().cpu().numpy())
        parts[1].write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8", newline="\n")
        for part, place in zip(parts, (path, names)):
            os.replace(part, place)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def read_rows(path: Path, kinds: str = "fiu") -> np.ndarray:
    """The numbers of a ``.npy`` file [rows, columns], at least one column. No pickled object is ever executed.

    Args:
        kinds: of numbers that may stand there, by numpy's letters: ``iu`` for whole ones alone.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: no such array; says why.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no vector file {path}: give the path of a .npy file of shape [rows, d]")
    try:
        array = np.load(path, allow_pickle=False)
    except (
        Exception
    ) as error:  # a damaged header is parsed as Python, a damaged archive unpacked: anything may come of it
        why = " ".join(str(error).split())
        raise ValueError(f"{path} is not a .npy array of numbers: write it with numpy.save ({why:.150})") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
        wanted = "real numbers: write it with numpy.save, as float32" if "f" in kinds else "whole numbers (int64)"
        raise ValueError(f"{path} is not one array of {wanted}")
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{path} has shape {array.shape}: it must be [rows, d], one row an item")
    return array


def read_tokens(path: Path, rows: int | None = None) -> list[str]:
    """The item tokens of a file, one a line.

    Args:
        rows: how many there must be; None for any number.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: no UTF-8, another number of tokens, or one of them twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no token file {path}: write one item token a line, in the order of the rows")
    try:
        # Not str.splitlines, which would also break at characters that may stand inside a token.
        lines = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=None).read().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8 ({error.reason})") from None
    if lines[-1] == "":
        lines.pop()
    if rows is not None and len(lines) != rows:
        raise ValueError(f"{path} has {len(lines)} tokens but the array has {rows} rows: they must correspond")
    if twice := len(lines) - len(set(lines)):
        raise ValueError(f"{path} names {twice} tokens twice: keep one row an item")
    return lines


def _as_vectors(path: Path, array: np.ndarray) -> np.ndarray:
    """Rows in single precision, all of them finite."""
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf and is reported below
        vectors = array.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ValueError(f"{path} has NaN or infinite values in {len(bad)} rows, first in row {bad[0]}: remove them")
    return vectors


def _leading_singular_vectors(
    matrix: scipy.sparse.csr_matrix, k: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left [U, k], values [k] falling, right [N, k]; the largest item entry of every column is positive."""
    if min(matrix.shape) <= SMALL_SIDE:
        left, values, right = _exact_singular_vectors(matrix, k)
    else:
        start = np.random.default_rng(seed).standard_normal(min(matrix.shape))
        left, values, right = svds(matrix, k=k, v0=start)
        left, values, right = left[:, ::-1], values[::-1], right[::-1].T
    values = np.where(values > 1e-10 * values[0], values, 0.0)  # beyond the rank only rounding is left
    peak = np.abs(right).argmax(axis=0)  # [k]
    sign = np.where(right[peak, np.arange(k)] < 0, -1.0, 1.0)
    return left * sign, values, right * sign


def _exact_singular_vectors(matrix: scipy.sparse.csr_matrix, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # ARPACK, on which svds rests, restarts at random when its Krylov space is exhausted. That happens on small
    # matrices only (few distinct singular values), and equal seeds then gave different vectors.
    wide = matrix.shape[0] < matrix.shape[1]
    tall = matrix.T if wide else matrix  # [long, short]
    basis = np.linalg.eigh((tall.T @ tall).toarray())[1][:, : -k - 1 : -1]  # [short, k]
    left, values, rotation = np.linalg.svd(tall @ basis, full_matrices=False)
    right = basis @ rotation.T
    return (right, values, left) if wide else (left, values, right)


def _inverse_root(degree: np.ndarray) -> np.ndarray:
    degree = np.asarray(degree, dtype=np.float64).ravel()
    return np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)


def _table(vectors: np.ndarray, size: int) -> Tensor:
    padded = np.zeros((len(vectors), size), dtype=np.float32)
    padded[:, : vectors.shape[1]] = vectors
    padded[0] = 0.0
    return torch.from_numpy(padded)
