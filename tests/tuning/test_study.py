"""Searches: they choose on validation, go on, share, and refuse what would mix up trials."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pandas as pd
import pytest
import yaml

from recbole_contrec import run
from recbole_contrec.cli import main
from recbole_contrec.errors import UserError
from recbole_contrec.training.trainer import RunTrainer
from recbole_contrec.tuning import killed as killing
from recbole_contrec.tuning import study as studies
from recbole_contrec.tuning.report import table, write_reports
from recbole_contrec.tuning.space import Choice, Range
from recbole_contrec.tuning.study import Search, tune
from tests.helpers.files import ROOT

SMALL = ("--epochs=2", "--hidden_size=16", "--inner_size=16", "--MAX_ITEM_LIST_LENGTH=10")
SPACE = {"learning_rate": Range(1e-3, 0.1, None, True), "hidden_dropout_prob": Choice((0.1, 0.3))}


@pytest.fixture
def search(tiny, workplace):
    """A function (space, **changes) -> a search over SASRecAll."""

    def make(space=SPACE, arguments=(), **changes):
        given = {"arguments": [*SMALL, f"--data_path={tiny}", *arguments], "prunes": False, **changes}
        return Search(
            dataset="tiny", space=space, **{"model": "SASRecAll", "folder": Path("found"), "name": "study", **given}
        )

    return make


def command(tiny, *more):
    return ["tune", "--model=SASRecAll", "--dataset=tiny", f"--data_path={tiny}", *SMALL, *more]


def test_the_best_settings_are_those_of_the_best_validation(tiny, workplace, capsys):
    Path("space.yaml").write_text("learning_rate: {low: 1e-3, high: 1e-1, log: True}\nattn_dropout_prob: [0.1, 0.3]\n")
    assert main(command(tiny, "--space=space.yaml", "--trials=3", "--output=found")) == 0
    said = capsys.readouterr().out
    first = next(line for line in said.splitlines() if line.startswith("trial 0: NDCG@10"))
    assert "learning_rate=0.001, attn_dropout_prob=0.3" in first and "epoch 0 training" not in said
    table = pd.read_csv("found/trials.csv", float_precision="round_trip")
    assert len(table) == 3 and table["valid NDCG@10"].is_monotonic_decreasing
    assert (table["valid NDCG@10"] == table["valid ndcg@10"]).all() and not any("test" in name for name in table)
    best = yaml.safe_load(Path("found/SASRecAll_on_tiny.yaml").read_text())
    head = Path("found/SASRecAll_on_tiny.yaml").read_text().splitlines()[1]
    assert head == "# Chosen with seed 2020, which is not set here." and "seed" not in best
    assert best["epochs"] == 2 and best["learning_rate"] == table["learning_rate"][0] and "data_path" not in best
    page = Path("found/report.html").read_text()
    assert "plotly" in page and page.count("<h2>") >= 4 and "<script src" not in page
    assert not list(Path("found/runs").glob("trial-*"))
    again = run(
        "SASRecAll", "tiny", config_file_list=["found/SASRecAll_on_tiny.yaml"], arguments=[f"--data_path={tiny}"]
    )
    assert again["best_valid_score"] == table["valid NDCG@10"][0]


def test_test_data_are_not_ranked(search, monkeypatch):
    ranked, evaluate = [], RunTrainer.evaluate

    def watched(self, data, *args, **kwargs):
        ranked.append(data)
        return evaluate(self, data, *args, **kwargs)

    monkeypatch.setattr(RunTrainer, "evaluate", watched)
    assert tune(search(), 1).best_value > 0
    assert len(ranked) == 2 and ranked[0] is ranked[1]  # the validation data, after each of two epochs


def test_a_search_goes_on_and_does_not_draw_the_same_again(search):
    tune(search(), 2)
    study = tune(search(), 4)
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    rates = [trial.params["learning_rate"] for trial in study.trials]
    assert len(set(rates)) == 4 and rates[0] == pytest.approx(1e-3)
    assert tune(search(), 3).trials == study.trials


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"space": {"learning_rate": Range(1e-3, 0.2, None, True)}}, "space"),
        ({"arguments": ["--n_layers=1"]}, "settings"),
        ({"arguments": ["--seed=7"]}, "seed"),
        ({"arguments": ["--valid_metric=Recall@10"]}, "valid_metric"),
    ],
)
def test_a_study_of_something_else_is_refused(search, changes, word):
    tune(search(), 1)
    with pytest.raises(UserError, match=f"begun with another .*{word}"):
        tune(search(**changes), 2)


def test_a_study_of_another_program_is_refused(search):
    Path("found").mkdir()
    optuna.create_study(storage="sqlite:///found/study.db", study_name="study").add_trial(
        optuna.trial.create_trial(value=1.0)
    )
    with pytest.raises(UserError, match="another program"):
        tune(search(), 2)


def test_what_was_stopped_is_done_again(search, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    tune(search(), 1)
    with monkeypatch.context() as patched:
        patched.setattr(studies, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tune(search(), 2)
    study = tune(search(), 2)
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE"] and study.trials[1].params == study.trials[2].params


def test_the_last_trial_of_a_killed_process_is_done_again(search, monkeypatch):
    """Here of one that left no mark but a sign of life."""
    monkeypatch.setattr(studies, "BEAT", 1)
    monkeypatch.setattr(studies, "GRACE", 1)
    tune(search(), 1)
    study = optuna.load_study(study_name="study", storage="sqlite:///found/study.db")
    killed = study.ask()
    study._storage.record_heartbeat(killed._trial_id)
    Path("found/runs/trial-1").mkdir()
    assert [trial.state.name for trial in tune(search(), 2).trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert not list(Path("found/runs").iterdir())


def killed(begin):
    """Begin a search in a process that kills itself on the way."""
    if not (child := os.fork()):
        try:
            begin()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def do_not_wait(*_):
    raise AssertionError("it waits")


def test_a_trial_that_was_killed_before_its_first_sign_of_life_is_done_again_at_once(search, monkeypatch):
    from optuna.storages import _heartbeat

    def begin():
        _heartbeat.HeartbeatThread.start = die
        tune(search(), 1)

    killed(begin)
    monkeypatch.setattr(studies.time, "sleep", do_not_wait)
    assert [trial.state.name for trial in tune(search(), 1).trials] == ["FAIL", "COMPLETE"]
    assert not list(Path("found/processes").iterdir())


def test_a_killed_trial_goes_on_at_once_after_its_last_epoch(search, monkeypatch):
    whole = tune(search(folder=Path("whole")), 1).trials[0]
    save, trained = RunTrainer.save_state, []

    def save_and_die(self, epoch, data):
        save(self, epoch, data)
        die()

    def begin():
        RunTrainer.save_state = save_and_die
        tune(search(), 1)

    def watched(self, epoch, data):
        trained.append(epoch)
        return save(self, epoch, data)

    killed(begin)
    monkeypatch.setattr(studies.time, "sleep", do_not_wait)
    monkeypatch.setattr(RunTrainer, "save_state", watched)
    first, again = tune(search(), 1).trials
    assert (first.state.name, again.state.name) == ("FAIL", "COMPLETE") and trained == [1]
    assert again.params == first.params and again.value == whole.value
    assert again.intermediate_values == whole.intermediate_values
    assert not list(Path("found/runs").glob("trial-*"))


def test_the_trial_of_a_process_that_lives_is_not_touched(search, monkeypatch):
    """It gives no sign of life: its process is there nevertheless, until it ends without a word on its trial."""
    tune(search(), 1)
    monkeypatch.setattr(studies.time, "sleep", do_not_wait)
    ready, done = os.pipe(), os.pipe()
    if not (child := os.fork()):
        try:
            with killing.working(Path("found")) as process:
                asked = optuna.load_study(study_name="study", storage="sqlite:///found/study.db").ask()
                asked.set_user_attr(killing.PROCESS, process)
                os.write(ready[1], b"x")
                os.read(done[0], 1)
        finally:
            os._exit(0)
    os.read(ready[0], 1)
    study = optuna.load_study(study_name="study", storage="sqlite:///found/study.db")
    killing.repeat_killed(study, Path("found"), True)
    states = [trial.state.name for trial in study.trials]
    os.write(done[1], b"x")
    os.waitpid(child, 0)
    assert states == ["COMPLETE", "RUNNING"]
    assert [trial.state.name for trial in tune(search(), 2).trials] == ["COMPLETE", "FAIL", "COMPLETE"]


def test_a_trial_of_another_folder_that_never_gave_a_sign_of_life_is_not_waited_for_for_ever(search, monkeypatch):
    given = {"storage": "sqlite:///shared.db"}
    tune(search(**given), 1)
    study = optuna.load_study(study_name="study", storage="sqlite:///shared.db")
    study.ask()
    killing.repeat_killed(study, Path("found"), False)
    assert study.trials[1].state.name == "RUNNING"  # it may have been asked for just now
    monkeypatch.setattr(killing, "GRACE", -1)
    assert [trial.state.name for trial in tune(search(**given), 2).trials] == ["COMPLETE", "FAIL", "COMPLETE"]


@pytest.mark.parametrize(
    "changes, where",
    [
        ({"name": "other"}, "study,"),
        ({"name": "other", "model": "SASRec", "storage": "sqlite:///shared.db"}, "study,"),
        ({"storage": "sqlite:///shared.db"}, "study of another storage,"),
    ],
)
def test_two_studies_do_not_write_into_one_folder(search, changes, where):
    tune(search(), 1)
    write_reports(search(), optuna.load_study(study_name="study", storage="sqlite:///found/study.db"))
    before = {path: path.read_bytes() for path in Path("found").glob("*.*")}
    with pytest.raises(UserError, match=f"found has the reports of the study {where}.* choose another --output"):
        tune(search(**changes), 1)
    assert {path: path.read_bytes() for path in Path("found").glob("*.*")} == before
    assert len(tune(search(), 1).trials) == 1


def test_a_folder_of_an_earlier_version_belongs_to_its_study(search):
    tune(search(), 1)
    Path("found/study.txt").unlink()
    with pytest.raises(UserError, match="reports of the study study,"):
        tune(search(name="other"), 1)
    assert len(tune(search(), 1).trials) == 1 and Path("found/study.txt").exists()


def test_points_of_a_grid_are_tried_once_and_nothing_else(search, monkeypatch):
    points = [{"learning_rate": 0.1}, {"learning_rate": 0.01}, {"learning_rate": 0.001}]
    seen = []

    def train(chosen, report):
        seen.append(chosen)
        if len(seen) == 2:
            raise UserError("it fails")
        report(0, 0.5)
        return {"best_valid_score": chosen["learning_rate"], "best_valid_result": {}, "best_epoch": 0, "epochs": 1} | {
            "seconds": {}
        }

    grid = {"space": {"learning_rate": Choice((0.1, 0.01, 0.001))}, "points": points, "train": train}
    tune(search(**grid), 1)
    study = tune(search(**grid), 3)
    assert seen == points and tune(search(**grid), 3).trials == study.trials
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "COMPLETE"]
    studies.begin_anew(search(**grid))
    assert not Path("found/study.db").exists() and len(tune(search(**grid), 3).trials) == 3


@pytest.mark.parametrize("score", [float("nan"), float("-inf")])
def test_a_trial_without_a_score_is_not_asked_for_for_ever(search, monkeypatch, score):
    tune(search(), 1)
    result = {"best_valid_score": score, "best_valid_result": {}, "best_epoch": 0, "epochs": 1, "seconds": {}}
    asked = iter([result])  # once
    monkeypatch.setattr(studies, "run", lambda *_, **__: next(asked))
    assert "validation score" in tune(search(), 2).trials[1].user_attrs["error"]


def test_settings_that_do_not_go_together_cost_one_trial(search, monkeypatch):
    tune(search(), 1)

    def fail(*_, **__):
        raise UserError("these do not go together")

    with monkeypatch.context() as patched:
        patched.setattr(studies, "run", fail)
        study = tune(search(), 2)
    assert study.trials[1].user_attrs["error"] == "these do not go together" and study.best_trial.number == 0


def test_the_fault_of_all_trials_is_told_at_once_and_in_one_line(search, monkeypatch):
    said = []
    monkeypatch.setattr(optuna.logging._default_handler, "emit", said.append)

    def fail(*_, **__):
        raise UserError("no room on the disk")

    monkeypatch.setattr(studies, "run", fail)
    with pytest.raises(UserError, match="no room"):
        tune(search(), 2)
    assert not said


def test_a_trial_that_lags_behind_stops(search, monkeypatch):
    """The median of five good trials is above a sixth one in its first epoch."""
    good = iter([True] * 5 + [False])

    def fake(*_, callback_fn, **__):
        fine = next(good)
        callback_fn(0, 0.5 if fine else 0.1)
        assert fine, "it was not stopped"
        return {"best_valid_score": 0.5, "best_valid_result": {}, "best_epoch": 0, "epochs": 1, "seconds": {}}

    monkeypatch.setattr(studies, "run", fake)
    study = tune(search(prunes=True), 6)
    assert study.trials[5].state == optuna.trial.TrialState.PRUNED


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"space": {"lerning_rate": Choice((1e-3,))}}, "did you mean learning_rate"),
        ({"space": {"warmup_ratio": Range(0.0, 2.0)}}, "warmup_ratio=2.0"),
        ({"arguments": ["--learning_rate=1e-3"]}, "given, and in the space"),
        ({"arguments": ["--checkpoint_dir=x"]}, "tune sets it"),
        ({"folder": Path(__file__)}, "output"),
        ({"arguments": ["--eval_step=0"]}, "eval_step must be at least 1"),
        ({"space": {"valid_metric": Choice(("NDCG@10", "Recall@10"))}}, "valid_metric: decides what is measured"),
        ({"space": {"val_interval": Choice(({"rating": "[3,inf)"},))}}, "val_interval: decides"),
        ({"storage": "sqlite:////nowhere/x.db"}, "storage sqlite"),
        ({"storage": "mssql+pymssql://here/x"}, "storage mssql"),
    ],
)
def test_faults_are_told_before_the_first_trial(search, changes, message):
    with pytest.raises(UserError, match=message):
        tune(search(**changes), 1)


def test_runs_without_epochs_are_refused(tiny, workplace):
    """RecBole's own models accept none: they are tested as they are."""
    given = ["--epochs=0", f"--data_path={tiny}"]
    with pytest.raises(UserError, match="epochs must be at least 1"):
        tune(Search("SASRec", "tiny", SPACE, Path("found"), "study", arguments=given), 1)


def test_two_processes_share_the_trials(tiny, workplace):
    arguments = [*command(tiny, "--trials=4", "--output=found"), "--no-pruning"]
    program = [sys.executable, str(ROOT / "run_recbole_contrec.py"), *arguments]
    both = [subprocess.Popen(program, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    table = pd.read_csv("found/trials.csv")
    assert sorted(table["trial"]) == [0, 1, 2, 3] and all(said.count(f"trial {n}:") == 1 for n in range(4))
    assert table["learning_rate"].nunique() == 4


@pytest.mark.parametrize(
    "given, message",
    [
        (["--model=SASRecAl"], "did you mean SASRecAll"),
        (["--model=SASRecAll", "--trails=3"], "unknown option --trails .did you mean trials"),
        (["--model=SASRecAll", "--output="], "--output= has no value"),
    ],
)
def test_misspelt_and_empty_options_are_told(tiny, workplace, capsys, given, message):
    assert main(["tune", "--dataset=tiny", f"--data_path={tiny}", *given]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_epochs_that_were_searched_stand_beside_those_that_were_trained(search):
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(studies.ASKED, {"valid_metric": "NDCG@10", "seed": 1})
    among = {"epochs": optuna.distributions.CategoricalDistribution(["1", "3"])}
    study.add_trial(
        optuna.trial.create_trial(value=0.5, params={"epochs": "3"}, distributions=among, user_attrs={"epochs": 2})
    )
    row = table(search(space={"epochs": Choice((1, 3))}), study).iloc[0]
    assert (row["epochs"], row["epochs trained"]) == (3, 2)


def test_the_page_shows_settings_as_they_are(search):
    given = search(settings={"note": "<history> & <item>"})
    assert "&lt;history&gt; &amp;" in _page_of(given)


def _page_of(given):
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(studies.ASKED, {"valid_metric": "NDCG@10", "seed": 1})
    study.add_trial(optuna.trial.create_trial(value=0.5))
    given.folder.mkdir()
    write_reports(given, study)
    return Path("found/report.html").read_text()
