"""The search benchmark: its counters and random identifiers, and both parts end to end at tiny sizes."""

import json

import pytest
import torch

from benchmarks import search
from benchmarks.lib.measuring import in_workplace
from benchmarks.report.search import report

SMALL = [
    "--rounds=1",
    "--threads=1",
    "--dataset=tiny",
    "--catalogues",
    "50",
    "500",
    "--users=8",
    "--history=5",
    "--beam_size=4",
    "--batches=1",
    "--MAX_ITEM_LIST_LENGTH=10",
    "--hidden_size=16",
    "--vector_size=16",
    "--n_layers=1",
    "--inner_size=32",
]


@pytest.fixture
def measured(tiny, tmp_path, monkeypatch):
    """A function (*arguments) -> exit code; in this process, where the libraries are loaded already."""
    monkeypatch.setattr(
        search, "isolated", lambda function, *arguments, threads: in_workplace(function, arguments, threads)
    )

    def run(*arguments):
        return search.main([*SMALL, f"--data_path={tiny}", f"--output={tmp_path / 'search.json'}", *arguments])

    return run


def test_both_parts_end_to_end(measured, tmp_path, capsys):
    assert measured() == 0
    printed, record = capsys.readouterr().out, json.loads((tmp_path / "search.json").read_text())
    assert {"cpu", "threads", "versions", "commit"} <= record["machine"].keys() and str(tmp_path) not in json.dumps(
        record
    )
    users, catalogue = record["parts"]["users"], record["parts"]["catalogue"]
    assert users["users"] == 40 and users["items"] == 60 and users["history"] == 10 and users["users_a_second"] > 0
    assert sum(users["core_share"].values()) == pytest.approx(1, abs=1e-3) and set(users["core_share"]) == {
        *search.WORK,
        "rest",
    }
    assert all(users["mflop_a_user"][part] > 0 for part in ("prompt", "decoder", "heads"))
    assert users["mflop_a_user"]["search"] == users["mflop_a_user"]["rest"] == 0
    assert [row["items"] for row in catalogue["rows"]] == [50, 500] and catalogue["rows"][0]["codebook_size"] == 256
    assert all(len(values) == 1 for values in catalogue["growth"].values())
    assert catalogue["growth"]["bytes"][0] == pytest.approx(1, abs=0.1)
    assert report(record) + "\n" == printed and "| 500 | 256 |" in printed and "tiny: 40 users" in printed
    assert measured(f"--summary={tmp_path / 'search.json'}") == 0 and capsys.readouterr().out == printed


def test_a_misspelt_setting_is_named(measured, tmp_path, capsys):
    assert measured("--dropuot=0.1") == 2 and "did you mean dropout" in capsys.readouterr().err
    assert not (tmp_path / "search.json").exists()
    for wrong in ("--dropout", "--rounds=0"):
        with pytest.raises(SystemExit):
            measured(wrong)


def test_a_counter_is_shared_out_without_what_runs_inside(monkeypatch):
    counter = 0

    class Place:
        @staticmethod
        def inner():
            nonlocal counter
            counter += 3

        @staticmethod
        def outer():
            nonlocal counter
            counter += 10
            Place.inner()
            counter += 20

    def work():
        nonlocal counter
        Place.outer()
        Place.inner()
        counter += 100

    monkeypatch.setattr(search, "WORK", {"outer": (Place, "outer"), "inner": (Place, "inner")})
    before = Place.outer
    assert search.by_part(work, lambda: counter) == {"outer": 30, "inner": 6, "rest": 100} and Place.outer is before


def test_random_identifiers_are_distinct():
    codes = search.distinct_codes(500, 16, 4, seed=0)
    assert codes.shape == (501, 4) and len(codes[1:].unique(dim=0)) == 500 and codes.max() < 16
    assert torch.equal(codes, search.distinct_codes(500, 16, 4, seed=0))
