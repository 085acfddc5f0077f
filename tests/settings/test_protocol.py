"""One protocol for every ranking model, sampled negatives where they are needed, and the device."""

import pytest
import torch

from recbole_contrec.settings.config import Config
from tests.helpers.toy import FULL, error_of, toy

LEAVE_ONE_OUT = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": FULL}


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
