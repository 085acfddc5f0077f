"""
benchmarks.lib.significance
###########################
Paired tests between two models on the same users.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap, wilcoxon


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
    """NDCG@k of some users [n], in their order.

    Args:
        ranks: ``user``, ``rank`` and ``ties`` of a run.
        users: names [n].

    Raises:
        ValueError: the run did not test one of them.
    """
    order = np.argsort(ranks["user"])
    found = order[np.searchsorted(ranks["user"], users, sorter=order).clip(max=len(order) - 1)]  # [n]
    if (ranks["user"][found] != users).any():
        raise ValueError("the runs tested different users")
    return ndcg(ranks["rank"][found], ranks["ties"][found], k)


def mean_over_seeds(seeds: Sequence[dict[str, np.ndarray]], users: np.ndarray, k: int = 10) -> np.ndarray:
    """NDCG@k of every user [n], averaged over runs.

    Args:
        seeds: ``user``, ``rank`` and ``ties`` of every run.
        users: names [n], in the order wanted.

    Raises:
        ValueError: a run tested other users.
    """
    if any(len(ranks["user"]) != len(users) for ranks in seeds):
        raise ValueError("the runs tested different users")
    return np.mean([of_users(ranks, users, k) for ranks in seeds], axis=0)


def compare(model: np.ndarray, baseline: np.ndarray, resamples: int = 10_000, seed: int = 0) -> Comparison:
    """Test the difference between two arrays of per-user values [n] in the same order of users."""
    difference = model - baseline
    if not difference.any():
        return Comparison(0.0, 0.0, 0.0, 1.0)
    interval = bootstrap(
        (difference,),
        np.mean,
        n_resamples=resamples,
        method="percentile",
        vectorized=True,
        batch=1000,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Comparison(
        float(difference.mean()),
        float(interval.low),
        float(interval.high),
        float(wilcoxon(difference, zero_method="wilcox").pvalue),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction for several tests, in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [math.nan] * len(p_values), 0.0
    for done, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - done) * p_values[i]))
        corrected[i] = highest
    return corrected
