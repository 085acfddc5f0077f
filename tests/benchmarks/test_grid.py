"""A grid: its lines are read and checked, tuned on validation only, and set what models know."""

import json
import os
import shutil

import pandas as pd
import pytest
import yaml

from benchmarks import grid
from benchmarks.lib import running
from benchmarks.lib.asked import asked_for
from benchmarks.lib.grids import GRIDS, read_points
from benchmarks.report.grid import name_of
from recbole_contrec.settings.config import Config
from tests.helpers.options import TINY

POINTS = [{"learning_rate": 1e-9}, {"learning_rate": 0.01}]


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_grid_sets_what_its_model_knows(path, tmp_path):
    model, _, dataset = path.stem.partition("_on_")
    (tmp_path / dataset).mkdir()
    columns = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (tmp_path / dataset / f"{dataset}.inter").write_text(columns)
    points = read_points(path)
    assert len({name_of(point) for point in points}) == len(points) > 1
    for point in points:
        Config(model, dataset, arguments=[*grid.settings_of(point), f"--data_path={tmp_path}"])


@pytest.mark.parametrize("dataset", ["ml-100k", "ml-1m", "amazon-beauty"])
def test_recbole_s_sequential_models_have_a_grid(dataset):
    for model in ("SASRec", "BERT4Rec", "GRU4Rec"):
        assert len(read_points(GRIDS / f"{model}_on_{dataset}.yaml")) >= 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("learning_rate: [1, 2]", "a list of mappings"),
        ("- 1", "a list of mappings"),
        ("- {}", "a list of mappings"),
        ("- {a: 1}\n- {b: 1}", "the same keys"),
    ],
)
def test_what_is_no_grid_is_refused(tmp_path, capsys, text, message):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    assert grid.main(["--model=SASRec", "--dataset=tiny", f"--grid={path}"]) == 2
    assert message in capsys.readouterr().err
    assert grid.main(["--model=SASRec", "--dataset=tiny", "--grid=nosuch.yaml"]) == 2
    assert "nosuch.yaml" in capsys.readouterr().err


def test_a_grid_keeps_validation_only(tiny, workplace, executed, capsys):
    settings = dict(argument[2:].split("=") for argument in TINY if "show_progress" not in argument)
    (workplace / "grid.yaml").write_text(json.dumps([{**point, **settings} for point in POINTS]))
    command = [
        "--model=GRU4Rec",
        "--dataset=tiny",
        f"--data_path={tiny}",
        "--grid=grid.yaml",
        f"--output={workplace / 'results'}",
    ]
    assert grid.main(command) == 0
    folder = workplace / "results" / "tiny-grid" / "GRU4Rec"
    stored = [json.loads(path.read_text()) for path in folder.glob("*/seed2020.json")]
    assert len(stored) == 2 and not list(folder.glob("*/*.npz"))
    assert not any(key.startswith("test") for content in stored for key in content)
    scores = {content["settings"]["learning_rate"]: content["best_valid_result"]["ndcg@10"] for content in stored}
    assert scores[0.01] > scores[1e-9]
    lines = (folder / "README.md").read_text().splitlines()
    assert lines[4].startswith("| 0.01 |") and lines[5].startswith("| 1e-09 |")
    assert "0.01" in capsys.readouterr().out
    best = yaml.safe_load((folder / "study" / "GRU4Rec_on_tiny.yaml").read_text())
    assert best["learning_rate"] == 0.01 and best["epochs"] == 2 and "data_path" not in best
    assert "Validation curves" in (folder / "study" / "report.html").read_text()
    assert not list(folder.glob("*/*.work"))


@pytest.fixture
def searched(tiny, workplace, monkeypatch):
    """A function (learning rates, *arguments) -> exit code and trials of a grid whose runs take no time; of the grid
    that is there where no rates are given. Runs are noted in ``runs.txt``; at learning rate 9 they fail."""

    def execute(run, data_path, on_epoch):
        rate = float(run.settings[0].partition("=")[2])
        with open("runs.txt", "a") as file:
            file.write(f"{rate} {run.seed}\n")
        if rate == 9:
            raise RuntimeError(f"{run} failed")
        asked, score = asked_for(run, data_path), rate + (run.seed == 2021)
        content = {
            "card": {"dataset": "tiny", "seed": run.seed, "commit": "c0ffee", "device": "cpu"},
            "settings": asked.settings,
            "data": asked.data,
            "best_valid_score": score,
            "best_valid_result": {"ndcg@10": score, "hit@10": score},
            "curve": [{"epoch": 0, "seconds": 1.0, "core_seconds": 1.0, "score": score}],
            "seconds": {"training": 1.0},
            "best_epoch": 0,
            "epochs": 1,
        }
        run.result.parent.mkdir(parents=True, exist_ok=True)
        run.result.write_text(json.dumps(content))

    monkeypatch.setattr(running, "execute", execute)
    study = workplace / "results" / "tiny-grid" / "GRU4Rec" / "study"

    def search(rates, *arguments):
        if rates:
            (workplace / "grid.yaml").write_text(json.dumps([{"learning_rate": rate} for rate in rates]))
        given = ["--model=GRU4Rec", "--dataset=tiny", f"--data_path={tiny}", "--grid=grid.yaml", "--output=results"]
        code = grid.main([*given, *arguments])
        return code, pd.read_csv(study / "trials.csv") if (study / "trials.csv").exists() else None

    return search


def runs_of(workplace):
    return sorted((workplace / "runs.txt").read_text().split("\n")[:-1])


def test_a_grid_runs_what_is_missing(searched, workplace):
    assert searched([0.1, 0.2])[0] == 0
    code, trials = searched([0.1, 0.3, 0.2])
    assert code == 0 and runs_of(workplace) == ["0.1 2020", "0.2 2020", "0.3 2020"]
    assert trials["learning_rate"].tolist() == [0.3, 0.2, 0.1] == trials["valid NDCG@10"].tolist()
    assert trials["seconds"].tolist() == [1, 1, 1]
    next((workplace / "results").glob("tiny-grid/GRU4Rec/*=0.2/seed2020.json")).unlink()
    assert searched([0.1, 0.2])[1]["learning_rate"].tolist() == [0.2, 0.1]
    assert runs_of(workplace).count("0.2 2020") == 2 and len(runs_of(workplace)) == 4


def test_of_several_seeds_a_grid_takes_the_mean(searched, workplace):
    searched([0.1, 0.2])
    code, trials = searched([0.1, 0.2], "--seeds=2")
    assert code == 0 and runs_of(workplace) == ["0.1 2020", "0.1 2021", "0.2 2020", "0.2 2021"]
    assert trials["valid NDCG@10"].tolist() == pytest.approx([0.7, 0.6])
    best = next((workplace / "results").glob("*/*/study/GRU4Rec_on_tiny.yaml")).read_text()
    assert "the mean over seeds 2020, 2021, which is not set here" in best and "learning_rate: 0.2" in best


def test_a_line_that_fails_leaves_the_others(searched, workplace, capsys):
    code, trials = searched([9, 0.1])
    assert code == 1 and trials["state"].tolist() == ["complete", "failed"]
    assert capsys.readouterr().err.endswith("trial 0: learning_rate=9 on tiny, seed 2020 failed")
    assert searched([9, 0.1])[0] == 1 and runs_of(workplace) == ["0.1 2020", "9.0 2020", "9.0 2020"]


def test_results_of_other_settings_are_replaced_where_it_is_asked_for(searched, workplace, capsys):
    searched([0.1, 0.2])
    path = next((workplace / "results").glob("tiny-grid/GRU4Rec/*=0.2/seed2020.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "data": {"tiny.inter": "another"}}))
    assert searched([0.1, 0.2])[0] == 2 and "was run with another tiny.inter" in capsys.readouterr().err
    assert searched([0.1, 0.2], "--again")[0] == 0
    assert runs_of(workplace) == ["0.1 2020", "0.2 2020", "0.2 2020"]


def test_processes_share_the_lines_of_a_grid(searched, workplace):
    (workplace / "grid.yaml").write_text(json.dumps([{"learning_rate": rate / 10} for rate in range(1, 6)]))
    children = []
    for _ in range(2):
        if not (child := os.fork()):
            code = 1
            try:
                code = searched([])[0]
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert runs_of(workplace) == [f"0.{n} 2020" for n in range(1, 6)]
    assert len(pd.read_csv(next((workplace / "results").glob("*/*/study/trials.csv")))) == 5


def test_tables_of_what_is_recorded_need_no_study(searched, workplace):
    searched([0.1, 0.2])
    folder = workplace / "results" / "tiny-grid" / "GRU4Rec"
    page = (folder / "README.md").read_text()
    shutil.rmtree(folder / "study")
    assert searched([0.1, 0.2], "--tables-only") == (0, None) and not (folder / "study").exists()
    assert (folder / "README.md").read_text() == page
