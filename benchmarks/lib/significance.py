"""
benchmarks.lib.significance
###########################
Paired tests between two models on the same users.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.stats import wilcoxon

RESAMPLES_AT_ONCE, PLACES_AT_ONCE = 20, 256  # so that what is counted and summed stays in the processor's cache
KEPT = 300_000_000  # bytes of counts at once, at most


class Comparison(NamedTuple):
    """A model against a baseline, over users."""

    difference: float  # mean NDCG of the model minus that of the baseline
    low: float  # 95 % bootstrap interval of the difference
    high: float
    p_value: float  # Wilcoxon signed-rank test, two-sided


def ndcg(rank: np.ndarray, ties: np.ndarray, k: int = 10) -> np.ndarray:
    """NDCG@k of one target a user, [n]. Items that tie with the target stand half before it and half behind it."""
    place = rank + ties / 2
    return np.where(place <= k, 1 / np.log2(place + 1), 0.0)


def of_users(ranks: dict[str, np.ndarray], users: np.ndarray, k: int = 10) -> np.ndarray:
    """NDCG@k of some users [n], in their order; the mean where a split gives a user several targets.

    Args:
        ranks: ``user``, ``rank`` and ``ties`` of a run.
        users: names [n].

    Raises:
        ValueError: the run did not test one of them.
    """
    names, which = np.unique(ranks["user"], return_inverse=True)
    found = np.searchsorted(names, users).clip(max=len(names) - 1)  # [n]
    if (names[found] != users).any():
        raise ValueError("the runs tested different users")
    return (np.bincount(which, ndcg(ranks["rank"], ranks["ties"], k)) / np.bincount(which))[found]


def mean_over_seeds(seeds: Sequence[dict[str, np.ndarray]], users: np.ndarray, k: int = 10) -> np.ndarray:
    """NDCG@k of every user [n], averaged over runs.

    Args:
        seeds: ``user``, ``rank`` and ``ties`` of every run.
        users: names [n], in the order wanted.

    Raises:
        ValueError: a run tested other users.
    """
    if any(len(np.unique(ranks["user"])) != len(users) for ranks in seeds):
        raise ValueError("the runs tested different users")
    return np.mean([of_users(ranks, users, k) for ranks in seeds], axis=0)


def compare(model: np.ndarray, baseline: np.ndarray, resamples: int = 10_000, seed: int = 0) -> Comparison:
    """Test the difference between two arrays of per-user values [n] in the same order of users."""
    return compare_all([model], baseline, resamples, seed)[0]


def compare_all(
    models: Sequence[np.ndarray], baseline: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> list[Comparison]:
    """:func:`compare` of several models, each [n], with one baseline [n].

    The resamples of the users depend on their number and the seed alone, so all models share them: drawing is most of
    the work.
    """
    differences = [model - baseline for model in models]
    changed = [difference for difference in differences if difference.any()]
    intervals = iter(_intervals(changed, resamples, seed) if changed else [])
    return [
        Comparison(
            float(difference.mean()),
            *next(intervals),
            float(wilcoxon(difference, zero_method="wilcox").pvalue),
        )
        if difference.any()
        else Comparison(0.0, 0.0, 0.0, 1.0)
        for difference in differences
    ]


def _intervals(samples: Sequence[np.ndarray], resamples: int, seed: int) -> list[tuple[float, float]]:
    """95 % percentile bootstrap intervals of the means of some samples, each [n], over the same draws.

    A resample counts how often it drew each place: its mean is that of the sample weighted by the counts. Most places
    of a difference between two models are zero, and need no counts.
    """
    means = [[_means(sample, counts) for sample in samples] for counts in _draws(len(samples[0]), resamples, seed)]
    return [tuple(np.percentile(of_sample, (2.5, 97.5)).tolist()) for of_sample in np.concatenate(means, axis=1)]


def _means(sample: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means of a sample [n] over resamples [size], by the counts of the places [n, size]."""
    found, total = np.flatnonzero(sample), np.zeros(counts.shape[1])
    for start in range(0, len(found), PLACES_AT_ONCE):
        places = found[start : start + PLACES_AT_ONCE]
        total += sample[places] @ counts[places].astype(float)
    return total / len(sample)


def _draws(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often resamples of n places drew each of them, [n, size], all at once where memory allows."""
    if n * resamples <= KEPT:
        yield _kept(n, resamples, seed)
        return
    draw, size = np.random.default_rng(seed), max(1, KEPT // n)
    for start in range(0, resamples, size):
        yield _counts(draw, n, min(size, resamples - start))


@lru_cache(maxsize=3)
def _kept(n: int, resamples: int, seed: int) -> np.ndarray:
    """Tables of one data set have the same users, and so the same draws."""
    return _counts(np.random.default_rng(seed), n, resamples)


def _counts(draw: np.random.Generator, n: int, size: int) -> np.ndarray:
    counts = np.empty((n, size), dtype=np.uint8)  # no place is drawn 256 times
    for start in range(0, size, RESAMPLES_AT_ONCE):
        of = min(RESAMPLES_AT_ONCE, size - start)
        places = draw.integers(0, n, (of, n))
        places += n * np.arange(of)[:, None]
        counts[:, start : start + of] = np.bincount(places.ravel(), minlength=of * n).reshape(of, n).T
    return counts


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction for several tests, in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [math.nan] * len(p_values), 0.0
    for done, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - done) * p_values[i]))
        corrected[i] = highest
    return corrected
