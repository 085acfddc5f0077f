"""What a test recommends: groups of its targets, metrics of its lists, and the lists of some users."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.lib import lists
from recbole_contrec.data.interactions import Interactions

NAMES = np.array(["[PAD]", "a", "b", "c", "d", "e"])


def part(users, items):
    return SimpleNamespace(dataset=SimpleNamespace(inter_feat={"u": torch.tensor(users), "i": torch.tensor(items)}))


@pytest.fixture
def data():
    """Three users; the last item of each is the test target, the one before it the validation target. The third user
    has had the test target before, and nobody has had item 5 (e) in training."""
    histories = {1: [1, 2, 3, 1, 4], 2: [1, 1, 2, 5], 3: [1, 2, 3, 2]}
    users = np.repeat(list(histories), [len(items) for items in histories.values()])
    dataset = SimpleNamespace(
        user_num=4,
        item_num=6,
        uid_field="u",
        iid_field="i",
        all_interactions=Interactions(users, np.concatenate([np.array(items) for items in histories.values()])),
        field2id_token={"u": np.array(["[PAD]", "x", "y", "z"]), "i": NAMES},
        field2token_id={"u": {"x": 1, "y": 2, "z": 3}, "i": {name: place for place, name in enumerate(NAMES)}},
        id2token=lambda field, numbers: dataset.field2id_token[field][numbers],
        item_texts={"title": ["", "A", "", "C", "D", "E"]},
    )
    return run_data(dataset, part([1, 2, 3], [2, 1, 2]), part([1, 2, 3], [1, 2, 3]), part([1, 2, 3], [4, 5, 2]))


def run_data(dataset, train, valid, test):
    return SimpleNamespace(dataset=dataset, train_dataset=train.dataset, valid=valid, test=test)


@pytest.fixture
def at_moments(data):
    """Split at two moments: the first user has three test targets, the history of the second one begins in validation
    and that of the third in the test."""
    dataset = data.dataset
    dataset.all_interactions = Interactions(
        np.repeat([1, 2, 3], [6, 3, 2]), np.array([1, 2, 3, 4, 4, 3, 3, 1, 2, 5, 4])
    )
    return run_data(dataset, part([1], [2]), part([1, 2], [3, 1]), part([1, 1, 1, 2, 3], [4, 4, 3, 2, 4]))


def test_training_is_what_is_neither_validated_nor_tested(data):
    training = lists.Training.of(data)
    assert training.popularity.tolist() == [0, 4, 2, 1, 0, 0] and training.histories.tolist() == [0, 3, 2, 2]
    assert np.asarray(training.before_test.sum(axis=1)).ravel().tolist() == [0, 4, 3, 3]


def test_targets_have_popularity_and_history(data):
    users, items = lists.test_targets(data)
    assert users.tolist() == ["x", "y", "z"] and items.tolist() == ["d", "e", "b"]
    found = lists.targets(data, lists.Training.of(data), users[::-1], items[::-1])
    assert found["item"].tolist() == ["b", "e", "d"] and found["history"].tolist() == [2, 2, 3]
    assert found["popularity"].tolist() == [2, 0, 0] and found["seen"].tolist() == [True, False, False]
    assert found["above"] == pytest.approx([4 / 7, 1, 1])


def test_what_begins_after_the_moment_is_no_training(at_moments):
    training = lists.Training.of(at_moments)
    assert training.popularity.tolist() == [0, 1, 1, 0, 0, 0] and training.histories.tolist() == [0, 2, 0, 0]
    assert training.before_test.toarray()[2:].tolist() == [[0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1]]


def test_an_earlier_test_target_is_seen_before(at_moments):
    users, items = lists.test_targets(at_moments)
    found = lists.targets(at_moments, lists.Training.of(at_moments), users, items)
    assert found["item"].tolist() == ["d", "d", "c", "b", "d"]
    assert found["seen"].tolist() == [False, True, True, False, False]  # the second d, and c of validation


def test_examples_show_what_was_there_before_the_first_target(at_moments):
    users, items = lists.test_targets(at_moments)
    known = {
        user["user"]: user for user in lists.examples(at_moments, users, items, np.zeros((5, 10), dtype=int))["users"]
    }
    assert known["x"]["target"] == "d" and known["x"]["history"] == ["a", "b", "c"]
    assert known["y"]["history"] == ["c", "a"] and known["z"]["history"] == ["e"]


def test_popular_items_of_equal_number_stand_side_by_side():
    shares = lists._share_above(np.array([0, 5, 5, 2, 1, 0]))
    assert shares == pytest.approx([1, 0, 0, 10 / 13, 12 / 13, 1])


def test_metrics_that_recbole_has_are_recbole_s():
    from recbole.evaluator import metrics

    rng = np.random.default_rng(0)
    popularity = np.append(0, rng.integers(0, 6, 30))  # some are not in training, many are equal
    pairs = lists.sp.csr_matrix(np.stack([np.zeros(31, int), popularity]))
    top = np.stack([rng.permutation(30)[:10] + 1 for _ in range(25)])
    found = lists.beyond_accuracy(top, lists.Training(pairs, pairs))
    config = {"topk": [10], "metric_decimal_place": 12, "tail_ratio": None}
    collected = {
        "rec.items": torch.from_numpy(top),
        "data.num_items": 30,
        "data.count_items": {item: int(count) for item, count in enumerate(popularity) if count},
    }
    for metric in (metrics.ItemCoverage, metrics.GiniIndex, metrics.AveragePopularity):
        expected = metric(config).calculate_metric(collected)
        assert found[metric.__name__.lower()] == pytest.approx(expected[f"{metric.__name__.lower()}@10"])
    tail = metrics.TailPercentage(config)
    # RecBole adds 0 and 1 up as whole numbers
    assert found["tailpercentage"] == pytest.approx(tail.get_tail(top, collected["data.count_items"]).mean())


def test_novelty_and_diversity_by_hand(data):
    training = lists.Training.of(data)
    top = np.array([[1, 2, 3], [2, 0, 0], [5, 1, 0], [0, 0, 0]])
    found = lists.beyond_accuracy(top, training)
    bits = {1: np.log2(7 / 4), 2: np.log2(7 / 2), 3: np.log2(7), 5: np.log2(7)}  # 5 is not there: as if once
    novelty = [np.mean([bits[item] for item in row if item]) for row in top[:3]]
    assert found["novelty"] == pytest.approx(np.mean(novelty))
    vectors = training.vectors
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([0, 1, 1, 1, 0, 0])
    first = np.mean([vectors[one] @ vectors[other] for one, other in ((1, 2), (1, 3), (2, 3))])
    assert found["diversity"] == pytest.approx(np.mean([1 - first, 1 - vectors[5] @ vectors[1]]), abs=1e-6)
    assert found["itemcoverage"] == 4 / 5


def test_lists_of_nothing_have_numbers(data):
    found = lists.beyond_accuracy(np.zeros((2, 10), int), lists.Training.of(data))
    assert set(found.values()) == {0.0}


def test_models_that_have_learned_to_answer_do_so_about_the_examples(staged):
    loaded = staged("ContRec", "--answer_weight=0.1", "--vocabulary_size=300")
    with torch.no_grad():  # so that not all answers are alike
        for weights in loaded.model.parameters():
            weights.copy_(torch.randn_like(weights) / 4)
    loaded.model.eval()
    users, items = lists.test_targets(loaded.data)
    found = lists.examples(loaded.data, users, items, np.zeros((len(users), 10), dtype=int))["users"]
    lists.add_answers(found, loaded)
    said = [answer for batch in loaded.data.test for answer in loaded.model.answers(batch[0])]
    answer_of = dict(zip(users.tolist(), said))
    assert len(found) == lists.EXAMPLES and len({*said}) > 3
    assert [each["answer"] for each in found] == [answer_of[each["user"]] for each in found]


@pytest.mark.parametrize("model", ["ContRec", "Pop"])
def test_other_models_say_nothing(assembled, model):
    found = [{"user": "u1", "target": "i1"}]
    lists.add_answers(found, assembled(model))
    assert found == [{"user": "u1", "target": "i1"}]


def test_examples_are_the_same_users_in_any_order(data, monkeypatch):
    monkeypatch.setattr(lists, "EXAMPLES", 2)
    users, items = lists.test_targets(data)
    top = np.array([[4, 1], [3, 2], [2, 0]])
    found = lists.examples(data, users, items, top)
    turned = lists.examples(data, users[::-1], items[::-1], top[::-1])
    assert found == turned and len(found["users"]) == 2
    known = {user["user"]: user for user in lists.examples(data, users, items, top)["users"]}
    expected = {
        "x": {"user": "x", "history": ["a", "b", "c", "a"], "target": "d", "top": ["d", "a"]},
        "y": {"user": "y", "history": ["a", "a", "b"], "target": "e", "top": ["c", "b"]},
        "z": {"user": "z", "history": ["a", "b", "c"], "target": "b", "top": ["b"]},
    }
    assert all(known[name] == expected[name] for name in known)
    assert set(found["titles"].values()) <= {"A", "C", "D", "E"} and found["titles"]["a"] == "A"
    data.dataset.item_texts = {}
    assert lists.examples(data, users, items, top)["titles"] == {}
