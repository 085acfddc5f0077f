"""Paired tests on known numbers."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from benchmarks.lib import significance


def test_ndcg_of_one_target():
    found = significance.ndcg(np.array([1, 2, 10, 11, 9]), np.array([0, 0, 0, 0, 4]))
    np.testing.assert_allclose(found, [1, 1 / math.log2(3), 1 / math.log2(11), 0, 0])


def test_users_are_matched_by_name_and_seeds_averaged():
    first = {"user": np.array(["b", "a"]), "rank": np.array([1, 50]), "ties": np.zeros(2)}
    second = {"user": np.array(["a", "b"]), "rank": np.array([1, 50]), "ties": np.zeros(2)}
    np.testing.assert_allclose(significance.mean_over_seeds([first, second], np.array(["a", "b"])), [0.5, 0.5])
    np.testing.assert_allclose(significance.mean_over_seeds([first], np.array(["a", "b"])), [0, 1])
    with pytest.raises(ValueError, match="different users"):
        significance.mean_over_seeds([first], np.array(["a", "c"]))


def test_a_user_with_several_targets_counts_once_with_their_mean():
    """As splits by ratio give them; runs may have them in different orders."""
    first = {"user": np.array(["a", "b", "a"]), "rank": np.array([1, 1, 50]), "ties": np.zeros(3)}
    second = {name: column[::-1] for name, column in first.items()}
    for ranks in (first, second):
        np.testing.assert_allclose(significance.mean_over_seeds([ranks], np.array(["a", "b"])), [0.5, 1])


def test_a_difference_is_found_and_noise_is_not():
    rng = np.random.default_rng(0)
    baseline = rng.random(2000)
    better = significance.compare(baseline + 0.05 + 0.1 * rng.standard_normal(2000), baseline)
    assert better.low < 0.05 < better.high and better.low > 0.04 and better.p_value < 1e-6
    same = significance.compare(baseline + 0.1 * rng.standard_normal(2000), baseline)
    assert same.low < 0 < same.high and same.p_value > 0.01
    assert significance.compare(baseline, baseline) == (0, 0, 0, 1)


def test_the_interval_is_the_percentile_bootstrap_whoever_is_tested_beside():
    rng = np.random.default_rng(1)
    baseline = rng.random(300)
    models = [baseline + shift * rng.standard_normal(300) for shift in (0.1, 0.0, 0.3)]
    found = significance.compare_all(models, baseline)
    np.testing.assert_allclose(found, [significance.compare(model, baseline) for model in models], rtol=1e-12)
    assert found[1] == (0, 0, 0, 1)
    wanted = bootstrap(
        (models[2] - baseline,),
        np.mean,
        n_resamples=10_000,
        batch=1000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (found[2].low, found[2].high) == pytest.approx(tuple(wanted), abs=1e-12)


def test_holm_multiplies_the_smallest_most_and_stays_in_order():
    assert significance.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert significance.holm([0.9, 0.6]) == [1.0, 1.0]
