"""Histories, targets, ranks and metrics of ml-100k, computed without RecBole's data sets and evaluator."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.independent import histories, ml_100k, ndcg, read_events

SMALL = ["--epochs=1", "--use_gpu=False", "--show_progress=False", "--train_batch_size=8192", "--run_name=small"]
SASREC = ["--hidden_size=8", "--inner_size=8", "--n_layers=1", "--n_heads=1", "--MAX_ITEM_LIST_LENGTH=20"]


@pytest.fixture(scope="module")
def real():
    """Items of every user of ml-100k; RecBole's YAML of that data set normalises times."""
    return histories(read_events(ml_100k()), normalised=True)


def trained(model, *arguments):
    """Result, ranks of the test targets by user, and the loaded run."""
    from recbole_contrec import load_data_and_model, run

    result = run(model, "ml-100k", arguments=[*SMALL, *arguments])
    folder = Path(result["checkpoint"]).parent
    assert json.loads((folder / "result.json").read_text())["test_result"] == result["test_result"]
    ranks = np.load(folder / "test_ranks.npz")
    return result, ranks, load_data_and_model(result["checkpoint"])


def ranks_of(scores, targets, names, masked=()):
    """Best and worst rank of every target: items of nearly its score may stand on either side.

    Args:
        scores: dict, user -> score of every item in ``names``.
        targets: dict, user -> item.
        masked: dict, user -> items that are left out.
    """
    place = {name: number for number, name in enumerate(names)}
    best, worst = {}, {}
    for user, item in targets.items():
        own = scores[user][place[item]]
        others = np.ones(len(names), dtype=bool)
        others[[place[name] for name in {*(masked[user] if masked else ()), item}]] = False
        best[user] = 1 + int((scores[user][others] > own + 1e-6).sum())
        worst[user] = 1 + int((scores[user][others] >= own - 1e-6).sum())
    return best, worst


def agree(real, result, ranks, best, worst):
    """The targets and ranks that the run has written, and its metrics, lie between those of the best and the worst
    ranks."""
    written = dict(zip(ranks["user"].tolist(), ranks["rank"].tolist()))
    assert dict(zip(ranks["user"].tolist(), ranks["item"].tolist())) == {
        user: items[-1] for user, items in real.items()
    }
    assert all(best[user] <= written[user] <= worst[user] for user in real)
    for k in (5, 10, 20):
        assert ndcg(worst.values(), k) - 1e-4 <= result["test_result"][f"ndcg@{k}"] <= ndcg(best.values(), k) + 1e-4


def test_an_epoch_of_windows(workplace, real):
    """Validation and test of a sequential model: scores are asked for histories that an independent reader has put
    together."""
    from recbole.data.interaction import Interaction

    result, ranks, loaded = trained("SASRecAll", *SASREC)
    dataset, model = loaded.data.dataset, loaded.model
    assert (dataset.user_num - 1, len(real)) == (943, 943) and result["card"]["interactions"] == 100_000
    training = loaded.data.train_dataset.histories
    names = dataset.field2id_token["item_id"]
    for number, user in enumerate(training.users):
        items = names[training.items[training.offsets[number] : training.offsets[number + 1]]]
        assert items.tolist() == real[dataset.field2id_token["user_id"][user]][:-2]

    for held_out, metrics, written in ((2, result["best_valid_result"], None), (1, result["test_result"], ranks)):
        rows, lengths = np.zeros((len(real), 20), dtype=np.int64), []
        for row, items in zip(rows, real.values()):
            shown = [dataset.field2token_id["item_id"][item] for item in items[:-held_out][-20:]]
            row[: len(shown)] = shown
            lengths.append(len(shown))
        users = torch.tensor([dataset.field2token_id["user_id"][user] for user in real])
        with torch.no_grad():
            scores = model.full_sort_predict(
                Interaction(
                    {"user_id": users, "item_id_list": torch.from_numpy(rows), "item_length": torch.tensor(lengths)}
                )
            )
        scores = dict(zip(real, scores.view(len(real), -1)[:, 1:].numpy()))
        best, worst = ranks_of(scores, {user: items[-held_out] for user, items in real.items()}, names[1:].tolist())
        for k in (5, 10, 20):
            assert ndcg(worst.values(), k) - 1e-4 <= metrics[f"ndcg@{k}"] <= ndcg(best.values(), k) + 1e-4
        if written is not None:
            agree(real, result, written, best, worst)
            assert sum(best[user] == worst[user] for user in real) > 900  # otherwise little has been compared
            assert metrics["ndcg@10"] == pytest.approx(ndcg(written["rank"], 10), abs=1e-4)


def test_a_model_that_ranks_no_item_of_the_history(workplace, real):
    """RecBole's general models: what is left out are the items that an independent reader has found in the history."""
    result, ranks, loaded = trained("Pop")
    names = loaded.data.dataset.field2id_token["item_id"][1:].tolist()
    scores = dict.fromkeys(real, loaded.model.item_cnt.view(-1)[1:].numpy().astype(float))
    best, worst = ranks_of(
        scores,
        {user: items[-1] for user, items in real.items()},
        names,
        {user: items[:-1] for user, items in real.items()},
    )
    agree(real, result, ranks, best, worst)
    ties = dict(zip(ranks["user"].tolist(), ranks["ties"].tolist()))
    assert {user: worst[user] - best[user] for user in real} == ties
