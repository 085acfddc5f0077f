"""Metrics of coverage and popularity, computed anew from the lists that a run recommends and from the atomic file."""

import math
from collections import Counter

import numpy as np
import pytest
from recbole.evaluator.metrics import ShannonEntropy

from recbole_contrec.training.metrics import MENDED, Entropy

K = 5


def training_counts(loaded):
    """How often each item occurs before the last two of every history. RecBole takes from a history of three, which
    makes two rows of a sequential model, the last alone."""
    sequential = loaded.config["MODEL_TYPE"].name == "SEQUENTIAL"
    histories = loaded.data.dataset.all_interactions.by_user().values()
    return Counter(
        item for items in histories for item in items[: 2 if sequential and len(items) == 3 else -2].tolist()
    )


@pytest.fixture(params=["SASRec", "SASRecAll", "BPR"])
def lists(request, assembled):
    """A model's evaluation, its lists of K items, and the names of the training interactions."""
    loaded = assembled(
        request.param,
        "--metrics=['NDCG','ShannonEntropy','ItemCoverage','GiniIndex','AveragePopularity','TailPercentage']",
        f"--topk=[{K}]",
        f"--valid_metric=NDCG@{K}",
    )
    held = {}
    compute = loaded.trainer.evaluator.evaluate
    loaded.trainer.evaluator.evaluate = lambda found: (
        held.update(items=found.get("rec.items").numpy()) or compute(found)
    )
    result = loaded.trainer.evaluate(loaded.data.test, load_best_model=False)
    return result, held["items"][:, :K], training_counts(loaded), loaded.data.dataset.item_num - 1


def test_entropy_is_a_sum(lists):
    result, items, _, _ = lists
    share = np.array(list(Counter(items.ravel().tolist()).values())) / items.size
    assert result[f"shannonentropy@{K}"] == pytest.approx(-(share * np.log(share)).sum(), abs=6e-5)


def test_the_padding_is_no_item_of_the_catalogue(lists):
    result, items, _, n_items = lists
    counts = Counter(items.ravel().tolist())
    assert result[f"itemcoverage@{K}"] == pytest.approx(len(counts) / n_items, abs=6e-5)
    ordered = np.sort([counts.get(item, 0) for item in range(1, n_items + 1)])
    places = np.arange(1, n_items + 1)
    gini = ((2 * places - n_items - 1) * ordered).sum() / (n_items * ordered.sum())
    assert result[f"giniindex@{K}"] == pytest.approx(gini, abs=6e-5)


def test_popularity_counts_whole_training_histories(lists):
    result, items, counts, _ = lists
    popularity = np.vectorize(lambda item: counts.get(item, 0))(items)
    assert result[f"averagepopularity@{K}"] == pytest.approx(popularity.mean(), abs=6e-5)
    tail = sorted(counts, key=lambda item: (counts[item], item))[: max(int(len(counts) * 0.1), 1)]
    assert result[f"tailpercentage@{K}"] == pytest.approx(np.isin(items, tail).mean(), abs=6e-5)


def test_entropy_at_its_bounds():
    config = {"topk": [2], "metric_decimal_place": 4}
    assert Entropy(config).get_entropy(np.array([[3, 3], [3, 3]])) == 0
    assert Entropy(config).get_entropy(np.arange(8).reshape(4, 2)) == pytest.approx(math.log(8))
    assert ShannonEntropy(config).get_entropy(np.arange(8).reshape(4, 2)) < 1  # RecBole's fault is still there


def test_what_differs_from_recbole_is_said(assembled, caplog):
    caplog.set_level("INFO")
    caplog.set_level("INFO", "recbole_contrec")
    assert assembled("SASRec", "--metrics=['NDCG','GiniIndex']").trainer
    assert MENDED["giniindex"] in caplog.text and MENDED["shannonentropy"] not in caplog.text


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_pop_counts_every_interaction(assembled, size):
    loaded = assembled("Pop", f"--train_batch_size={size}", "--epochs=1")
    loaded.trainer.fit(loaded.data.train, show_progress=False, saved=False)
    counts = training_counts(loaded)
    found = loaded.trainer.model.item_cnt[:, 0].tolist()
    assert found == [counts.get(item, 0) for item in range(len(found))]
