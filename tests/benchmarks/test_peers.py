"""Peers: what is exchanged with the other environment, how places are counted, and the command from end to end with a
stand-in for the other package."""

import json
import sys

import numpy as np
import pytest
import torch

from benchmarks import peers
from benchmarks.lib import peer_speed
from benchmarks.lib import peers as lib
from benchmarks.lib.measuring import in_workplace
from benchmarks.lib.runs import Run
from benchmarks.peer.exchange import (
    MASKED,
    STATE,
    TEST,
    VALID,
    Ranked,
    Task,
    read_outcome,
    read_task,
    write_outcome,
    write_task,
)
from benchmarks.report import peers as report
from benchmarks.report.marked import with_tables
from recbole_contrec.data.loading import load_data
from recbole_contrec.errors import UserError
from tests.helpers.files import ROOT
from tests.helpers.options import TINY_CONTREC

TASK = Task(6, np.array([1, 2, 3, 4, 5]), np.array([0, 3, 5]), np.array([4, 0]), np.array([5, 6]))
ASKED = {
    "model": "SASRec",
    "settings": {"session_max_len": 10},
    "epochs": 3,
    "patience": 1,
    "seed": 2020,
    "threads": 1,
    "top": 20,
}
# Settings that the command makes equal, and those of where and how it runs.
TINY = [
    argument
    for argument in TINY_CONTREC
    if argument.split("=")[0]
    not in (
        "--use_gpu",
        "--show_progress",
        "--MAX_ITEM_LIST_LENGTH",
        "--hidden_size",
        "--vector_size",
        "--denoiser_width",
        "--n_layers",
        "--inner_size",
        "--epochs",
    )
]
SASREC = ["--models", "SASRecAll", "--train_batch_size=256"]


@pytest.fixture
def stand_in(monkeypatch):
    """The other environment is this one, and the other package a count of items."""
    monkeypatch.setattr(lib, "SCRIPT", "tests.helpers.stand_in_peer")
    monkeypatch.setattr(
        peer_speed, "isolated", lambda function, *arguments, threads: in_workplace(function, arguments, threads)
    )


@pytest.fixture
def split(config_of):
    """The tiny data set, split."""
    config = config_of("SASRecAll")
    return lib.split_of(config, load_data(config))


@pytest.fixture
def command(tiny, tmp_path, stand_in):
    """A function (*arguments) -> exit code of the command on the tiny data set; results go to ``results``."""

    def call(*arguments):
        return peers.main(
            [
                "--dataset=tiny",
                f"--data_path={tiny}",
                f"--output={tmp_path / 'results'}",
                f"--peer_python={sys.executable}",
                "--history=10",
                "--width=16",
                "--layers=1",
                "--epochs=2",
                "--rounds=1",
                *arguments,
            ]
        )

    return call


# the exchange


def test_a_task_and_an_outcome_come_back_as_they_were_written(tmp_path):
    write_task(tmp_path, TASK, ASKED)
    task, asked = read_task(tmp_path)
    assert asked == ASKED and task.n_items == 6 and task.n_users == 2
    assert all(np.array_equal(own, other) for own, other in zip(task[1:], TASK[1:], strict=True))
    rankings = {
        name: Ranked(np.array([1, 2]), np.array([0, i]), np.eye(2)) for i, name in enumerate((VALID, TEST, MASKED))
    }
    write_outcome(tmp_path, rankings, {"best_epoch": 1})
    found, outcome = read_outcome(tmp_path)
    assert (
        outcome == {"best_epoch": 1} and found[MASKED].ties.tolist() == [0, 2] and found[VALID].ties.tolist() == [0, 0]
    )


def test_histories_before_validation_and_before_the_test():
    assert [items.tolist() for items in TASK.histories(VALID)] == [[1, 2, 3], [4, 5]]
    assert [items.tolist() for items in TASK.histories(TEST)] == [[1, 2, 3, 4], [4, 5]]


def test_the_split_is_recboles(split):
    """User by user against the rows that RecBole evaluates."""
    data, task, dataset = split.data, split.task, split.data.dataset
    place = {name: row for row, name in enumerate(split.names)}
    assert task.n_users == dataset.user_num - 1 and task.n_items == dataset.item_num - 1
    for phase, targets, part in ((VALID, task.valid, data.valid), (TEST, task.test, data.test)):
        rows, histories = part.dataset.inter_feat, task.histories(phase)
        assert len(rows) == (targets > 0).sum()
        for user, item, history, length in zip(
            dataset.id2token(dataset.uid_field, rows[dataset.uid_field].numpy()),
            rows[dataset.iid_field].tolist(),
            rows["item_id_list"].tolist(),
            rows["item_length"].tolist(),
        ):
            assert targets[place[user]] == item
            assert histories[place[user]][-10:].tolist() == history[:length]


def test_popularity_over_there_is_popularity_here(split, assembled, tmp_path, stand_in):
    """Every metric, rank and tie of the stand-in is that of our evaluator on the same scores, which tie a lot."""
    rankings, outcome = lib.run_peer(sys.executable, tmp_path / "peer", split, {**ASKED, "epochs": 1})
    counts = torch.bincount(torch.from_numpy(split.task.items), minlength=1 + split.task.n_items).float()
    of_names = np.argsort(split.names)
    for mask, ranked in ((False, rankings[TEST]), (True, rankings[MASKED])):
        loaded = assembled("SASRecAll", f"--mask_seen={mask}")
        loaded.model.full_sort_predict = lambda rows: counts.expand(len(rows), -1).clone()
        tested = loaded.trainer.evaluate(loaded.data.test, load_best_model=False, save_ranks=True)
        assert lib.metrics(split.config, ranked, split.task.test) == tested
        with np.load(loaded.trainer.folder / "test_ranks.npz") as stored:
            order = np.argsort(stored["user"])
            assert (stored["user"][order] == split.names[of_names]).all() and stored["ties"].any()
            assert (stored["rank"][order] == ranked.rank[of_names]).all()
            assert (stored["ties"][order] == ranked.ties[of_names]).all()
        if not mask:
            validated = loaded.trainer.evaluate(loaded.data.valid, load_best_model=False)
            assert lib.metrics(split.config, rankings[VALID], split.task.valid) == validated
            assert outcome["curve"][0]["score"] == pytest.approx(validated["ndcg@10"], abs=5e-5)
    assert (rankings[TEST].rank > rankings[MASKED].rank).any()


# the command


def test_accuracy_and_speed_end_to_end(command, executed, tmp_path, capsys):
    assert command(*SASREC, "--peer_settings", "best_epoch=1") == 0
    folder = tmp_path / "results" / "tiny-peers"
    printed = capsys.readouterr().out
    names = ["RecTools-SASRec,best_epoch=1", "RecTools-BERT4Rec,best_epoch=1", "SASRecAll"]
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted(names)
    peer, ours = (json.loads((folder / name / "seed2020.json").read_text()) for name in (names[0], names[2]))
    assert peer["best_epoch"] == 1 and peer["epochs"] == 2 and len(peer["curve"]) == 2
    assert (
        peer["best_valid_score"]
        == peer["best_valid_result"]["ndcg@10"]
        == pytest.approx(peer["curve"][1]["score"], abs=5e-5)
    )
    assert peer["settings"]["batch_size"] >= 1 and peer["settings"]["session_max_len"] == 10
    assert peer["card"]["versions"]["stand-in"] == "1.0" and peer["card"]["test_users_per_second"] == 80
    assert peer["data"] == ours["data"] and ours["settings"]["hidden_size"] == 16
    assert peer["test_result"].keys() == ours["test_result"].keys()
    assert str(tmp_path) not in json.dumps(peer)
    assert "| against RecTools-" in printed
    assert f"| {names[0]} | as in RecTools | 1 | 10 | .{peer['best_valid_result']['ndcg@10'] * 1e4:04.0f} |" in printed
    assert "| 2 | 0.0 | 80 | 100 | 60 | cpu, 1 threads |" in printed
    assert f"{names[0]} trains on {peer['card']['interactions_an_epoch']:,} interactions and knows 60 of 60" in printed
    assert "Peers ran with stand-in 1.0, numpy " in printed
    assert "| SASRecAll | SASRec, loss at every position | 1 | 10 |" in printed
    assert report.tables(folder) in printed and report.tables(folder) in (folder / "README.md").read_text()
    page = with_tables("<!-- peers: tiny-peers -->\n<!-- end -->", tmp_path / "results")
    assert page == f"<!-- peers: tiny-peers -->\n{report.tables(folder).rstrip()}\n<!-- end -->"
    speed = json.loads((folder / "speed.json").read_text())
    assert [row["name"] for row in speed["rows"]] == names
    assert "SASRecAll trains" in printed and f"times as fast as {names[0]}." in printed
    assert not list(folder.glob("**/*.work")) and str(tmp_path) not in json.dumps(speed)

    names_before = list(executed[0])
    assert command(*SASREC, "--peer_settings", "best_epoch=1", "--parts", "accuracy") == 0
    assert executed[0] == names_before  # what is finished is not repeated
    assert command("--tables-only") == 0


def test_a_killed_run_goes_on_and_another_is_refused(command, tmp_path, monkeypatch, capsys):
    only = [*SASREC, "--peers", "RecTools-SASRec", "--parts", "accuracy", "--peer_settings", "best_epoch=1"]
    monkeypatch.setattr(peers, "run_all", lambda *_: [])  # ours
    monkeypatch.setattr(peers, "versions_of", lambda _: {"stand-in": "1.0"})
    folder = tmp_path / "results" / "tiny-peers" / "RecTools-SASRec,best_epoch=1"
    monkeypatch.setenv("STAND_IN_FAILS", "0")
    assert command(*only, "--parts", "speed") == 1 and "was told to fail" in capsys.readouterr().err
    assert command(*only) == 1 and not (folder / "seed2020.work").exists()  # nothing to go on with
    assert "failed with exit code 1" in (said := capsys.readouterr().err) and "was told to fail" in said
    monkeypatch.setenv("STAND_IN_FAILS", "1")
    assert command(*only) == 1 and (folder / "seed2020.work" / STATE).is_file()
    assert command(*only, "--epochs=3") == 2
    assert "seed2020.work was run with epochs=2, not 3: choose another --output" in capsys.readouterr().err
    monkeypatch.delenv("STAND_IN_FAILS")
    assert command(*only) == 0
    result = json.loads((folder / "seed2020.json").read_text())
    assert result["epochs"] == 2 and result["best_epoch"] == 1
    output = capsys.readouterr()
    assert "RecTools-SASRec" in output.out
    assert command(*only, "--width=32") == 2 and "n_factors=16, not 32" in capsys.readouterr().err
    assert command(*only, "--width=32", "--again") == 0
    assert json.loads((folder / "seed2020.json").read_text())["settings"]["n_factors"] == 32


def test_without_the_other_environment_a_line_says_what_to_install(command, monkeypatch, capsys):
    assert peers.main(["--dataset=tiny"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pip install 'rectools[torch]'" in said
    assert command("--peer_python=/nowhere/python") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "/nowhere/python: No such file" in said and "'rectools[torch]'" in said
    monkeypatch.setattr(lib, "SCRIPT", "benchmarks.peer.not_there")
    assert command() == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "No module named benchmarks.peer.not_there" in said and "pip install" in said


def test_what_is_asked_for_wrongly_is_said_in_a_line(command, capsys):
    for arguments, message in (
        (["--peer_settings", "dropout"], "'dropout' is not KEY=VALUE"),
        (["--peers", "Spotlight"], "invalid choice"),
        (["--dropuot=1"], "did you mean"),
    ):
        try:
            status = command(*arguments)
        except SystemExit as error:
            status = error.code
        assert status == 2 and message in capsys.readouterr().err


def test_other_environments_find_this_checkout_alone(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("VIRTUAL_ENV", "/ours")
    found = lib.environment(3)
    assert found["PYTHONPATH"] == str(ROOT) and found["OMP_NUM_THREADS"] == "3" and "VIRTUAL_ENV" not in found


def test_threads_of_runs_are_put_back(monkeypatch):
    import os

    for before in ("7", None):
        monkeypatch.setenv("OMP_NUM_THREADS", before) if before else monkeypatch.delenv("OMP_NUM_THREADS")
        with lib.threads_of_runs(1):
            assert os.environ["OMP_NUM_THREADS"] == "1"
        assert os.environ.get("OMP_NUM_THREADS") == before


def test_settings_that_all_have_alike(tiny):
    given = peers._parse(["--dataset=tiny", f"--data_path={tiny}", "--width=32", "--history=20", "--inner_size=48"])
    contrec, sasrec = (peers.equal_settings(model, given) for model in ("ContRec", "SASRecAll"))
    alike = {"--MAX_ITEM_LIST_LENGTH=20", "--n_layers=2", "--n_heads=2", "--hidden_size=32", "--use_gpu=False"}
    assert alike < set(contrec) and alike < set(sasrec)
    assert "--vector_size=32" in contrec and not any(text.startswith("--vector_size") for text in sasrec)
    assert "--inner_size=48" in contrec and not any(text.startswith("--epochs") for text in contrec)


def test_a_step_of_a_peer_has_as_many_targets(split):
    config = {**split.config.settings, "train_batch_size": 60}
    lengths = np.minimum(np.diff(split.task.offsets) - 1, 5)
    found = peers.histories_a_step(lib.Split(config, split.data, split.task, {}, split.names), 5)
    assert abs(found * lengths.mean() - 60) <= lengths.mean() / 2


def test_data_that_changed_are_noticed():
    stored = {"settings": {**lib.flat(ASKED), "threads": 4}, "data": {"tiny.inter": "a"}}
    assert lib.differences(stored, ASKED, {"tiny.inter": "a"}) == []
    assert lib.differences(stored, ASKED, {"tiny.inter": "b"}) == ["another tiny.inter"]
    assert lib.differences(None, ASKED, {}) == []
    assert lib.missing([], None, False) == []


def test_a_result_of_ours_at_its_place_is_no_run_of_a_peer(tmp_path, split):
    run = Run("RecTools-SASRec", "tiny", 2020, tmp_path)
    run.result.parent.mkdir(parents=True)
    run.result.write_text(json.dumps({"card": {"dataset": "tiny"}}))
    with pytest.raises(UserError, match="is damaged, or no result of a run"):
        lib.missing([lib.PeerRun(run, ASKED)], split, False)
