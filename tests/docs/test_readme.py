"""The README and the pages say what is so: examples, tables, names of settings, figures."""

import json
import re
import runpy

import pytest
import yaml

from benchmarks import readme
from tests.helpers.files import ROOT
from tests.helpers.pages import MODELS, PAGES, blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROPERTIES = ROOT / "properties" / "model"


def arguments_in_comments():
    """Model and ``--key=value`` arguments, as the comments of its YAML name them together."""
    for file in PROPERTIES.glob("*.yaml"):
        text = re.sub(r"\n# *", " ", file.read_text(encoding="utf-8"))
        for arguments in re.findall(r"(?:--\w+=[^\s,;.]+(?:\.[^\s,;.]+)* ?)+", text):
            yield file.stem.partition("_on_")[0].removesuffix("_with_words"), arguments


def test_python_examples_on_the_bundled_data(workplace):
    (first,) = blocks(ROOT / "README.md", "python")
    (new_users_and_items,) = blocks(ROOT / "docs" / "new-users-and-items.md", "python")
    names = {}
    exec(first.text, names)
    table, result = names["table"], names["result"]
    assert table["user_id"].tolist() == ["196"] * 5 + ["186"] * 5 and table["movie_title"].str.len().gt(0).all()
    assert result["card"]["interactions"] == 100_000
    assert result["test_result"]["ndcg@10"] > 0.02  # one epoch; popularity alone reaches less
    exec(new_users_and_items.text.replace("saved/RUN", result["checkpoint"]), names)
    assert len(names["table"]) == 5 and names["loaded"].data.dataset.item_num == 1 + 1682 + 2


def test_yaml_examples_register_models(tiny, workplace, monkeypatch):
    from recbole_contrec.settings.config import Config

    monkeypatch.syspath_prepend(str(workplace))
    (in_readme,) = blocks(ROOT / "README.md", "yaml")
    page = [block for block in blocks(ROOT / "docs" / "extending.md") if block.title]
    assert in_readme.text == page[0].text and len(page) == 3
    for block in page:
        (workplace / block.title).parent.mkdir(parents=True, exist_ok=True)
        (workplace / block.title).write_text(block.text)
    config = Config("MyRec", "tiny", arguments=[f"--data_path={tiny}"])
    assert config["item_tokens"] == 4 and config["item_positions"] == "each" and config["hidden_size"] == 64
    config = Config("Mine", "tiny", arguments=[f"--data_path={tiny}"])
    assert config.model_class.__name__ == "MyModel" and config["hidden_size"] == 32


def test_the_changelog_has_every_setting_that_was_renamed():
    from recbole_contrec.settings.renamed import RENAMED

    rows = [re.findall(r"`(\w+)`", line) for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if "| `" in line]
    told = {(old, new) for row in rows for old in row for new in row}
    assert {(old, new) for old, names in RENAMED.items() for new in names} <= told


def test_figures_are_those_that_the_script_draws():
    draw = runpy.run_path(str(ROOT / "docs" / "figures" / "draw.py"))
    for name, figure in draw["FIGURES"].items():
        drawn = (ROOT / "docs" / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert drawn == draw["svg"](figure(), f"Data flow: {name}"), "python docs/figures/draw.py draws them anew"


def test_the_gate_runs_the_test_command_of_the_readme():
    gate = (ROOT / ".ci" / "run").read_text()
    pattern = re.search(r"grep -m1 -E '([^']*)'", gate).group(1)
    (command,) = re.findall(pattern, README, re.M)
    assert command.split() == ["pip", "install", "-c", "constraints.txt", '".[test]"', "&&", "pytest"]


NAMED = re.compile(r"`(?:--)?([a-zA-Z]\w*)(?:=|: )[^`]*`")  # `key=value`, `--key=value` and `key: value`
OPTIONS = {
    "model",
    "dataset",
    "users",
    "history",
    "k",
    "all",
    "properties",
    "resume",
    "output",
    "checkpoint",
    "debug",
    "key",
}
OPTIONS |= {"space", "trials", "storage", "study"}  # of tune
OPTIONS |= {"index", "ef_search", "users_file"}  # of recommend
OPTIONS |= {"rating"}  # of prepare
OPTIONS |= {"format", "init_from"}  # of export and of a run
OPTIONS |= {"group_by"}  # of eval_args
OPTIONS |= {"exclude_seen", "unknown"}  # of Python functions
OPTIONS |= {
    "include",
    "hold",
    "threads",
    "RECBOLE_CONTREC_MODELS",
    "OMP_NUM_THREADS",
    "MALLOC_MMAP_THRESHOLD_",
}  # of YAML files, benchmarks, the environment


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_settings_named_in_the_pages_exist(page):
    from recbole_contrec.catalogue.places import properties_folders
    from recbole_contrec.settings.registry import find_model, general_settings

    folders, known = properties_folders(), set(OPTIONS)
    known |= {"config_files", "batch_size"} | set(general_settings(folders)[0])
    for model in MODELS:
        known |= set(find_model(model, folders).settings)
    named = set(NAMED.findall(page.read_text(encoding="utf-8")))
    assert named <= known, f"no settings: {named - known}"


@pytest.mark.parametrize("model, arguments", sorted(arguments_in_comments()))
def test_what_comments_of_settings_recommend_is_accepted(model, arguments, tiny):
    from recbole_contrec.settings.config import Config

    Config(model, "tiny", arguments=[f"--data_path={tiny}", *arguments.split()])


@pytest.mark.parametrize("page", readme.TEXTS, ids=lambda page: page.name)
def test_tables_are_those_of_the_result_files(page):
    from benchmarks.report import marked

    text = page.read_text(encoding="utf-8")
    assert marked.BLOCK.search(text), f"{page.name} quotes no results"
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
    from benchmarks.lib.asked import BEFORE_IT_CAME
    from benchmarks.lib.runs import PATHS
    from recbole_contrec.quick_start import settings_of
    from recbole_contrec.settings.config import Config

    dataset, row = path.parts[-3:-1]
    model, *further = row.split(",")
    arguments = [f"--{setting}" for setting in further if "=" in setting]  # SASRec,repeat is SASRec
    if dataset in HEADERS:
        arguments.append(f"--data_path={tmp_path}")
        (tmp_path / dataset).mkdir()
        for header, kind in zip(HEADERS[dataset], ("inter", "item")):
            (tmp_path / dataset / f"{dataset}.{kind}").write_text(header + "\n")
    content = json.loads(path.read_text())
    today = settings_of(Config(model, dataset, arguments=[*arguments, f"--seed={content['card']['seed']}"]))
    before = {key: value for key, value in BEFORE_IT_CAME.items() if key in today}
    different = {
        key: (value, today.get(key))
        for key, value in {**before, **content["settings"]}.items()
        if key not in (*PATHS, "show_progress") and today.get(key) != value
    }
    assert not different


def test_tables_follow_the_results(tmp_path):
    from benchmarks.report import marked
    from tests.helpers.results import write_result

    write_result(tmp_path / "tiny", "ContRec", 1, [1, 1, 2, 1, 3, 1])
    text = "before\n<!-- accuracy: tiny -->\nold\n<!-- end -->\nafter"
    written = marked.with_tables(text, tmp_path)
    assert "old" not in written and "| ContRec |  | 1 |" in written
    assert written.startswith("before\n<!-- accuracy: tiny -->\n| model") and written.endswith("|\n<!-- end -->\nafter")
    assert marked.with_tables(written, tmp_path) == written
    write_result(tmp_path / "ml-1m", "ContRec", 1, [1, 1, 2, 1, 3, 1])
    write_result(tmp_path / "amazon-beauty", "SASRec", 1, [1, 1, 2, 1, 3, 1], model="SASRec")
    write_result(tmp_path / "amazon-beauty", "SASRec,repeat", 1, [1, 1, 2, 1, 3, 1], model="SASRec", score=0.3)
    write_result(tmp_path / "amazon-beauty", "SASRec-200", 1, [1, 1, 2, 1, 3, 1], model="SASRec-200", score=0.2)
    overview = marked.with_tables("<!-- overview: . -->\n<!-- end -->", tmp_path).splitlines()
    assert overview[1].count("NDCG@10") == 2 and overview[3:-1] == [
        "| **ours** | *our variants* |  |  |",
        "| ContRec |  | .1100 |  |",
        "| **RecBole** | *RecBole's own models* |  |  |",
        "| SASRec,repeat | as in RecBole |  | .3100 |",
        "| SASRec | as in RecBole |  | .1100 |",
    ]
    assert "| SASRec-200 |" in marked.with_tables("<!-- all_models: . -->\n<!-- end -->", tmp_path)
    with pytest.raises(ValueError, match="choose one of"):
        marked.with_tables("<!-- beauty: tiny -->\n<!-- end -->", tmp_path)


def test_published_rows_of_every_data_set():
    """Their shares, and which of them rank what the user has seen."""
    from benchmarks.report import marked, public

    known = yaml.safe_load(public.PUBLIC.read_text())
    assert set(marked.DATASETS) < set(known)
    for dataset in known:
        rows = [line.split(" | ") for line in public.table(dataset).splitlines()[2:]]
        assert rows and all(0 < float(ndcg) < float(hr) < 1 for _, _, ndcg, hr, *_ in rows)
        assert {seen for *_, seen, _ in rows} <= {"ranked", "masked", "not stated"}
    with pytest.raises(ValueError, match="no rows of yelp; it knows ml-100k"):
        public.table("yelp")
