"""The table of RecBole's settings: complete, carried out, and the page that is made from it."""

import ast
import logging

import pytest
from recbole.utils import argument_list

from recbole_contrec.catalogue.places import recbole_properties
from recbole_contrec.errors import UserError
from recbole_contrec.settings import recbole_keys
from recbole_contrec.settings.recbole_keys import BY_KEY, DERIVED, HONOURED, NOTHING_READS, REFUSED, TABLE
from recbole_contrec.settings.registry import recbole_settings
from recbole_contrec.settings.schema import read_yaml
from tests.helpers.files import ROOT

OURS = {"properties"}  # a key of this package's command line only

OTHER = {
    "save_dataset": True,
    "dataset_save_path": "x.pth",
    "save_dataloaders": True,
    "dataloaders_save_path": "x.pth",
    "config_file": "x.yaml",
    "nproc": 2,
    "ip": "localhost",
    "port": "5678",
    "world_size": 2,
    "offset": 1,
    "group_offset": 1,
    "local_rank": 1,
    "valid_metric_bigger": False,
}  # another value than the default


def files_of_recbole():
    folder = recbole_properties()
    return [
        folder / "overall.yaml",
        folder / "dataset/sample.yaml",
        folder / "dataset/ml-100k.yaml",
        *sorted(folder.glob("quick_start_config/*.yaml")),
    ]


def test_every_key_of_recbole_is_in_the_table_and_no_other():
    keys = {key for file in files_of_recbole() for key in read_yaml(file)}
    for part in ("general", "training", "evaluation", "dataset"):
        keys.update(getattr(argument_list, f"{part}_arguments"))
    assert len(keys) > 75
    assert keys <= set(BY_KEY)
    assert set(BY_KEY) == set(recbole_settings()) - OURS
    assert len(TABLE) == len(BY_KEY) and not set(DERIVED) & set(BY_KEY)


def test_every_row_names_a_test_that_exists():
    functions = {}
    for row in TABLE:
        file, _, name = row.shown.partition("::")
        if file not in functions:
            functions[file] = {
                node.name
                for node in ast.parse((ROOT / "tests" / file).read_text()).body
                if isinstance(node, ast.FunctionDef)
            }
        assert name in functions[file], row
        assert (
            row.fate in (HONOURED, REFUSED, NOTHING_READS) and row.elsewhere in ("", "logged", "refused") and row.text
        )


@pytest.mark.parametrize("key", [row.key for row in TABLE if row.fate == REFUSED])
def test_what_is_refused_stops_a_run(config_of, key):
    with pytest.raises(UserError) as caught:
        config_of("SASRec", f"--{key}={OTHER[key]}")
    assert str(caught.value).startswith(f"{key}=") and len(str(caught.value).splitlines()) == 1


def test_the_defaults_of_what_is_refused_are_no_error(config_of):
    config_of("SASRec", "--save_dataset=False", "--dataset_save_path=~", "--nproc=1", "--valid_metric_bigger=True")


@pytest.mark.parametrize(
    "model, argument, reason",
    [
        ("SASRec", "--POSITION_FIELD=place", "no code of RecBole reads it"),
        ("SASRec", "--require_pow=True", "does not read it"),
        ("SASRec", "--RATING_FIELD=stars", "does not read it"),
        ("SASRec", "--kg_reverse_r=True", "no knowledge graph"),
        ("SASRec", "--mask_ratio=0.3", "does not read it"),
        ("SASRec", "--ft_ratio=0.3", "does not read it"),
        ("SASRec", "--reg_weight=0.3", "does not read it"),
        ("BPR", "--LIST_SUFFIX=_row", "reads no histories"),
        ("ContRec", "--NEG_PREFIX=not_", "takes no pairs"),
    ],
)
def test_what_nothing_reads_is_told_of(config_of, caplog, model, argument, reason):
    with caplog.at_level(logging.WARNING, logger="recbole_contrec"):
        config_of(model, argument)
    assert "does nothing" in caplog.text and reason in caplog.text and argument[2:].split("=")[0] in caplog.text


@pytest.mark.parametrize(
    "model, argument",
    [
        ("LightGCN", "--require_pow=True"),
        ("DMF", "--RATING_FIELD=rating"),
        ("BERT4Rec", "--mask_ratio=0.3"),
        ("BERT4Rec", "--ft_ratio=0.3"),
        ("BPR", "--NEG_PREFIX=not_"),
        ("LightGCN", "--reg_weight=0.3"),
    ],
)
def test_nothing_is_said_where_a_model_reads_it(config_of, caplog, model, argument):
    with caplog.at_level(logging.WARNING, logger="recbole_contrec"):
        assert str(config_of(model, argument)[argument[2:].split("=")[0]]) == argument.split("=")[1]
    assert argument[2:].split("=")[0] not in caplog.text


@pytest.mark.parametrize("key", ["entity_kg_num_interval", "relation_kg_num_interval"])
def test_nothing_is_said_of_an_empty_filter_of_a_knowledge_graph(config_of, caplog, key):
    with caplog.at_level(logging.WARNING, logger="recbole_contrec"):
        assert config_of("ContRec", f"--{key}=~")[key] is None
    assert key not in caplog.text


@pytest.mark.parametrize(
    "argument, expected",
    [
        ("--device=cuda:1", "--gpu_id=0"),
        ("--valid_neg_sample_args={}", "eval_args"),
        ("--neg_sampling={}", "train_neg_sample_args"),
    ],
)
def test_what_is_no_setting_names_the_one_that_is_meant(config_of, argument, expected):
    with pytest.raises(UserError, match="unknown setting") as caught:
        config_of("SASRec", argument)
    assert expected in str(caught.value)


def test_the_page_is_made_from_the_table():
    assert (ROOT / recbole_keys.DOCUMENT).read_text(encoding="utf-8") == recbole_keys.as_markdown(), (
        "run python -m recbole_contrec.settings.recbole_keys"
    )
    assert f"({recbole_keys.DOCUMENT.name})" in (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
