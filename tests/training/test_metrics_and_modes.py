"""Every metric and mode of RecBole: a number, or refused before the first epoch."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.evaluator import metric_types, smaller_metrics
from recbole.evaluator import metrics as metric_classes
from recbole.trainer import Trainer
from recbole.utils import EvaluatorType

from recbole_contrec.data.sizes import sampled_items
from recbole_contrec.errors import UserError
from recbole_contrec.training.evaluation import first_rows, no_score_is_the_worst

METRICS = [name for name in dir(metric_classes) if name.lower() in metric_types]
RANKING = [name for name in METRICS if metric_types[name.lower()] == EvaluatorType.RANKING]
CLICKS = [name for name in METRICS if name not in RANKING]


def evaluated(assembled, model, *arguments):
    loaded = assembled(model, *arguments)
    if model == "TIGER":  # it cannot rank before it has codes
        loaded.trainer.run_stages(loaded.data.train)
    return loaded, loaded.trainer.evaluate(loaded.data.test, load_best_model=False)


@pytest.mark.parametrize(
    "model, metrics, more",
    [
        ("SASRec", RANKING, ()),
        ("ContRec", RANKING, ()),
        ("BPR", RANKING, ()),
        ("TIGER", RANKING, ()),
        ("SASRec", RANKING, ("--eval_args={'mode': 'pop20'}",)),
        ("ContRec", RANKING, ("--eval_args={'mode': 'uni20'}",)),
        ("BPR", RANKING, ("--eval_args={'mode': {'valid': 'full', 'test': 'uni20'}}",)),
        ("DIN", CLICKS, ()),
        ("FM", CLICKS, ("--threshold={'rating': 3}",)),
        ("SASRec", CLICKS, ("--eval_args={'mode': 'uni20'}",)),
        ("SASRec", CLICKS, ("--eval_args={'mode': 'labeled'}", "--threshold={'rating': 3}")),
        ("ContRec", ["AUC"], ("--eval_args={'mode': 'pop20'}",)),
    ],
)
def test_every_metric_gives_a_number(assembled, model, metrics, more):
    chosen = metrics[0] if metrics != RANKING else "GAUC"
    loaded, result = evaluated(
        assembled, model, f"--metrics={metrics}", f"--valid_metric={chosen}", "--topk=[5,10]", *more
    )
    expected = {f"{name.lower()}@{k}" for name in metrics if name in RANKING and name != "GAUC" for k in (5, 10)}
    assert set(result) == expected | {name.lower() for name in metrics if name == "GAUC" or name in CLICKS}
    assert all(math.isfinite(value) for value in result.values()) and json.dumps(result)
    if "gauc" in result:
        assert 0 <= result["gauc"] <= 1


@pytest.mark.parametrize("metric", METRICS)
def test_less_is_better_where_it_is(config_of, metric):
    clicks, cut = metric in CLICKS, "" if metric in (*CLICKS, "GAUC") else "@10"
    config = config_of(
        "SASRec",
        f"--metrics=['{metric}']",
        f"--valid_metric={metric}{cut}",
        f"--eval_args={{'mode': '{'uni20' if clicks else 'full'}'}}",
    )
    assert config["valid_metric_bigger"] == (metric.lower() not in smaller_metrics)
    assert config["valid_metric_bigger"] == (metric not in ("MAE", "RMSE", "LogLoss", "AveragePopularity", "GiniIndex"))


@pytest.mark.parametrize(
    "model, arguments, text",
    [
        ("ContRec", ["--eval_args={'mode': 'labeled'}"], "ContRec ranks what comes next"),
        ("SASRec", ["--eval_args={'mode': 'labeled'}"], "need full, uni100 or pop100"),
        ("SASRec", ["--eval_args={'mode': 'labeled'}", "--metrics=['AUC']", "--valid_metric=AUC"], "needs labels"),
        ("FM", [], "needs labels"),
        ("NeuMF", ["--train_neg_sample_args=~"], "needs labels"),
        ("SASRec", ["--metrics=['AUC']", "--valid_metric=AUC"], "set eval_args.mode to labeled"),
        (
            "SASRec",
            ["--metrics=['AUC']", "--valid_metric=AUC", "--eval_args={'mode': {'valid': 'uni20', 'test': 'full'}}"],
            "both",
        ),
        ("SASRec", ["--metrics=['AUC', 'NDCG']"], "one kind"),
        ("SASRec", ["--metrics=[]"], "not computed"),
        (
            "SASRec",
            ["--metrics=['AUC']", "--valid_metric=AUC", "--eval_args={'mode': {'valid': 'labeled', 'test': 'uni20'}}"],
            "together",
        ),
        ("ContRec", ["--metrics=['LogLoss']", "--valid_metric=LogLoss", "--eval_args={'mode': 'uni20'}"], "take AUC"),
        ("SASRec", ["--metrics=['GAUC']", "--valid_metric=GAUC@10"], "no cut-off"),
        ("SASRec", ["--topk=[]"], "cut-off"),
        (
            "SASRec",
            ["--metrics=['NDCG', 'GAUC']", "--valid_metric=GAUC", "--valid_metric_bigger=False"],
            "more of GAUC is better",
        ),
    ],
)
def test_what_has_no_number_is_refused_before_training(config_of, model, arguments, text):
    with pytest.raises(UserError) as caught:
        config_of(model, *arguments)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_more_samples_than_items_are_refused(assembled):
    with pytest.raises(UserError, match="more items than the catalogue has"):
        assembled("BPR", "--eval_args={'mode': 'uni1000000'}")
    assert [sampled_items(mode) for mode in ("uni100", "pop5", "full", "labeled")] == [100, 5, None, None]


def test_batches_and_digits(assembled):
    loaded, result = evaluated(assembled, "SASRec", "--eval_batch_size=7", "--metric_decimal_place=2")
    whole, other = evaluated(assembled, "SASRec", "--metric_decimal_place=6")
    assert len(loaded.data.test) == -(-loaded.data.test.sample_size // 7) and len(whole.data.test) == 1
    for name, value in other.items():
        assert result[name] == round(result[name], 2) == pytest.approx(value, abs=0.0051)
    assert result != other


def test_tail_ratio(assembled):
    arguments = ["--metrics=['TailPercentage']", "--valid_metric=TailPercentage@10"]
    shares = [
        evaluated(assembled, "BPR", *arguments, f"--tail_ratio={ratio}")[1]["tailpercentage@10"]
        for ratio in (0.1, 0.9, 1000)
    ]
    assert shares[0] < shares[1] < shares[2]


# sampled items: every history once


def test_rows_of_sampled_items():
    """Two targets of the first user, one of the second, each with one more item."""
    row_idx, positive_u = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 1])
    first, history = first_rows(row_idx, positive_u)
    assert first.tolist() == [0, 1, 4] and history.tolist() == [0, 1, 0, 1, 2, 2]


@pytest.mark.parametrize(
    "model, arguments",
    [
        ("SASRec", ()),
        ("SASRecAll", ()),
        ("GRU4Rec", ("--eval_args={'mode': 'pop20', 'split': {'RS': [0.6, 0.2, 0.2]}}",)),
        ("BERT4Rec", ()),
        ("SASRec", ("--metrics=['AUC']", "--valid_metric=AUC")),
    ],
)
def test_sampled_items_read_every_history_once(assembled, monkeypatch, model, arguments):
    loaded = assembled(model, *("--eval_args={'mode': 'uni20'}", *arguments))
    rows = {"predict": 0, "full_sort_predict": 0}
    for name in rows:

        def counted(interaction, name=name, method=getattr(loaded.model, name)):
            rows[name] += len(interaction)
            return method(interaction)

        monkeypatch.setattr(loaded.model, name, counted)
    batches = list(loaded.data.test)  # the sampled items are drawn once, for both ways
    targets = len(loaded.data.test.dataset.inter_feat)
    trainer = loaded.trainer
    trainer.model.eval()
    trainer.tot_item_num = loaded.data.dataset.item_num
    for batch in batches:
        _, once, *_ = trainer._neg_sample_batch_eval(batch)
        _, theirs, *_ = Trainer._neg_sample_batch_eval(trainer, batch)
        torch.testing.assert_close(once, theirs, rtol=1e-4, atol=1e-5)
    everything = sum(len(batch[0]) for batch in batches)
    checked = rows["predict"] - everything  # by RecBole's way above, and to compare both for the first user
    assert targets <= rows["full_sort_predict"] <= targets + 20 and 0 < checked <= 21 * 20


def test_models_with_one_of_both_ways_are_evaluated_as_in_recbole(assembled, caplog):
    loaded = assembled("SASRec", "--eval_args={'mode': 'uni20'}")
    right, loaded.model.full_sort_predict = loaded.model.full_sort_predict, lambda rows: right(rows) * 2 + 1
    batch = next(iter(loaded.data.test))
    loaded.trainer.model.eval()
    loaded.trainer.tot_item_num = loaded.data.dataset.item_num
    _, ours, *_ = loaded.trainer._neg_sample_batch_eval(batch)
    _, theirs, *_ = Trainer._neg_sample_batch_eval(loaded.trainer, batch)
    assert torch.equal(ours, theirs)


def test_items_without_a_score_are_ranked_last(caplog):
    scores = torch.tensor([[torch.nan, 1, torch.nan, 0]])
    assert (
        no_score_is_the_worst(scores, "M").tolist() == [[-torch.inf, 1, -torch.inf, 0]]
        and "2 of 4 scores are NaN" in caplog.text
    )
    assert no_score_is_the_worst(scores[:, 1::2], "M").tolist() == [[1, 0]]
    with pytest.raises(FloatingPointError, match="M scores no item"):
        no_score_is_the_worst(torch.tensor([[0, torch.nan]]), "M")


def test_missing_scores_count_alike_in_metrics_ranks_and_recommendations(run_tiny, monkeypatch):
    from recbole.model.sequential_recommender.sasrec import SASRec

    from recbole_contrec import recommend

    scored = SASRec.full_sort_predict

    def with_holes(self, batch):
        scores = scored(self, batch)
        scores[:, 2::2] = torch.nan
        return scores

    monkeypatch.setattr(SASRec, "full_sort_predict", with_holes)
    result = run_tiny("SASRec", "--epochs=1")
    ranks = np.load(Path(result["checkpoint"]).parent / "test_ranks.npz")["rank"]
    assert result["test_result"]["hit@10"] == pytest.approx((ranks <= 10).mean(), abs=1e-4)
    assert recommend(result["checkpoint"], users=["u1"], k=5)["score"].notna().all()
