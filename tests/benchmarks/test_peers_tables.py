"""The tables of peers, from made-up results."""

import json

import pytest

from benchmarks.report import peers as report
from tests.helpers.results import write_result


def test_ratios_are_taken_round_by_round():
    about = {"cpu": "A CPU", "threads": 1, "load_at_start": 0.1, "commit": "abc"}
    base = {
        "name": "RecTools-SASRec",
        "peer": True,
        "interactions_an_epoch": 80,
        "epoch_seconds": [200.0, 300.0],
        "users_a_second": [100.0, 50.0],
        "peak_mib": [900, 1000],
    }
    ours = {
        **base,
        "name": "ContRec",
        "peer": False,
        "interactions_an_epoch": 100,
        "epoch_seconds": [100.0, 100.0],
        "users_a_second": [300.0, 200.0],
    }
    table = report.speed_table(
        {"machine": about, "dataset": "tiny", "users": 40, "interactions": 100, "rounds": 2, "rows": [base, ours]}
    )
    assert "| RecTools-SASRec | 250 | 1 | 80% | 1 | 75 | 1 | 1,000 |" in table
    assert "| ContRec | 100 | 2.5 (2 to 3) | 100% | 3.12 (2.5 to 3.75) | 250 | 3.5 (3 to 4) | 1,000 |" in table
    assert "ContRec trains an epoch 2.5, an interaction 3.12, and ranks 3.5 times as fast as RecTools-SASRec." in table
    assert "A CPU, 1 thread," in table


def test_peers_stand_against_contrec_and_all_against_the_best_peer(tmp_path):
    card = {"items": 12, "unknown_items": 2, "interactions_an_epoch": 3456, "versions": {"rectools": "0.1"}}
    ranks = [1, 1, 2, 1, 3, 1]
    for score, name in enumerate(["RecTools-BERT4Rec", "RecTools-SASRec", "ContRec", "SASRecAll"]):
        write_result(tmp_path, name, 1, ranks[score:] + ranks[:score], model=name, score=0.1 * (1 + score), **card)
    _, *against = report.tables(tmp_path).split("| against ")
    first, second = ([line.split(" | ")[0] for line in table.splitlines()[2:]] for table in against)
    assert against[0].startswith("RecTools-SASRec |") and against[1].startswith("ContRec |")
    assert first[:3] == ["| SASRecAll", "| ContRec", "| RecTools-BERT4Rec (as in RecTools)"]
    assert second[:3] == ["| SASRecAll", *(f"| RecTools-{name} (as in RecTools)" for name in ("SASRec", "BERT4Rec"))]
    assert "RecTools-SASRec trains on 3,456 interactions and knows 10 of 12 items." in against[1]
    assert "Peers ran with rectools 0.1." in against[1]


def test_nothing_to_show(tmp_path):
    with pytest.raises(ValueError, match="no finished run and no speed.json"):
        report.tables(tmp_path)
    for name, users in (("RecTools-SASRec", 3), ("ContRec", 4)):
        path = tmp_path / name / "seed1.json"
        path.parent.mkdir()
        path.write_text(json.dumps({"card": {"dataset": "tiny", "users": users}, "best_valid_score": 0.1}))
    with pytest.raises(ValueError, match="not comparable.*users"):
        report.tables(tmp_path)
