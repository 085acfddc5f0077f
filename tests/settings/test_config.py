"""Names, settings and their checks: everything between the command line and a RecBole Config."""

import copy
import json
import logging
import pickle
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_contrec import compat
from recbole_contrec.catalogue.datasets import list_datasets
from recbole_contrec.catalogue.places import package_properties, properties_folders, recbole_properties
from recbole_contrec.errors import UserError, did_you_mean, nearest
from recbole_contrec.settings import config as config_module
from recbole_contrec.settings.config import Config, dataset_settings_from_headers
from recbole_contrec.settings.registry import find_model, list_models, load_class
from recbole_contrec.settings.schema import Constraint, parse_arguments, parse_value, read_settings, read_yaml
from tests.helpers.files import ROOT

FULL = {"valid": "full", "test": "full"}
LEAVE_ONE_OUT = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": FULL}

MODEL_FILE = """
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.data.dataset import SequentialDataset


class {name}(SequentialRecommender):
    pass


class TextDataset(SequentialDataset):
    pass


class NoModel:
    pass
"""

BASE_YAML = """# A made-up model.
model_class: {module}:Toy
loss_type: CE           # (str; one of: CE, BPR) The loss.
width: 64               # (int; >= 1) Hidden width.
dropout: 0.2            # (float; 0..<1) Dropout rate.
samples: [1, 4]         # (int or list of int; >= 1) Samples to draw.
fields: ~               # (list of str or ~) Text columns.
plain: 3
free: ~
"""


@pytest.fixture(autouse=True)
def _leave_no_trace(monkeypatch):
    """RecBole writes CUDA_VISIBLE_DEVICES; other tests must not see it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "untouched")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory with a data set `toy`, a model `Toy` and its module."""
    monkeypatch.chdir(tmp_path)
    module = f"toy_{tmp_path.name.replace('-', '_')}"
    write(f"{module}.py", MODEL_FILE.format(name="Toy"))
    write("properties/model/Toy.yaml", BASE_YAML.format(module=module))
    atomic("toy", "user_id:token item_id:token rating:float timestamp:float")
    yield types.SimpleNamespace(path=tmp_path, module=module)
    sys.modules.pop(module, None)


def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def atomic(name, header, item=None, root="dataset"):
    write(f"{root}/{name}/{name}.inter", "\t".join(header.split()) + "\n")
    if item:
        write(f"{root}/{name}/{name}.item", "\t".join(item.split()) + "\n")


def toy(*arguments, **options):
    return Config(options.pop("model", "Toy"), options.pop("dataset", "toy"), arguments=arguments, **options)


def error_of(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


# errors


def test_nearest_ignores_case_dashes_and_reads_initials():
    keys = ["learning_rate", "train_batch_size", "eval_batch_size", "epochs"]
    assert nearest("learning-rate", keys)[0] == "learning_rate"
    assert nearest("LearningRate", keys)[0] == "learning_rate"
    assert nearest("lr", keys) == ["learning_rate"]
    assert set(nearest("batch_size", keys)) >= {"train_batch_size", "eval_batch_size"}
    assert nearest("epoch", keys, n=1) == ["epochs"]
    assert nearest("zzz", keys) == []


def test_did_you_mean_is_a_phrase_or_nothing():
    assert did_you_mean("epoch", ["epochs"]) == " (did you mean epochs?)"
    assert did_you_mean("batch_size", ["train_batch_size", "eval_batch_size"]).count(" or ") == 1
    assert did_you_mean("zzz", ["epochs"]) == ""


# compat


def test_numpy_names_are_set_only_where_missing(monkeypatch):
    monkeypatch.delattr(np, "float", raising=False)
    mine = object()
    monkeypatch.setattr(np, "long", mine, raising=False)
    compat.restore_numpy_names()
    assert np.float is np.float64
    assert np.long is mine


def test_apply_twice_changes_nothing():
    from scipy.sparse import dok_matrix

    compat.apply()
    before = {name: getattr(np, name) for name in compat.NUMPY_NAMES}, dok_matrix._update
    compat.apply()
    assert before == ({name: getattr(np, name) for name in compat.NUMPY_NAMES}, dok_matrix._update)


def test_dok_update_fills_a_matrix():
    from scipy.sparse import dok_matrix

    matrix = dok_matrix((2, 3))
    matrix._update({(0, 1): 2.0, (1, 2): 3.0})
    assert matrix.toarray().tolist() == [[0, 2, 0], [0, 0, 3]]


def test_an_existing_dok_update_stays(monkeypatch):
    from scipy.sparse import dok_matrix

    mine = lambda self, entries: None  # noqa: E731
    monkeypatch.setattr(dok_matrix, "_update", mine)
    compat.restore_dok_update()
    assert dok_matrix._update is mine


def test_collector_keeps_counters_and_resets_tensors():
    collector = compat.SafeCollector(
        {"eval_args": {"mode": FULL}, "topk": [1], "device": "cpu", "metrics": ["AveragePopularity", "NDCG"]}
    )
    collector.data_struct.set("data.count_items", {1: 5})
    collector.data_struct.set("rec.topk", torch.ones(2, 2))
    collected = collector.get_data_struct()
    assert collected.get("data.count_items") == {1: 5}
    assert collected.get("rec.topk").shape == (2, 2)
    fake = torch.ones(2).as_subclass(type("OnGpu", (torch.Tensor,), {"cpu": lambda self: torch.zeros(1)}))
    collector.data_struct.set("rec.items", fake)
    assert collector.get_data_struct().get("rec.items").tolist() == [0]
    assert "rec.topk" not in collector.data_struct and "data.count_items" in collector.data_struct


def test_recboles_own_collector_still_has_the_fault_that_we_repair():
    from recbole.evaluator.collector import Collector

    collector = Collector({"eval_args": {"mode": FULL}, "topk": [1], "device": "cpu", "metrics": ["NDCG"]})
    collector.data_struct.set("data.num_items", 3)
    with pytest.raises(AttributeError):
        collector.get_data_struct()


@pytest.mark.parametrize(
    "version, command", [((3, 11), "pip install recbole==1.2.1"), ((3, 12), "pip install --no-deps recbole==1.2.1")]
)
def test_missing_recbole_names_the_command(monkeypatch, version, command):
    monkeypatch.setitem(sys.modules, "recbole", None)
    monkeypatch.setattr(compat.sys, "version_info", version)
    assert error_of(compat.require_recbole).endswith(command)


def test_other_versions_of_recbole_and_pandas_are_refused(monkeypatch):
    import pandas
    import recbole

    compat.require_recbole()
    with monkeypatch.context() as patch:
        patch.setattr(pandas, "__version__", "3.0.1")
        assert "pandas>=2,<3" in error_of(compat.require_recbole)
    monkeypatch.setattr(recbole, "__version__", "1.1.1")
    assert "1.1.1" in error_of(compat.require_recbole)


def test_only_known_warnings_are_hidden():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with compat.quiet_recbole():
            warnings.warn("`torch.cuda.amp.GradScaler(args...)` is deprecated.", FutureWarning)
            warnings.warn("something else", FutureWarning)
        warnings.warn("`torch.cuda.amp.GradScaler(args...)` is deprecated.", FutureWarning)
    assert [str(w.message)[:10] for w in seen] == ["something ", "`torch.cud"]


def test_a_fresh_process_has_no_ray_and_the_same_torch_load():
    code = (
        "import sys, torch; load = torch.load; import numpy as np\n"
        "from recbole_contrec.settings.config import Config\n"
        "assert torch.load is load and np.float is np.float64\n"
        "print('ray' in sys.modules, 'recbole.quick_start' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False False", done.stderr


# settings: the comment is the check


def setting_of(tmp_path, line):
    [setting] = read_settings(write(tmp_path / "M.yaml", line)).values()
    return setting


@pytest.mark.parametrize(
    "line, good, bad",
    [
        ("a: 2  # (int; >= 1) x", [1, 5, np.int64(3)], [0, 1.5, "2", True, None, [1]]),
        ("a: 0.2  # (float; 0..<1) x", [0, 0.99, np.float32(0.5)], [1, -0.1, "0.5", False, float("nan")]),
        ("a: 0.2  # (float; 0..1)) x", [0.0], [1.0]),
        ("a: 0.2  # (float; 0..1) x", [0, 1], [1.01]),
        ("a: 1  # (float; > 0, <= 1) x", [0.1, 1], [0, 1.1]),
        ("a: True  # (bool) x", [False], [0, "True"]),
        ("a: x  # (str; one of: x, y) x", ["y"], ["z", 1]),
        ("a: ~  # (str or ~) x", [None, "s"], [1]),
        ("a: ~  # (int) x", [None, 2], ["s"]),
        ("a: [1]  # (int or list of int; >= 1) x", [3, [1, 2], (4,)], [[0], ["a"], [1.5], 0]),
        ("a: [x]  # (list of str) x", [[], ["b"]], ["b", [1]]),
        ("a: {}  # (dict) x", [{"k": 1}], [[], "k"]),
        ("a: 0.2  # (float) x", [-7], [float("nan"), np.float32("nan")]),
        ("a: 3", [4], [0.5, "4"]),
        ("a: 0.5", [4, 0.1], ["4"]),
        ("a: ~", [None, 1, "x", []], []),
        ("a: 1  # (paper: 2) x", [4], ["4"]),
    ],
)
def test_types_and_bounds(tmp_path, line, good, bad):
    setting = setting_of(tmp_path, line)
    for value in good:
        assert setting.check(value) == (list(value) if isinstance(value, tuple) else value)
    for value in bad:
        assert error_of(setting.check, value).startswith("a=")


def test_error_text_says_what_may_stand_there(tmp_path):
    setting = setting_of(tmp_path, "dropout: 0.2  # (float; 0..<1) x")
    assert error_of(setting.check, 1.5) == "dropout=1.5: must be a number from 0 to below 1 (M.yaml)"
    setting = setting_of(tmp_path, "loss: CE  # (str; one of: CE, BPR) x")
    assert error_of(setting.check, "BRP") == ("loss='BRP': must be one of CE, BPR (did you mean BPR?) (M.yaml)")
    setting = setting_of(tmp_path, "k: [5]  # (list of int or ~; >= 1) x")
    assert "a list of whole numbers each of at least 1 or ~" in error_of(setting.check, [0])


def test_comments_of_nested_quoted_and_continued_lines(tmp_path):
    settings = read_settings(
        write(
            tmp_path / "M.yaml",
            (
                "args:            # (dict) Nested.\n  lr: 1e-3   # (int) not a setting\n"
                "sign: ' # (int)' # (str) Quoted.\n"
                "long: 1          # (int; >= 0) First,\n                 # second.\n"
                "wide: [1,\n  2]           # (list of int) Two lines.\n"
            ),
        )
    )
    assert list(settings) == ["args", "sign", "long", "wide"]
    assert settings["args"].default == {"lr": 1e-3} and settings["args"].meaning == "Nested."
    assert settings["sign"].types == ("str",) and settings["sign"].default == " # (int)"
    assert settings["long"].meaning == "First, second."
    assert settings["wide"].types == ("list of int",)


def test_yaml_numbers_and_nothing(tmp_path):
    values = read_yaml(write(tmp_path / "a.yaml", "a: 1e-3\nb: None\nc: ~\nd: 5\ne: 1.5e2\nf: -3E+2\n"))
    assert values == {"a": 1e-3, "b": None, "c": None, "d": 5, "e": 150.0, "f": -300.0}
    assert read_yaml(write(tmp_path / "empty.yaml", "# nothing\n")) == {}


def test_bad_yaml_files(tmp_path):
    assert "there is no file" in error_of(read_yaml, tmp_path / "none.yaml")
    assert "line 2" in error_of(read_yaml, write(tmp_path / "a.yaml", "a: 1\nb: c: d\n"))
    assert "key: value" in error_of(read_yaml, write(tmp_path / "b.yaml", "- a\n"))
    assert "line 2: a stands there twice" in error_of(read_settings, write(tmp_path / "c.yaml", "a: 1\na: 2\n"))
    assert "cannot read the constraint" in error_of(read_settings, write(tmp_path / "d.yaml", "a: 1 # (int; =>1) x\n"))
    assert "must be a whole number" in error_of(read_settings, write(tmp_path / "e.yaml", "a: x # (int) x\n"))
    (tmp_path / "f.yaml").write_bytes(b"a: \xff\n")
    assert "not UTF-8" in error_of(read_yaml, tmp_path / "f.yaml")


def test_constraint_refuses_what_it_does_not_know():
    with pytest.raises(ValueError):
        Constraint.read("about 3")


def test_recboles_files_read_tolerantly(tmp_path):
    path = write(tmp_path / "R.yaml", "alpha: 1\nw: x  # (float) wrong comment\nn: 2  # (int) x\nf: 1 # (floaty) x\n")
    settings = read_settings(path, tolerant=True)
    assert settings["alpha"].accepts(0.5)  # an uncommented whole number may be meant as any number
    assert settings["w"].accepts("y")  # a default that breaks its comment switches the check off
    assert settings["f"].accepts(0.5)
    assert not settings["n"].accepts("x")


def test_every_yaml_of_recbole_reads():
    files = list(recbole_properties().glob("model/*.yaml"))
    assert len(files) > 80
    assert sum(len(read_settings(file, tolerant=True)) for file in files) > 500


# values and arguments


@pytest.mark.parametrize(
    "text, value",
    [
        ("3", 3),
        ("-3", -3),
        ("1e-3", 1e-3),
        ("[5,10]", [5, 10]),
        ("5,10", [5, 10]),
        ("[Hit, NDCG]", ["Hit", "NDCG"]),
        ("{split: {LS: valid_and_test}}", {"split": {"LS": "valid_and_test"}}),
        ("{'RS':[0.8,0.1]}", {"RS": [0.8, 0.1]}),
        ("True", True),
        ("true", True),
        ("FALSE", False),
        ("None", None),
        ("~", None),
        ("null", None),
        ("adam", "adam"),
        ("", ""),
        (" ", " "),
        ("\t", "\t"),
        ("[0,inf)", "[0,inf)"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("1/0", "1/0"),
        ("'7'", "7"),
        ("{1, 2}", "{1, 2}"),
        ("yes", "yes"),
        ("2020-01-01", "2020-01-01"),
        ("a=b", "a=b"),
    ],
)
def test_parse_value(text, value):
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


def test_parse_arguments():
    assert parse_arguments(["--a=1", "--b=x=y", "--c=", "--a=1"]) == {"a": "1", "b": "x=y", "c": ""}
    assert "write --epochs=3" in error_of(parse_arguments, ["--epochs", "3"])
    assert "write --epochs=VALUE" in error_of(parse_arguments, ["--epochs", "--b=1"])
    assert "write --epochs=3" in error_of(parse_arguments, ["epochs=3"])
    assert "--key=value" in error_of(parse_arguments, ["what"])
    assert "--key=value" in error_of(parse_arguments, ["--=3"])
    assert "--a=1 and --a=2" in error_of(parse_arguments, ["--a=1", "--a=2"])


# registry


def test_folders_in_order(here):
    extra = here.path / "mine"
    extra.mkdir()
    assert properties_folders(extra) == [extra, here.path / "properties", package_properties()]
    assert properties_folders(here.path / "properties")[0] == here.path / "properties"
    assert len(properties_folders(here.path / "properties")) == 2
    assert "no such folder" in error_of(properties_folders, here.path / "none")


def test_the_package_has_its_own_properties():
    assert (package_properties() / "overall.yaml").is_file()


def test_a_users_model_from_the_working_directory(here):
    entry = find_model("Toy", properties_folders())
    assert entry.model_class.__name__ == "Toy" and entry.model_class.__module__ == here.module
    assert entry.chain == (here.path / "properties/model/Toy.yaml",)
    assert entry.values["width"] == 64 and "model_class" not in entry.values
    assert entry.dataset_class is None and entry.trainer_class is None and not entry.is_recbole
    assert str(here.path) not in sys.path


def test_extends_inherits_settings_and_classes(here):
    write("properties/model/Child.yaml", f"extends: Toy\nwidth: 32\ndataset_class: {here.module}:TextDataset\n")
    write("properties/model/Grandchild.yaml", "extends: Child\ndropout: 0.5\nepochs: 7\n")
    entry = find_model("Grandchild", properties_folders())
    assert [path.stem for path in entry.chain] == ["Toy", "Child", "Grandchild"]
    assert (entry.values["width"], entry.values["dropout"], entry.values["epochs"]) == (32, 0.5, 7)
    assert entry.model_class.__name__ == "Toy" and entry.dataset_class.__name__ == "TextDataset"
    assert entry.settings["width"].default == 32 and not entry.settings["width"].accepts(0)
    config = toy(model="Grandchild")
    assert (config["width"], config["dropout"], config["epochs"], config["model"]) == (32, 0.5, 7, "Grandchild")


def test_a_childs_own_comment_replaces_the_check(here):
    write(
        "properties/model/Child.yaml",
        "extends: Toy\nwidth: 0  # (int; >= 0) None at all.\nepochs: 5  # (int; >= 5) Few.\n",
    )
    assert find_model("Child", properties_folders()).settings["width"].accepts(0)
    assert "of at least 5 (Child.yaml)" in error_of(toy, "--epochs=4", model="Child")


@pytest.mark.parametrize(
    "line, expected",
    [
        ("widht: 3", "unknown setting widht (did you mean width?)"),
        ("width: 0", "width=0: must be a whole number"),
        ("epoch: 3", "did you mean epochs"),
        ("learning_rate: fast", "must be a number above 0"),
    ],
)
def test_a_childs_keys_and_values_are_checked(here, line, expected):
    write("properties/model/Child.yaml", f"extends: Toy\n{line}\n")
    message = error_of(find_model, "Child", properties_folders())
    assert expected in message and "Child.yaml" in message


def test_new_keys_only_beside_a_model_class(here):
    write("properties/model/Child.yaml", f"extends: Toy\nmodel_class: {here.module}:Toy\nbrand_new: 1\n")
    assert toy("--brand_new=2", model="Child")["brand_new"] == 2


def test_circle_of_extends(here):
    write("properties/model/A.yaml", "extends: B\n")
    write("properties/model/B.yaml", "extends: A\n")
    assert "A -> B -> A" in error_of(find_model, "A", properties_folders())
    write("properties/model/C.yaml", "extends: C\n")
    assert "C -> C" in error_of(find_model, "C", properties_folders())


def test_yaml_without_base_overlays_recboles_model(here):
    write("properties/model/SASRec.yaml", "hidden_dropout_prob: 0.2\n")
    entry = find_model("SASRec", properties_folders())
    assert [path.parent.parent.parent.name for path in entry.chain] == ["recbole", here.path.name]
    assert entry.values["hidden_dropout_prob"] == 0.2 and entry.values["n_layers"] == 2
    assert entry.changes == {"hidden_dropout_prob": 0.2}
    assert entry.recbole_name == "SASRec" and entry.is_recbole
    assert toy(model="SASRec")["hidden_dropout_prob"] == 0.2


def test_a_nearer_folder_overlays_the_same_name_further_on(here):
    write("mine/model/Toy.yaml", "width: 16\n")
    assert toy(properties="mine")["width"] == 16
    assert toy("--properties=mine")["width"] == 16
    assert toy()["width"] == 64


def test_extends_of_recboles_model_and_of_nothing(here):
    write("properties/model/Small.yaml", "extends: SASRec\nn_layers: 1\n")
    entry = find_model("Small", properties_folders())
    assert entry.recbole_name == "SASRec" and entry.model_class.__name__ == "SASRec"
    config = toy(model="Small")
    assert (config["n_layers"], config["n_heads"], config["model"]) == (1, 2, "Small")
    write("properties/model/Lost.yaml", "extends: SASRek\n")
    assert "did you mean SASRec" in error_of(find_model, "Lost", properties_folders())
    write("properties/model/Baseless.yaml", "width: 1\n")
    assert "neither extends nor model_class" in error_of(find_model, "Baseless", properties_folders())


def test_unknown_model_names_the_nearest(here):
    assert "Toy" in error_of(find_model, "Toi", properties_folders())
    assert "did you mean SASRec" in error_of(find_model, "sasrec", properties_folders())
    assert "unknown model" in error_of(find_model, "../model/Toy", properties_folders())


def test_keys_that_only_the_source_of_recboles_model_names(here):
    assert toy("--tau=0.5", model="FEARec")["tau"] == 0.5
    assert "unknown setting tau" in error_of(toy, "--tau=0.5", model="SASRec")
    assert "unknown setting device" in error_of(toy, "--device=cpu", model="GRU4RecF")  # RecBole would overwrite it


def test_lists_of_models(here):
    lines = list_models(properties_folders())
    assert ("Toy", str(here.path / "properties/model/Toy.yaml"), "A made-up model.") in lines
    places = {name: where for name, where, _ in lines}
    assert places["SASRec"] == "RecBole, sequential" and places["LightGCN"] == "RecBole, general"
    kinds = [where for _, where, _ in lines if where.startswith("RecBole")]
    assert kinds == sorted(kinds) and len(kinds) > 80


def test_lists_of_datasets(here):
    write("properties/dataset/known.yaml", "# Known, not here.\n")
    write("dataset/split/split.train.inter", "user_id:token\n")
    write("dataset/other/foreign.inter", "user_id:token\n")
    places = dict(list_datasets([here.path / "properties"], "dataset"))
    assert set(places) == {"toy", "known", "split", "ml-100k"}
    assert places["known"] == "no data yet: Known, not here." and places["ml-100k"] == "bundled with RecBole"


def test_load_class_errors(here):
    assert load_class(f"{here.module}:Toy").__name__ == "Toy"
    assert "package.module:Class" in error_of(load_class, "Toy")
    assert "no module no_such_module" in error_of(load_class, "no_such_module:Toy")
    assert "did you mean Toy" in error_of(load_class, f"{here.module}:Toi")
    assert "not a RecBole recommender" in error_of(load_class, f"{here.module}:NoModel")
    assert "not a RecBole data set" in error_of(load_class, f"{here.module}:Toy", "dataset_class")
    assert load_class("recbole.trainer:Trainer", "trainer_class").__name__ == "Trainer"
    write("needs_more_toy.py", "import surely_not_installed\n")
    assert "needs surely_not_installed" in error_of(load_class, "needs_more_toy:Toy")
    write("broken_toy.py", "def (\n")
    assert "line 1" in error_of(load_class, "broken_toy:Toy")


def test_a_yaml_with_a_lost_class_is_named(here):
    write("properties/model/Lost.yaml", "model_class: no_such_module:Lost\n")
    assert "Lost.yaml: model_class: there is no module" in error_of(find_model, "Lost", properties_folders())


# Config: priority


def test_priority(here):
    def width(**options):
        return toy(*options.pop("arguments", ()), **options)["width"]

    first, second = write("first.yaml", "width: 2\n"), write("second.yaml", "width: 3\n")
    assert width() == 64
    write("properties/dataset/toy.yaml", "width: 1\n")
    assert width() == 1
    assert width(config_file_list=[first]) == 2
    assert width(config_file_list=[first, second]) == 3
    assert width(config_file_list=str(second)) == 3
    assert width(arguments=["--config_files=first.yaml,second.yaml"]) == 3
    assert width(config_file_list=[first], config_dict={"width": 4}) == 4
    assert width(config_file_list=[first], config_dict={"width": 4}, arguments=["--width=5"]) == 5


def test_our_model_yaml_stands_over_recboles_defaults(here):
    write("properties/model/Child.yaml", "extends: Toy\nepochs: 5\nMAX_ITEM_LIST_LENGTH: 9\nmetrics: [MAP, NDCG]\n")
    config = toy(model="Child")
    assert (config["epochs"], config["MAX_ITEM_LIST_LENGTH"], config["metrics"]) == (5, 9, ["MAP", "NDCG"])


def test_the_users_overall_stands_below_models(here):
    write("properties/overall.yaml", "epochs: 3\ntransform: crop_itemseq\n")
    assert toy()["epochs"] == 3 and toy("--epochs=4")["epochs"] == 4
    assert toy(model="SASRec")["transform"] == "crop_itemseq"
    assert toy(model="BERT4Rec")["transform"] == "mask_itemseq"  # RecBole's BERT4Rec.yaml says so
    write("properties/overall.yaml", "epoch: 3\n")
    assert "overall.yaml: unknown setting epoch" in error_of(toy)


def test_sys_argv_is_never_read(here, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "--width=7", "--nonsense=1", "rest"])
    assert toy()["width"] == 64


def test_model_and_dataset_from_every_way(here):
    assert Config(arguments=["--model=Toy", "--dataset=toy"])["model"] == "Toy"
    assert Config(config_dict={"model": "Toy", "dataset": "toy"})["dataset"] == "toy"
    assert Config(config_file_list=[write("run.yaml", "model: Toy\ndataset: toy\n")]).dataset == "toy"
    assert "--model=NAME" in error_of(Config)
    assert "--dataset=NAME" in error_of(Config, "Toy")


def test_a_model_given_as_a_class_may_have_keys_of_its_own(here):
    model = type("Fresh", (find_model("Toy", properties_folders()).model_class,), {})
    config = Config(model, "toy", config_dict={"loss_type": "CE", "my_own": 3})
    assert config["model"] == "Fresh" and config["my_own"] == 3 and config.model_class is model
    assert "epochs" in error_of(Config, model, "toy", config_dict={"loss_type": "CE", "epochs": "many"})


# Config: checks


@pytest.mark.parametrize(
    "argument, expected",
    [
        ("--widht=3", "command line: unknown setting widht (did you mean width?)"),
        ("--learning-rate=1", "did you mean learning_rate"),
        ("--width=wide", "command line: width='wide': must be a whole number of at least 1 (Toy.yaml)"),
        ("--width=2.5", "whole number"),
        ("--width=0", "at least 1"),
        ("--dropout=1", "from 0 to below 1"),
        ("--loss_type=BCE", "one of CE, BPR"),
        ("--epochs=-1", "at least 0"),
        ("--learner=adom", "did you mean adam"),
        ("--use_gpu=1", "True or False"),
        ("--eval_args={spilt: {LS: valid_only}}", "unknown part spilt (did you mean split?)"),
        ("--eval_args={order: XX}", "must be one of TO, RO"),
        ("--eval_args={mode: odd}", "must be full, labeled"),
        ("--metrics=[NDGC]", "did you mean NDCG"),
        ("--topk=0", "at least 1"),
        ("--topk=[5,a]", "whole numbers"),
        ("--topk=[5]", "--valid_metric=NDCG@5"),
        ("--valid_metric=MAP@10", "add MAP to metrics"),
        ("--valid_metric=NDGC@10", "did you mean NDCG"),
        ("--repeatable=False", "repeatable"),
        ("--train_neg_sample_args={sample_num: 2}", "--train_neg_sample_args=~"),
        ("--load_col={inter: [user_id, item_id]}", "must hold timestamp"),
        ("--load_col={inter: [user_id, item_id, timestamp, price]}", "lacks price"),
        ("--USER_ID_FIELD=user", "did you mean user_id"),
    ],
)
def test_mistakes_on_the_command_line(here, argument, expected):
    assert expected in error_of(toy, argument)


def test_mistakes_in_files_and_dictionaries(here):
    assert "config_dict: unknown setting widht (did you mean width?)" in error_of(toy, config_dict={"widht": 1})
    assert "config_dict: width=~: must be" in error_of(toy, config_dict={"width": None})
    file = write("mine.yaml", "widht: 1\n")
    assert "mine.yaml: unknown setting widht" in error_of(toy, config_file_list=[file])
    file = write("typed.yaml", "width: '3'\n")
    assert "typed.yaml: width='3': must be a whole number" in error_of(toy, config_file_list=[file])
    assert "there is no file none.yaml" in error_of(toy, config_file_list=["none.yaml"])
    assert "line 1" in error_of(toy, config_file_list=[write("bad.yaml", "a: b: c\n")])
    write("properties/dataset/toy.yaml", "widht: 3\n")
    assert "toy.yaml: unknown setting widht" in error_of(toy)


def test_value_against_key_equals_value_forms(here):
    assert "write --epochs=3" in error_of(toy, "--epochs", "3")
    assert "given twice" in error_of(toy, "--epochs=3", "--epochs=4")
    config = toy("--checkpoint_dir=a=b", "--epochs=3", "--epochs=3", "--samples=[1,2]", "--fields=~", "--free={a: 1}")
    assert (config["checkpoint_dir"], config["epochs"], config["samples"], config["fields"], config["free"]) == (
        "a=b",
        3,
        [1, 2],
        None,
        {"a": 1},
    )


def test_a_text_setting_keeps_what_looks_like_a_number(here):
    assert toy("--wandb_project=2024")["wandb_project"] == "2024"
    assert toy(config_dict={"wandb_project": "true"})["wandb_project"] == "true"
    assert toy(config_dict={"seq_separator": " ", "field_separator": "\t"})["field_separator"] == "\t"


def test_strings_in_a_dictionary_are_parsed_as_in_recbole(here):
    given = {"samples": "[1, 2]", "width": "3", "eval_args": {"mode": "uni100"}}
    before = copy.deepcopy(given)
    config = toy(config_dict=given)
    assert config["samples"] == [1, 2] and config["width"] == 3
    assert given == before  # RecBole writes into the caller's dictionary


def test_settings_as_python_values_are_those_of_a_yaml(here):
    given = {"samples": (1, np.int64(2)), "width": 3, "free": {"a": [1]}, "wandb_project": "2024", "fields": None}
    before = copy.deepcopy(given)
    config = toy(settings=given)
    assert (config["samples"], config["width"], config["free"]) == ([1, 2], 3, {"a": [1]}) and given == before
    assert config["wandb_project"] == "2024" and config["fields"] is None  # a text is a text
    file = write("same.yaml", "samples: [1, 2]\nwidth: 3\nfree: {a: [1]}\nwandb_project: '2024'\nfields: ~\n")
    assert config.to_record() == toy(config_file_list=[file]).to_record()


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"widht": 3}, "settings: unknown setting widht (did you mean width?)"),
        ({"width": "3"}, "settings: width='3': must be a whole number"),
        ({"width": 2.5}, "settings: width=2.5: must be a whole number"),
        ({"samples": "[1, 2]"}, "settings: samples='[1, 2]': must be"),
        ({"epochs": True}, "settings: epochs=True: must be a whole number"),
        (["--epochs=3"], "must be a dictionary such as {'epochs': 3}"),
        ("--epochs=3", "arguments=[...]"),
        ({"config_files": "mine.yaml"}, "settings: config_files is no setting: give it as config_file_list=[...]"),
        ({"properties": "mine"}, "settings: properties is no setting: give it as properties=..."),
        ({"dataset": "ml-1m"}, "settings: dataset='ml-1m', and the dataset is "),
        ({"model": "Other"}, "settings: model='Other', and the model is "),
    ],
)
def test_mistakes_in_settings(here, settings, expected):
    assert expected in error_of(toy, settings=settings)


def test_a_path_is_a_text(here):
    assert toy(settings={"checkpoint_dir": Path("kept")})["checkpoint_dir"] == "kept"


def test_settings_stand_between_a_dictionary_of_recbole_and_the_command_line(here):
    file = write("first.yaml", "width: 2\nepochs: 2\nseed: 2\n")
    config = toy(
        "--seed=5",
        config_file_list=[file],
        config_dict={"width": "3", "epochs": "3"},
        settings={"epochs": 4, "seed": 4},
    )
    assert (config["width"], config["epochs"], config["seed"]) == (3, 4, 5)


def test_nothing_is_evaluated(here):
    assert toy("--run_name=open('x','w')")["run_name"] == "open('x','w')"
    assert not Path("x").exists()


# Config: protocol and negatives


@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec", "RepeatNet", "LightGCN", "BPR", "ItemKNN", "FPMC"])
def test_one_protocol_for_every_ranking_model(here, model):
    config = toy(model=model)
    assert config["eval_args"] == LEAVE_ONE_OUT
    assert config["metrics"] == ["Hit", "NDCG", "MRR", "Recall"]
    assert config["topk"] == [5, 10, 20] and config["valid_metric"] == "NDCG@10"
    assert config["load_col"] == {"inter": ["user_id", "item_id", "timestamp"]}


def test_click_models_keep_recboles_protocol(here):
    config = Config("FM", "ml-100k")
    assert config["metrics"] == ["AUC", "LogLoss"] and config["eval_args"]["mode"] == {
        "valid": "labeled",
        "test": "labeled",
    }


@pytest.mark.parametrize(
    "model, sampled",
    [
        ("SASRec", "none"),
        ("RepeatNet", "none"),
        ("Toy", "none"),
        ("FPMC", "uniform"),
        ("SINE", "uniform"),
        ("LightGCN", "uniform"),
    ],
)
def test_default_negatives(here, model, sampled):
    assert toy(model=model)["train_neg_sample_args"]["distribution"] == sampled


def test_bpr_loss_brings_negatives_back(here):
    config = toy("--loss_type=BPR", model="SASRec")
    assert config["train_neg_sample_args"]["distribution"] == "uniform"
    assert config["MODEL_INPUT_TYPE"].name == "PAIRWISE"


def test_negatives_may_be_switched_off_by_hand(here):
    assert toy("--train_neg_sample_args=~", model="SASRec")["train_neg_sample_args"]["distribution"] == "none"
    assert "takes no sampled negatives" in error_of(  # RecBole would train half of each batch on random targets here
        toy, "--train_neg_sample_args={distribution: uniform}", model="RepeatNet"
    )


def test_partial_eval_args_keep_the_rest_of_the_protocol(here):
    config = toy("--eval_args={mode: uni100}")
    assert config["eval_args"] == {**LEAVE_ONE_OUT, "mode": {"valid": "uni100", "test": "uni100"}}
    assert config["valid_neg_sample_args"] == {"distribution": "uniform", "sample_num": 100}


def test_recboles_module_lists_stay_as_they_are(here):
    import yaml
    from recbole.utils import argument_list

    assert toy().parameters["Dataset"] is not argument_list.dataset_arguments  # RecBole appends to its own
    before = list(argument_list.dataset_arguments), dict(yaml.FullLoader.yaml_implicit_resolvers)
    counts = {key: len(value) for key, value in before[1].items()}
    Config("FM", "ml-100k")
    assert argument_list.dataset_arguments == before[0]
    assert {key: len(value) for key, value in yaml.FullLoader.yaml_implicit_resolvers.items()} == counts


# Config: device


@pytest.mark.parametrize("argument", ["--use_gpu=False", "--gpu_id="])
def test_cpu_by_choice(here, monkeypatch, argument):
    import os

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = toy(argument)
    assert config["device"] == torch.device("cpu") and config["use_gpu"] is False
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "untouched"


@pytest.mark.parametrize("argument, visible", [("--gpu_id=1", "1"), ("--gpu_id=[3]", "3"), ("--use_gpu=True", "0")])
def test_gpu_as_in_recbole(here, monkeypatch, argument, visible):
    import os

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert toy(argument)["device"] == torch.device("cuda")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


# data sets without a YAML


def test_headers_with_recboles_names(here):
    atomic(
        "shop",
        "item_id:token price:float user_id:token timestamp:float",
        item="item_id:token title:token_seq brand:token price:float",
    )
    headers = dataset_settings_from_headers("dataset", "shop")
    assert headers.settings == {
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    }
    assert "title, brand" in headers.found and "\n" not in headers.found


@pytest.mark.parametrize(
    "header, expected",
    [
        ("session_id:token asin:token unixReviewTime:float", ("session_id", "asin", "unixReviewTime")),
        ("who:token what:token rating:float when:float", ("who", "what", "when")),
        ("MovieID:token UserID:token Date:float Score:float", ("UserID", "MovieID", "Date")),
    ],
)
def test_headers_by_usual_names_and_by_type(here, header, expected):
    atomic("odd", header)
    settings = dataset_settings_from_headers("dataset", "odd").settings
    assert tuple(settings[key] for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD")) == expected
    assert settings["load_col"] == {"inter": list(expected)}


def test_a_config_reads_the_headers(here, caplog):
    atomic("odd", "who:token what:token rating:float when:float", item="what:token title:token_seq")
    with caplog.at_level(logging.INFO, logger="recbole_contrec"):
        config = toy(dataset="odd", model="SASRec")
    assert "columns who, what, when of odd.inter; item texts: title" in caplog.text
    assert (config["USER_ID_FIELD"], config["ITEM_ID_FIELD"], config["TIME_FIELD"]) == ("who", "what", "when")
    assert config["load_col"] == {"inter": ["who", "what", "when"]}  # item columns would be joined into every batch
    config = toy("--threshold={rating: 3}", dataset="odd")
    assert config["load_col"] == {"inter": ["who", "what", "when", "rating"]}
    config = toy("--USER_ID_FIELD=what", "--ITEM_ID_FIELD=who", dataset="odd")
    assert config["load_col"]["inter"] == ["what", "who", "when"]
    config = toy("--load_col={inter: [who, what, when], item: [what, title]}", dataset="odd", model="SASRec")
    assert config["load_col"]["item"] == ["what", "title"]
    assert (
        toy("--load_col=~", "--USER_ID_FIELD=who", "--ITEM_ID_FIELD=what", "--TIME_FIELD=when", dataset="odd")[
            "load_col"
        ]
        is None
    )


def test_ml_100k(here):
    assert Config("SASRec", "ml-100k")["load_col"] == {"inter": ["user_id", "item_id", "rating", "timestamp"]}
    assert Config("Toy", "ml-100k")["load_col"] == {"inter": ["user_id", "item_id", "timestamp"]}
    assert "item" in Config("SASRecF", "ml-100k")["load_col"]  # RecBole's own choice for a model of item columns


def test_a_dataset_yaml_counts_more_than_headers(here):
    atomic("shop", "user_id:token item_id:token timestamp:float rating:float", item="item_id:token title:token_seq")
    write(
        "properties/dataset/shop.yaml",
        "load_col: {inter: [user_id, item_id, rating, timestamp], "
        "item: [item_id, title]}\nuser_inter_num_interval: '[5,inf)'\n",
    )
    config = toy(dataset="shop", model="SASRec")
    assert config["load_col"] == {"inter": ["user_id", "item_id", "rating", "timestamp"]}
    assert config["user_inter_num_interval"] == "[5,inf)"
    for model in ("SASRecF", "FM"):  # models of RecBole that read item columns
        assert toy(
            "--selected_features=[title]" if model == "SASRecF" else "--threshold={rating: 3}",
            dataset="shop",
            model=model,
        )["load_col"]["item"] == ["item_id", "title"]
    assert toy(dataset="shop")["load_col"]["item"] == ["item_id", "title"]  # a model of the user's, loaded by RecBole
    write("properties/dataset/shop.yaml", "user_inter_num_interval: '[5,inf)'\n")
    assert toy(dataset="shop")["load_col"]["inter"] == ["user_id", "item_id", "timestamp"]


def test_a_threshold_loads_its_column_whatever_the_yaml_lists(here):
    write("properties/dataset/toy.yaml", "load_col: {inter: [user_id, item_id, timestamp]}\n")
    assert toy("--threshold={rating: 3}")["load_col"]["inter"] == ["user_id", "item_id", "timestamp", "rating"]
    assert "rating" not in toy()["load_col"]["inter"]


def test_missing_columns_are_named(here):
    atomic("untimed", "user_id:token item_id:token rating:float")
    message = error_of(toy, dataset="untimed")
    assert "time column (timestamp:float)" in message and "rating:float" in message and "--TIME_FIELD=" in message
    assert toy("--eval_args={order: RO}", dataset="untimed", model="BPR")["load_col"]["inter"] == ["user_id", "item_id"]
    atomic("lonely", "user_id:token timestamp:float")
    assert "item column (item_id:token)" in error_of(toy, dataset="lonely")
    atomic("untyped", "user_id item_id timestamp")
    assert "column 'user_id' must read name:type" in error_of(toy, dataset="untyped")
    write("properties/dataset/toy.yaml", "load_col: {inter: [user_id, item_id, timestamp, stars]}\n")
    assert "lacks stars" in error_of(toy)
    assert "lacks price" in error_of(toy, "--val_interval={price: '[3,inf)'}", dataset="toy")


def test_missing_data_sets_name_the_nearest_and_the_command(here):
    message = error_of(toy, dataset="toyy")
    assert "did you mean toy?" in message and "prepare --dataset=" in message
    (here.path / "dataset/empty").mkdir()
    assert "has no file empty.inter" in error_of(toy, dataset="empty")
    write("properties/dataset/known.yaml", "epochs: 2\n")
    assert "prepare --dataset=known" in error_of(toy, dataset="known")
    assert "no data set 'toy' in elsewhere" in error_of(toy, "--data_path=elsewhere")


def test_presplit_files(here):
    for part in ("train", "valid", "test"):
        write(
            f"dataset/cut/cut.{part}.inter", "user_id:token\titem_id:token\ttimestamp:float\titem_id_list:token_seq\n"
        )
    config = toy("--benchmark_filename=[train,valid,test]", dataset="cut")
    assert config["load_col"]["inter"] == ["user_id", "item_id", "timestamp", "item_id_list"]
    assert config["alias_of_item_id"] == ["item_id_list"]  # else its items would be numbered apart
    assert (
        "item_id_list"
        not in toy("--benchmark_filename=[train,valid,test]", dataset="cut", model="BPR")["load_col"]["inter"]
    )


# Config: as an object


def test_pickle_and_deepcopy(here):
    config = toy("--width=7")
    for other in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert other["width"] == 7 and other.entry.name == "Toy" and other["device"] == config["device"]
        assert other.final_config_dict is not config.final_config_dict
        assert other.settings["width"].check(3) == 3
    with pytest.raises(AttributeError):
        config.no_such_attribute


def test_a_record_builds_the_same_config(here):
    config = toy("--width=7", "--eval_args={mode: uni50}", "--gpu_id=")
    record = json.loads(json.dumps(config.to_record()))
    again = Config("Toy", "toy", config_dict=record)
    assert again.final_config_dict == config.final_config_dict


def test_configs_share_no_values(here):
    first = toy(model="BPR")
    first["train_neg_sample_args"]["sample_num"] = 99
    first["load_col"]["inter"].append("x")
    second = toy(model="BPR")
    assert second["train_neg_sample_args"]["sample_num"] == 1 and "x" not in second["load_col"]["inter"]


def test_describe_says_what_was_changed_and_where(here):
    file = write("mine.yaml", "dropout: 0.5\nsamples: [1, 4]\n")
    text = toy("--width=7", "--seed=7", config_file_list=[file], config_dict={"epochs": 2, "use_gpu": False}).describe()
    assert text == (
        "Toy on toy; changed settings: dropout=0.5 (mine.yaml); epochs=2, use_gpu=False (config_dict); "
        "width=7, seed=7 (command line)"
    )


def test_describe_names_no_defaults(here):
    write("properties/model/Toy_on_toy.yaml", "width: 7\n")
    assert toy("--width=7", "--epochs=300").describe() == "Toy on toy (Toy_on_toy.yaml); changed settings: none"


def test_unexpected_faults_keep_their_traceback(here, monkeypatch):
    monkeypatch.setattr(config_module, "check_columns", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        toy()
