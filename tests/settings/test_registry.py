"""Models by their name: folders of YAML files, what extends what, lists, classes."""

import sys

import pytest

from recbole_contrec.catalogue.datasets import list_datasets
from recbole_contrec.catalogue.places import package_properties, properties_folders
from recbole_contrec.settings.registry import find_model, list_models, load_class
from tests.helpers.toy import error_of, toy, write


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
