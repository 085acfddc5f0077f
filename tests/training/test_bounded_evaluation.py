"""An evaluation holds the scores of as many users as fit, and of what it makes from them nothing is larger."""

from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from recbole_contrec.compat import SafeCollector
from recbole_contrec.data import sizes
from recbole_contrec.retrieval import scores as retrieval
from recbole_contrec.training import metrics
from recbole_contrec.training.metrics import TrainingCollector, count_above, places

EVERYTHING = "--metrics=['NDCG','Recall','MRR','GAUC','ItemCoverage','GiniIndex']"


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that operations in its block make."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor._base is None:
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return out


def batches(several):
    """Scores with many ties and masked items, and their positives: one a user, or several, some of them twice."""
    generator = torch.Generator().manual_seed(1)
    for users in (6, 1):
        scores = torch.randint(0, 9, (users, 40), generator=generator) / 7
        scores[torch.rand(users, 40, generator=generator) < 0.1] = -torch.inf
        scores[:, 0] = -torch.inf
        positive_u = torch.arange(users).repeat_interleave(3 if several else 1)
        positive_i = torch.randint(1, 40, positive_u.shape, generator=generator)
        positive_i[1:2] = positive_i[:1]
        yield scores, positive_u, positive_i


@pytest.mark.parametrize("several", [False, True])
def test_what_is_collected_is_what_recbole_collects(config_of, several, monkeypatch):
    monkeypatch.setattr(metrics, "ITEMS_AT_ONCE", 7)
    config = config_of("BPR", EVERYTHING, "--topk=[3,12]", "--valid_metric=NDCG@3")
    ours, theirs = TrainingCollector(config), SafeCollector(config)
    for scores, positive_u, positive_i in batches(several):
        for collector in (ours, theirs):
            collector.eval_batch_collect(scores.clone(), None, positive_u, positive_i)
    found, wanted = (collector.get_data_struct()._data_dict for collector in (ours, theirs))
    assert set(found) == set(wanted) == {"rec.items", "rec.topk", "rec.meanrank"}
    for name in wanted:
        assert found[name].dtype == wanted[name].dtype and torch.equal(found[name], wanted[name]), name


def test_scores_of_sampled_items_and_labels_are_collected(assembled):
    loaded = assembled("SASRec", "--metrics=['AUC']", "--valid_metric=AUC", "--eval_args={'mode': 'uni20'}")
    loaded.trainer.evaluate(loaded.data.test, load_best_model=False)
    collected = TrainingCollector(loaded.config)
    rows = {loaded.config["LABEL_FIELD"]: torch.tensor([1.0, 0.0])}
    collected.eval_batch_collect(torch.tensor([0.3, 0.1]), rows, None, None)
    assert collected.get_data_struct().get("data.label").tolist() == [1, 0]


def test_nothing_that_is_collected_is_larger_than_the_scores(config_of):
    collector = TrainingCollector(config_of("BPR", EVERYTHING, "--valid_metric=NDCG@10"))
    scores, users = torch.rand(8, 100_000), torch.arange(8)
    with Largest() as largest:
        collector.eval_batch_collect(scores, None, users, users + 5)
        places(scores, users, users + 5)
    assert 0 < largest.bytes <= scores.numel() * scores.element_size() / 2


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_counts_in_chunks(monkeypatch, chunk):
    monkeypatch.setattr(metrics, "ITEMS_AT_ONCE", chunk)
    scores, bound = torch.tensor([[1.0, 2, 2, 3], [0, 0, 0, 0]]), torch.tensor([2.0, 0.0])
    assert count_above(scores, bound).tolist() == [1, 0]
    assert count_above(scores, bound, or_equal=True).tolist() == [3, 4]
    better, equal = places(scores, torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1]))
    assert better.tolist() == [3, 1, 0] and equal.tolist() == [1, 2, 4]


SAMPLED = "--eval_args={'mode': 'uni20'}"


@pytest.mark.parametrize(
    "model, more",
    [
        ("ContRec", ()),
        ("SASRec", (EVERYTHING,)),
        ("TIGER", ()),
        ("SASRec", (SAMPLED,)),
        ("BPR", (SAMPLED, "--eval_batch_size=100000")),
        ("BPR", ("--eval_batch_size=100000", EVERYTHING)),
        ("SASRecAll", ("--mask_seen=True",)),
    ],
)
def test_a_bound_on_scores_changes_the_batches_and_no_number(staged, monkeypatch, workplace, model, more):
    found = []
    for users in (10**6, 3):
        loaded = staged(model, *more)
        n_items = loaded.data.dataset.item_num
        monkeypatch.setattr(sizes, "SCORES", users * 4 * n_items)
        monkeypatch.setattr(retrieval, "ITEMS_AT_ONCE", 10**6 if users > 3 else 13)
        torch.manual_seed(0)
        loaded = staged(model, *more)
        held = []
        collect = loaded.trainer.eval_collector.eval_batch_collect

        def watch(scores, *rest, held=held, collect=collect):
            held.append(len(scores))
            return collect(scores, *rest)

        loaded.trainer.eval_collector.eval_batch_collect = watch
        torch.manual_seed(0)
        np.random.seed(0)
        full = SAMPLED not in more
        result = loaded.trainer.evaluate(loaded.data.test, load_best_model=False, save_ranks=full)
        ranks = np.load(Path(loaded.trainer.folder) / "test_ranks.npz") if full else {}
        found.append((result, {name: ranks[name].tolist() for name in ranks}))
        assert loaded.config["eval_batch_size"] > 3  # what the user has set stays
        assert max(held) == min(users, sum(held)) and len(held) == ceil(sum(held) / users)
    assert found[0] == found[1]


def test_one_user_is_always_ranked(config_of, monkeypatch):
    config = config_of("ContRec")
    assert sizes.bounded_eval_batch_size(config, 10**9) == 1
    assert sizes.bounded_eval_batch_size(config, 10**6) == 67
    assert sizes.bounded_eval_batch_size(config, 10**5) == config["eval_batch_size"] == 512
