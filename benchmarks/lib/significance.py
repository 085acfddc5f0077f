"""
benchmarks.lib.significance
###########################
Paired tests between two models on the same users.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap, t, wilcoxon

RESAMPLES_AT_ONCE = 10  # more do not stay in the cache of a processor


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


def hit(rank: np.ndarray, ties: np.ndarray, k: int = 10) -> np.ndarray:
    """Whether one target a user is among the first k, [n]; ties as in :func:`ndcg`."""
    return (rank + ties / 2 <= k).astype(float)


def of_users(
    ranks: dict[str, np.ndarray],
    users: np.ndarray,
    k: int = 10,
    value: Callable[[np.ndarray, np.ndarray, int], np.ndarray] = ndcg,
) -> np.ndarray:
    """NDCG@k of some users [n], in their order; the mean where a split gives a user several targets.

    Args:
        ranks: ``user``, ``rank`` and ``ties`` of a run.
        users: names [n].
        value: of a target, in place of NDCG.

    Raises:
        ValueError: the run did not test one of them.
    """
    names, which = np.unique(ranks["user"], return_inverse=True)
    found = np.searchsorted(names, users).clip(max=len(names) - 1)  # [n]
    if (names[found] != users).any():
        raise ValueError("the runs tested different users")
    return (np.bincount(which, value(ranks["rank"], ranks["ties"], k)) / np.bincount(which))[found]


def mean_over_seeds(
    seeds: Sequence[dict[str, np.ndarray]],
    users: np.ndarray,
    k: int = 10,
    value: Callable[[np.ndarray, np.ndarray, int], np.ndarray] = ndcg,
) -> np.ndarray:
    """NDCG@k of every user [n], averaged over runs.

    Args:
        seeds: ``user``, ``rank`` and ``ties`` of every run.
        users: names [n], in the order wanted.
        value: of a target, in place of NDCG.

    Raises:
        ValueError: a run tested other users.
    """
    if any(len(np.unique(ranks["user"])) != len(users) for ranks in seeds):
        raise ValueError("the runs tested different users")
    return np.mean([of_users(ranks, users, k, value) for ranks in seeds], axis=0)


def compare(model: np.ndarray, baseline: np.ndarray, resamples: int = 10_000, seed: int = 0) -> Comparison:
    """Test the difference between two arrays of per-user values [n] in the same order of users."""
    return compare_all([model], baseline, resamples, seed)[0]


def compare_all(
    models: Sequence[np.ndarray], baseline: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> list[Comparison]:
    """:func:`compare` of several models, each [n], with one baseline [n]. They share the resamples of the users, which
    depend on their number and the seed alone."""
    differences = [model - baseline for model in models]
    changed = [difference for difference in differences if difference.any()]
    intervals = iter(_intervals(np.stack(changed), resamples, seed) if changed else [])
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


def _intervals(samples: np.ndarray, resamples: int, seed: int) -> list[tuple[float, float]]:
    """95 % percentile bootstrap intervals of the means of some samples [rows, n], over the same draws."""
    found = bootstrap(
        (samples,),
        np.mean,
        n_resamples=resamples,
        method="percentile",
        axis=-1,
        vectorized=True,
        batch=RESAMPLES_AT_ONCE,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return list(zip(found.low.tolist(), found.high.tolist()))


def interval_over_seeds(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Interval of the mean over seeds, by Student's t: what other seeds would give. None for a single seed."""
    if len(values) < 2:
        return None
    middle = float(np.mean(values))
    half = float(t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return middle - half, middle + half


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction for several tests, in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [math.nan] * len(p_values), 0.0
    for done, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - done) * p_values[i]))
        corrected[i] = highest
    return corrected
