"""Config: which way of setting something goes first, mistakes in each of them, and its record."""

import copy
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from recbole_contrec.catalogue.places import properties_folders
from recbole_contrec.settings import config as config_module
from recbole_contrec.settings.config import Config
from recbole_contrec.settings.registry import find_model
from tests.helpers.toy import error_of, toy, write

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
