"""Which columns a Config takes: from headers, from YAML files of a data set, and what is said where there are none."""

import logging

import pytest

from recbole_contrec.settings.config import Config, dataset_settings_from_headers
from tests.helpers.toy import atomic, error_of, toy, write


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
