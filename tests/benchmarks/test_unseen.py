"""Held-out users and items: no stage of training knows them, and the tables count what they say."""

import json

import numpy as np
import pytest
import torch

from benchmarks import unseen
from benchmarks.lib.held_out import HeldOutDataset
from benchmarks.lib.runs import Result
from benchmarks.report import unseen as unseen_report
from recbole_contrec.data.loading import load_data
from recbole_contrec.settings.config import Config
from tests.helpers.options import TINY_CONTREC


@pytest.fixture
def data_of(tiny, workplace):
    """A function (hold, *arguments) -> RunData with a fifth of the users or items held out."""
    unseen.write_properties(workplace / "properties", ["ContRec"])

    def build(hold, *arguments):
        return load_data(
            Config(
                "ContRec-held-out",
                "tiny",
                properties=str(workplace / "properties"),
                arguments=[*TINY_CONTREC, f"--data_path={tiny}", f"--hold={hold}", "--hold_share=0.2", *arguments],
            )
        )

    return build


@pytest.mark.parametrize("hold", ["users", "items"])
def test_training_and_validation_know_nothing_of_what_is_held_out(data_of, config_of, hold):
    data, whole = data_of(hold, "--seed=1"), load_data(config_of())
    assert isinstance(data.dataset, HeldOutDataset)
    removed, column = data.train.dataset.removed, 0 if hold == "users" else 1
    known, everything = data.train.dataset.histories.pairs(), whole.train.dataset.histories.pairs()
    assert len(removed.numbers) == round(0.2 * len(np.unique(everything[column])))
    assert not np.isin(known[column], removed.numbers).any()
    assert np.isin((removed.users, removed.items)[column], removed.numbers).all()
    together = np.column_stack([np.concatenate([known[0], removed.users]), np.concatenate([known[1], removed.items])])
    np.testing.assert_array_equal(*(np.unique(pairs, axis=0) for pairs in (together, np.column_stack(everything))))
    field = ("user_id", "item_id")[column]
    targets = whole.valid.dataset.inter_feat[field].numpy()
    kept = data.valid.dataset.inter_feat[field].numpy()
    assert kept.tolist() == targets[~np.isin(targets, removed.numbers)].tolist() and len(kept) < len(targets)
    nameless = [item for item in range(1, data.dataset.item_num) if not data.train.dataset.item_texts["title"][item]]
    assert nameless == (removed.numbers.tolist() if hold == "items" else [])
    for name in ("user_id", "item_id", "item_id_list"):  # the test is what it was
        assert torch.equal(data.test.dataset.inter_feat[name], whole.test.dataset.inter_feat[name])


def test_removed_interactions_come_in_order_of_time(data_of, config_of):
    """In the tiny data time is the place in a history."""
    removed, histories = data_of("items").train.dataset.removed, load_data(config_of()).train.dataset.histories
    place = [
        min(
            np.flatnonzero(histories.items[start:end] == item)[0]
            for user, start, end in zip(histories.users, histories.offsets, histories.offsets[1:])
            if user == wanted
        )
        for wanted, item in zip(removed.users, removed.items)
    ]
    assert place == sorted(place) and len(set(place)) > 3


def test_every_seed_holds_out_others(data_of):
    drawn = [data_of("users", f"--seed={seed}").train.dataset.removed.numbers.tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


OF_SASREC = {"repeat_bias": True, "hidden_dropout_prob": 0.2, "MAX_ITEM_LIST_LENGTH": 50}  # what method it was


def test_means_weigh_seeds_by_their_targets_and_the_same_users_are_found():
    ranks = {"user": np.array(["a", "b", "c"]), "rank": np.array([1, 3, 99]), "ties": np.zeros(3, int)}
    trained = [Result("ContRec", {"card": {"seed": 1}}, ranks), Result("ContRec", {"card": {"seed": 2}}, ranks)]

    def of(seed, held_out, score, share=0.05):
        group = {"targets": len(held_out), "ndcg@10": score, "hit@10": score, "hit@20": score}
        parts = dict.fromkeys(
            ("model", "popularity", "stand-in"), {"held out": group, "others": {**group, "ndcg@10": 0.5}}
        )
        return Result(
            "ContRec",
            {
                "card": {"seed": seed},
                "settings": OF_SASREC,
                "measured": {"hold_share": share, "early": 10, "held_out": held_out, **parts},
            },
            {"user": np.array(["c", "a", "b"]), "rank": np.array([1, 1, 99]), "ties": np.zeros(3, int)},
        )

    results = [of(1, ["a", "b"], 0.4), of(2, ["c"], 0.1)]
    line = unseen_report.users_table({"ContRec": results}, {"ContRec": trained}).splitlines()[2]
    # user by user 1, 0, 1 held out and 1, 1/2, 0 in training: differences 0, -1/2, 1
    assert line.startswith(
        "| ContRec | SASRec, loss at every position, repeat bias | 2 | 3 | **.3000** | .3000 | .5000 | +33.3% | "
        "-0.5000 to +1.0000 | .5000 |"
    )
    alone = unseen_report.users_table({"ContRec": results}, {"ContRec": trained[:1]}).splitlines()[2]
    assert "| .3000 |  |  |  | .5000 |" in alone  # a seed has no partner
    with pytest.raises(ValueError, match="another --output"):
        unseen_report.users_table({"ContRec": [*results, of(3, ["c"], 0.1, share=0.1)]}, {})


@pytest.mark.parametrize("hold", ["users", "items"])
def test_from_runs_to_a_table(tiny, workplace, hold, capsys):
    settings = [argument for argument in TINY_CONTREC if "show_progress" not in argument]
    assert (
        unseen.main(
            [
                f"--hold={hold}",
                "--dataset=tiny",
                f"--data_path={tiny}",
                "--output=results",
                "--share=0.2",
                "--models",
                "ContRec",
                *settings,
            ]
        )
        == 0
    )
    folder = workplace / "results" / f"tiny-unseen-{hold}"
    stored = json.loads((folder / "ContRec" / "seed2020.json").read_text())
    assert not (folder / "properties").exists() and str(workplace) not in json.dumps(stored)
    ways = {"users": ("model", "stand-in", "popularity"), "items": (*unseen_report.WAYS, "popularity")}
    for way in ways[hold]:
        groups = stored["measured"][way]
        assert groups["held out"]["targets"] + groups["others"]["targets"] == 40 and groups["held out"]["targets"] > 0
    same = "model" if hold == "users" else "as it is"
    whole = sum(group["ndcg@10"] * group["targets"] for group in stored["measured"][same].values()) / 40
    assert whole == pytest.approx(stored["test_result"]["ndcg@10"], abs=1e-4)
    assert (folder / "README.md").read_text().split("\n\n")[1].strip() in capsys.readouterr().out


@pytest.mark.parametrize("argument", ["--share=2", "--share=0", "--early=0", "--early=few", "--share=nan"])
def test_shares_are_shares(argument, capsys):
    with pytest.raises(SystemExit) as stopped:
        unseen.main(["--dataset=tiny", "--hold=users", argument])
    assert stopped.value.code == 2 and argument[2:].partition("=")[0] in capsys.readouterr().err
