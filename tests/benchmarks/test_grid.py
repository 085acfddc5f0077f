"""A grid: its lines are read and checked, tuned on validation only, and set what models know."""

import json

import pytest

from benchmarks import grid
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
