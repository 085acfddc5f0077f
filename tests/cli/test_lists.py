"""What the command line shows: help, version, lists, settings."""

from pathlib import Path

import yaml

import recbole_contrec
from recbole_contrec.catalogue.places import package_properties
from tests.helpers.commands import yaml_of


def test_help(workplace, command):
    assert command() == command("--help") == command("-h")
    done = command("--help")
    assert done.code == 0 and not done.err
    for word in ("recommend", "prepare", "vectors", "--model=", "--dataset=", "--resume=", "--properties=", "--debug"):
        assert word in done.out
    for option in ("--checkpoint=", "--users=", "--users_file=", "--history=", "--k=", "--output=", "--all"):
        assert option in command("recommend", "--help").out
    for option in ("--text_encoder=", "--item_vectors=", "--output=", "--dataset=", "--vector_size="):
        assert option in command("vectors", "--help").out
    assert not list(workplace.iterdir())


def test_version(command):
    done = command("--version")
    assert done.code == 0 and done.out.startswith(f"recbole_contrec {recbole_contrec.__version__}, recbole 1.2")


def test_list_models(workplace, command):
    lines = {line.split()[0]: line for line in command("--list-models").out.splitlines()}
    assert str(package_properties() / "model" / "ContRec.yaml") in lines["ContRec"]
    assert "continuous tokens" in lines["ContRec"].lower()
    assert "sequential" in lines["SASRec"] and "general" in lines["LightGCN"] and len(lines) > 90


def test_list_models_of_a_user(workplace, command):
    yaml_of(
        "mine", "MyRec", "# A child of mine, told\n# over two lines. Not shown.\nextends: ContRec\n# Nor is this.\n"
    )
    assert "A child of mine, told over two lines.\n" in command("--list-models", "--properties=mine").out
    assert "MyRec" not in command("--list-models").out


def test_list_datasets(here, command):
    lines = {line.split()[0]: line for line in command("--list-datasets", "--data_path=data").out.splitlines()}
    assert str(Path("data/tiny")) in lines["tiny"] and "bundled" in lines["ml-100k"] and "no data yet" in lines["ml-1m"]
    assert "tiny" not in command("--list-datasets").out


def test_settings_of_a_model(workplace, command):
    lines = command("--settings", "--model=ContRec").out.splitlines()
    meanings = {lines[n][2:].split("=")[0]: lines[n + 1].strip() for n in range(0, len(lines), 2)}
    folder = package_properties()
    own = yaml.safe_load((folder / "model" / "ContRec.yaml").read_text(encoding="utf-8"))
    files = [folder / "groups" / f"{name}.yaml" for name in own.pop("include")]
    keys = {key for file in files for key in yaml.safe_load(file.read_text(encoding="utf-8"))}
    assert set(meanings) == {*own, *keys} - {"model_class", "dataset_class", "trainer_class"}
    assert all(len(meaning) > 3 for meaning in meanings.values())
    assert meanings["n_layers"] == "Layers." and "--n_layers=2 (a whole number from 1 to 1000)" in lines
    assert "--llm=~ (text or ~)" in lines and "--item_vectors=svd (text)" in lines
