"""Beam search against one pass: arithmetic on known numbers, and both models end to end at a tiny size."""

import json

import pytest
import torch

from benchmarks import beam
from benchmarks.lib.beam_generate import GenerateScheme
from benchmarks.report import beam as beam_report
from tests.helpers.options import TINY_TOKENREC

ROW = {
    "name": "TokenRec-beam",
    "users_a_second": 1234.5,
    "seconds": [1.0, 2.0],
    "times_slower": 20.04,
    "times_slower_range": [19.0, 21.5],
}
RECORD = {
    "dataset": "tiny",
    "users": 40,
    "batch_size": 512,
    "history": 200,
    "items": 1000,
    "num_codebooks": 3,
    "codebook_size": 8,
    "beam_size": 20,
    "machine": {"cpu": "A CPU", "threads": 2, "commit": "abc"},
}


def write_run(folder, name, seed, valid, test):
    path = folder / name / f"seed{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(
            {
                "card": {"dataset": "tiny"},
                "settings": {"repeat_bias": "=" not in name, "hidden_dropout_prob": 0.2, "MAX_ITEM_LIST_LENGTH": 50},
                "best_valid_result": dict.fromkeys(beam_report.METRICS, valid),
                "test_result": dict.fromkeys(beam_report.METRICS, test),
            }
        )
    )


def test_a_row_compares_round_by_round():
    seconds = {"TokenRec": [1.0, 2.0, 4.0], "TokenRec-beam": [10.0, 80.0, 60.0]}
    found = beam.row("TokenRec-beam", 120, seconds)
    assert (found["users_a_second"], found["times_slower"], found["times_slower_range"]) == (2, 15, [10, 40])
    assert beam.row("TokenRec", 120, seconds)["times_slower"] == 1


def test_accuracy_stands_beside_speed_where_both_models_have_runs(tmp_path):
    record = {**RECORD, "rows": [ROW, {**ROW, "name": "other"}]}
    write_run(tmp_path, "TokenRec", 1, 0.2, 0.1)
    assert beam_report.accuracy(tmp_path) == {}
    table = beam_report.report({**record, "accuracy": {}})
    assert "| TokenRec-beam | 1,234 | 20 (19 to 21.5) |\n" in table and "NDCG" not in table
    write_run(tmp_path, "TokenRec-beam", 1, 0.3, 0.2)
    write_run(tmp_path, "TokenRec-beam", 2, 0.4, 0.1)
    known = beam_report.accuracy(tmp_path)
    assert known["TokenRec-beam"]["seeds"] == 2 and known["TokenRec-beam"]["valid"]["ndcg@10"] == pytest.approx(0.35)
    write_run(tmp_path, "TokenRec,repeat_bias=False", 1, 0.1, 0.05)
    known = beam_report.accuracy(tmp_path)
    table = beam_report.report({**record, "accuracy": known})
    assert "| TokenRec,repeat_bias=False |  |  | 1 | .1000 | .1000 | .0500 | .0500 |" in table
    assert "| TokenRec-beam | 1,234 | 20 (19 to 21.5) | 2 | .3500 | .3500 | .1500 | .1500 |" in table
    assert (
        "| other | 1,234 | 20 (19 to 21.5) |  |  |  |  |  |" in table
        and "A CPU, 2 threads, median of 2 rounds, commit abc." in table
    )
    assert table.endswith(
        " Methods: TokenRec: SASRec, loss at every position, repeat bias; "
        "TokenRec,repeat_bias=False: SASRec, loss at every position; "
        "TokenRec-beam: SASRec, loss at every position, repeat bias."
    )


def test_generate_finds_items_and_each_once(staged):
    loaded = staged("TokenRec-beam")
    scheme = GenerateScheme(loaded.model.eval(), 5)
    batch = next(iter(loaded.data.test))[0]
    items = scheme.items(batch)
    assert items.shape == (len(batch), 5) and (items > 0).all()
    assert all(len(set(row)) == 5 for row in items.tolist())
    torch.testing.assert_close(scheme.items(batch[3:4]), items[3:4])  # whatever the padding


def test_the_table_that_is_printed_is_that_of_the_record(tmp_path, monkeypatch, capsys):
    """Also where rounding the record carries a speed over to another number."""
    row = {
        "name": beam_report.BASE,
        "users_a_second": 9244.52,
        "seconds": [1.0],
        "times_slower": 1.0,
        "times_slower_range": [1.0, 1.0],
    }
    monkeypatch.setattr(beam, "measure", lambda *_: {**RECORD, "rows": [row]})
    assert beam.main(["--dataset=tiny", f"--output={tmp_path}"]) == 0
    stored = json.loads((tmp_path / "tiny" / "beam.json").read_text())
    assert (
        "| TokenRec | 9,244 | 1 |" in beam_report.report(stored)
        and beam_report.report(stored) in capsys.readouterr().out
    )


def test_end_to_end(tiny, tmp_path, capsys):
    settings = [
        argument for argument in TINY_TOKENREC if argument.split("=")[0] not in ("--show_progress", "--use_gpu")
    ]
    arguments = ["--dataset=tiny", f"--data_path={tiny}", f"--output={tmp_path}", "--rounds=2", *settings]
    assert beam.main([*arguments, "--dropuot=0.1"]) == 2
    assert "did you mean dropout" in capsys.readouterr().err and not (tmp_path / "tiny").exists()
    assert beam.main([*arguments, "--beam_size=5"]) == 0
    printed, record = capsys.readouterr().out, json.loads((tmp_path / "tiny" / "beam.json").read_text())
    assert [row["name"] for row in record["rows"]] == [*beam.CONTENDERS, beam.COMMON] and record["users"] == 40
    assert all(len(row["seconds"]) == 2 and row["users_a_second"] > 0 for row in record["rows"][:-1])
    assert record["rows"][-1]["users"] == 32 and record["rows"][-1]["times_slower"] > 0
    assert record["accuracy"] == {} and record["beam_size"] == 5 and str(tmp_path) not in json.dumps(record)
    assert f"| TokenRec | {record['rows'][0]['users_a_second']:,.0f} | 1 |" in printed
