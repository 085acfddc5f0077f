"""Two models on the same split, and whether their difference is more than chance.

    python examples/compare_models.py

``python -m benchmarks.compare`` does this for many models and seeds, with tables and pictures; here are its parts.
Each run leaves the rank of every user's test item beside its result.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

from recbole_contrec import run

SETTINGS = {"epochs": 2, "show_progress": False}  # leave the epochs out for a whole training


def ndcg_of_users(checkpoint: str, k: int = 10) -> np.ndarray:
    """NDCG@k of every test user; one item is right, so it is 1 / log2(rank + 1), or 0 beyond k."""
    tested = np.load(Path(checkpoint).parent / "test_ranks.npz")  # user, item, rank, ties
    ranks = tested["rank"][np.argsort(tested["user"])]
    return np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0)


def main() -> None:
    """Train both, print their metrics, and the interval of the difference."""
    values = {}
    for model in ("ContRec", "SASRecAll-svd"):
        result = run(model, "ml-100k", settings=SETTINGS, arguments=sys.argv[1:])
        values[model] = ndcg_of_users(result["checkpoint"])
        print(f"{model}: NDCG@10 {result['test_result']['ndcg@10']:.4f}, by users {values[model].mean():.4f}")
    difference = values["ContRec"] - values["SASRecAll-svd"]
    interval = bootstrap((difference,), np.mean, rng=0).confidence_interval
    print(f"difference {difference.mean():+.4f}, 95 % of it within {interval.low:+.4f} and {interval.high:+.4f}")


if __name__ == "__main__":
    main()
