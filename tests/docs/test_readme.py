"""The README's examples work as they stand."""

import json
import re

import pytest

from tests.helpers.files import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROPERTIES = ROOT / "properties" / "model"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def arguments_in_comments():
    """Model and ``--key=value`` arguments, as the comments of its YAML name them together."""
    for file in PROPERTIES.glob("*.yaml"):
        text = re.sub(r"\n# *", " ", file.read_text(encoding="utf-8"))
        for arguments in re.findall(r"(?:--\w+=[^\s,;.]+(?:\.[^\s,;.]+)* ?)+", text):
            yield file.stem.partition("_on_")[0], arguments


def test_python_example_on_the_bundled_data(workplace):
    first, new_people_and_items = blocks("python")
    names = {}
    exec(first, names)
    table = names["table"]
    assert table["user_id"].tolist() == ["196"] * 5 + ["186"] * 5 and table["movie_title"].str.len().gt(0).all()
    assert names["result"]["card"]["interactions"] == 100_000
    assert names["result"]["test_result"]["ndcg@10"] > 0.02  # one epoch; popularity alone reaches less
    exec(new_people_and_items, names)
    assert len(names["table"]) == 5 and names["loaded"].data.dataset.item_num == 1 + 1682 + 2


def test_yaml_examples_register_models(tiny, workplace):
    from recbole_contrec.settings.config import Config

    extends, own_class = blocks("yaml")
    folder = workplace / "properties" / "model"
    folder.mkdir(parents=True)
    (folder / "MyRec.yaml").write_text(extends)
    (folder / "Mine.yaml").write_text(own_class)
    (workplace / "my_module.py").write_text(
        "from recbole.model.sequential_recommender.sasrec import SASRec\n\n\nclass MyModel(SASRec):\n    pass\n"
    )
    config = Config("MyRec", "tiny", arguments=[f"--data_path={tiny}"])
    assert config["item_tokens"] == 4 and config["item_positions"] == "each" and config["hidden_size"] == 64
    config = Config("Mine", "tiny", arguments=[f"--data_path={tiny}"])
    assert config.model_class.__name__ == "MyModel" and config["hidden_size"] == 64


def test_the_gate_runs_the_test_command_of_the_readme():
    gate = (ROOT / ".ci" / "run").read_text()
    pattern = re.search(r"grep -m1 -E '([^']*)'", gate).group(1)
    (command,) = re.findall(pattern, README, re.M)
    assert command.split() == ["pip", "install", "-c", "constraints.txt", '".[test]"', "&&", "pytest"]


@pytest.mark.parametrize("setting", re.findall(r"`(\w+)=", README))
def test_settings_named_in_the_readme_exist(setting):
    from recbole_contrec.catalogue.places import properties_folders
    from recbole_contrec.settings.registry import find_model, general_settings

    folders = properties_folders()
    assert setting in {**general_settings(folders)[0], **find_model("ContRec", folders).settings}


@pytest.mark.parametrize("model, arguments", sorted(arguments_in_comments()))
def test_what_comments_of_settings_recommend_is_accepted(model, arguments, tiny):
    from recbole_contrec.settings.config import Config

    Config(model, "tiny", arguments=[f"--data_path={tiny}", *arguments.split()])


@pytest.mark.parametrize("name", ["README.md", "results.md"])
def test_tables_are_those_of_the_result_files(name):
    from benchmarks import readme
    from benchmarks.report import marked

    (text,) = (path.read_text(encoding="utf-8") for path in readme.TEXTS if path.name == name)
    assert marked.BLOCK.search(text), f"{name} quotes no results"
    assert marked.with_tables(text) == text, "python benchmarks/readme.py writes them anew"


HEADERS = {
    "ml-1m": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tgenre:token_seq",
    ),
    "amazon-beauty": (
        "user_id:token\titem_id:token\ttimestamp:float",
        "item_id:token\ttitle:token_seq\tcategory:token_seq",
    ),
}
RESULTS = ROOT / "benchmarks" / "results"
FIRST_RUNS = {
    path.parent: path
    for dataset in ("ml-100k", *HEADERS)
    for path in sorted((RESULTS / dataset).glob("*/seed*.json"), reverse=True)
}


@pytest.mark.parametrize("path", FIRST_RUNS.values(), ids=lambda path: f"{path.parts[-3]}-{path.parts[-2]}")
def test_rows_of_the_tables_have_the_settings_of_today(path, tmp_path):
    from benchmarks.lib.runs import PATHS
    from recbole_contrec.quick_start import settings_of
    from recbole_contrec.settings.config import Config

    dataset, row = path.parts[-3:-1]
    model, *further = row.split(",")
    arguments = [f"--{setting}" for setting in further]
    if dataset in HEADERS:
        arguments.append(f"--data_path={tmp_path}")
        (tmp_path / dataset).mkdir()
        for header, kind in zip(HEADERS[dataset], ("inter", "item")):
            (tmp_path / dataset / f"{dataset}.{kind}").write_text(header + "\n")
    content = json.loads(path.read_text())
    today = settings_of(Config(model, dataset, arguments=[*arguments, f"--seed={content['card']['seed']}"]))
    different = {
        key: (value, today.get(key))
        for key, value in content["settings"].items()
        if key not in (*PATHS, "show_progress") and today.get(key) != value
    }
    assert not different


def test_tables_follow_the_results(tmp_path):
    from benchmarks.report import marked
    from tests.benchmarks.test_compare import write_result

    write_result(tmp_path / "tiny", "ContRec", 1, [1, 1, 2, 1, 3, 1])
    text = "before\n<!-- accuracy: tiny -->\nold\n<!-- end -->\nafter"
    written = marked.with_tables(text, tmp_path)
    assert "old" not in written and "| ContRec | 1 |" in written
    assert written.startswith("before\n<!-- accuracy: tiny -->\n| model") and written.endswith("|\n<!-- end -->\nafter")
    assert marked.with_tables(written, tmp_path) == written
    write_result(tmp_path / "ml-1m", "ContRec", 1, [1, 1, 2, 1, 3, 1])
    write_result(tmp_path / "amazon-beauty", "SASRec", 1, [1, 1, 2, 1, 3, 1])
    overview = marked.with_tables("<!-- overview: . -->\n<!-- end -->", tmp_path).splitlines()
    assert (
        overview[1].count("NDCG@10") == 2
        and overview[3].startswith("| ContRec | **")
        and overview[3].endswith("|  |  |  |")
    )
    assert overview[4].startswith("| SASRec |  |  |  | **")
    write_result(tmp_path / "ml-1m", "TIGER", 1, [1, 1, 2, 1, 3, 1], device="NVIDIA H100")
    write_result(tmp_path / "ml-1m", "TIGER,n_layers=2", 1, [1, 1, 2, 1, 3, 1])  # a variant: not one of the lines
    (tiger,) = (
        line
        for line in marked.with_tables("<!-- overview: . -->\n<!-- end -->", tmp_path).splitlines()
        if "TIGER" in line
    )
    assert " (GPU) |" in tiger and "GPU" not in "".join(overview)  # its core-seconds are not those of a CPU
    write_result(tmp_path / "ml-1m", "SASRec", 1, [1, 1, 2, 1, 3, 1], masked=True)
    with pytest.raises(ValueError, match="not comparable.*seen_items_masked"):
        marked.with_tables("<!-- overview: . -->\n<!-- end -->", tmp_path)
    with pytest.raises(ValueError, match="choose one of"):
        marked.with_tables("<!-- beauty: tiny -->\n<!-- end -->", tmp_path)


def test_published_rows_of_every_data_set():
    """Their shares, and which of them rank what the user has seen."""
    from benchmarks.report import marked, public

    for dataset in marked.DATASETS:
        rows = [line.split(" | ") for line in public.table(dataset).splitlines()[2:]]
        assert rows and all(0 < float(ndcg) < float(hr) < 1 for _, _, ndcg, hr, *_ in rows)
        assert {seen for *_, seen, _ in rows} <= {"ranked", "masked", "not stated"}
    with pytest.raises(ValueError, match="no rows of yelp; it knows ml-100k"):
        public.table("yelp")
