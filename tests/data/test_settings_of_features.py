"""RecBole's settings of labels, features, links and vectors: each changes what is read, or is refused where nothing
reads it."""

import pytest
import torch

from recbole_contrec.errors import UserError
from tests.helpers.shop import CLICKS, HEADER, rows_of


def test_labels_by_threshold(shop, load):
    shop(
        "rated",
        HEADER + "|rating:float|click:float",
        rows_of(4, 5, lambda user, place: place + 1, lambda user, place: place % 2),
    )
    label = load("FM", "rated", "--threshold={'rating': 3}", "--LABEL_FIELD=liked", *CLICKS).dataset.inter_feat["liked"]
    assert label.sum() == 12
    clicks = load(
        "FM",
        "rated",
        "--LABEL_FIELD=click",
        "--load_col={'inter': ['user_id', 'item_id', 'timestamp', 'click']}",
        *CLICKS,
    )
    assert clicks.dataset.inter_feat["click"].sum() == 8
    for model in ("SASRec", "ContRec", "BPR"):
        with pytest.raises(UserError, match=r"learns from no labels.*--val_interval=\{'rating': '\[3,inf\)'\}"):
            load(model, "rated", "--threshold={'rating': 3}")


def test_features_of_context_models(shop, load):
    shop(
        "priced",
        HEADER + "|rating:float|price:float",
        rows_of(4, 5, lambda user, place: place + 1, lambda user, place: 10 * place),
    )
    common = (
        "--threshold={'rating': 3}",
        "--load_col={'inter': ['user_id', 'item_id', 'timestamp', 'rating', 'price']}",
        *(argument.replace("AUC", "LogLoss") for argument in CLICKS),
    )
    prices = {
        name: load("FM", "priced", *common, *arguments).dataset.inter_feat["price"]
        for name, arguments in {
            "plain": (),
            "field": ("--normalize_field=['price']",),
            "all": ("--normalize_all=True",),
            "numerical": ("--numerical_features=['price']",),
            "buckets": ("--numerical_features=['price']", "--discretization={'price': {'method': 'ED', 'bucket': 2}}"),
        }.items()
    }
    assert prices["plain"].max() == 40 and prices["field"].max() == prices["all"].max() == 1
    assert prices["numerical"].shape == (20, 2) and prices["buckets"][:, 1].unique().tolist() == [1, 2]
    with pytest.raises(UserError, match="reads no features"):
        load("SASRec", "priced", "--numerical_features=['price']")
    for argument, text in (
        ("--numerical_features=['prize']", "did you mean price?"),
        ("--normalize_field=['item_id']", "reads float"),
    ):
        with pytest.raises(UserError) as caught:
            load("FM", "priced", *common, argument)
        assert text in str(caught.value)


def test_numbers_that_no_layer_reads_are_said_or_refused(shop, load, caplog):
    shop(
        "priced",
        HEADER + "|price:float",
        rows_of(4, 5, lambda user, place: 10 * place * (user % 2)),
        item=["item_id:token|weight:float|kind:token", *(f"i{item}|{item}|k" for item in range(17))],
    )
    with pytest.raises(UserError, match="column 'weight' is of type float, and SASRecF reads only those numbers"):
        load("SASRecF", "priced", "--selected_features=['weight']")
    load("SASRecF", "priced", "--selected_features=['weight']", "--numerical_features=['weight']")
    everything = ("--threshold={'price': 20}", "--load_col={'inter': '*', 'item': '*'}", *CLICKS)
    load("FM", "priced", *everything)
    assert "FM does not read the columns weight:" in caplog.text
    caplog.clear()
    load("FM", "priced", *everything, "--numerical_features=['weight']")
    assert "does not read" not in caplog.text


def test_a_name_stands_for_one_column_and_files_that_are_named_exist(shop, load):
    for name, header in (("twice", "item_id:token|timestamp:float"), ("foreign", "item_id:token|user_id:token")):
        shop(name, HEADER, rows_of(), item=[header, *(f"i{item}|{item}" for item in range(17))])
        with pytest.raises(UserError, match=r"is loaded of the \.inter and of the \.item file"):
            load("BPR", name, "--load_col={'inter': '*', 'item': '*'}")
        load("BPR", name, "--load_col={'inter': '*', 'item': ['item_id']}")
    with pytest.raises(UserError, match=r"load_col: there is no file .*twice\.user"):
        load("BPR", "twice", "--load_col={'inter': '*', 'user': '*'}")
    with pytest.raises(UserError, match="unload_col: the .inter file has no column 'time'.*did you mean timestamp"):
        load("BPR", "twice", "--load_col=~", "--unload_col={'inter': ['time']}")
    with pytest.raises(UserError, match="USER_ID_FIELD and ITEM_ID_FIELD are both 'item_id'"):
        load("BPR", "twice", "--USER_ID_FIELD=item_id", "--ITEM_ID_FIELD=item_id")


LINKED = (
    "--load_col={'inter': ['user_id', 'item_id', 'timestamp'], 'kg': ['head_id', 'relation_id', 'tail_id'], "
    "'link': ['item_id', 'entity_id']}",
)


def test_links_of_items_to_entities(shop, load):
    def write(name, link):
        shop(
            name,
            HEADER,
            rows_of(),
            kg=["head_id:token|relation_id:token|tail_id:token", *(f"e{item}|r|e1" for item in range(17))],
            link=["item_id:token|entity_id:token", *link],
        )

    pairs = [f"i{item}|e{item}" for item in range(17)]
    write("whole", [*pairs, "i3|e3"])
    data = load("CFKG", "whole", *LINKED).dataset
    assert not data.notes and data.inter_num == 20
    for name, more in (("items", "i3|e99"), ("entities", "i99|e3")):
        write(name, [*pairs, more])
        with pytest.raises(UserError, match=rf"{name}.link, lines 5 and 19: .* stands in more than one pair"):
            load("CFKG", name, *LINKED)
    write("lacking", pairs[1:])
    data = load("CFKG", "lacking", *LINKED).dataset
    assert data.inter_num == 19 and data.notes == [
        "lacking.link: 1 of 20 interactions are left out, for their item, for instance 'i0', is no entity of lacking.kg"
    ]
    write("strange", [f"j{item}|e{item}" for item in range(17)])
    with pytest.raises(UserError, match="no item of an interaction is an entity"):
        load("CFKG", "strange", *LINKED)


def test_item_columns_that_a_model_names_are_loaded(config_of, assembled):
    for model in ("SASRecF", "GRU4RecF"):
        loaded = assembled(model, "--selected_features=['title']")
        assert loaded.config["load_col"]["item"] == ["item_id", "title"]
        assert torch.isfinite(loaded.model.calculate_loss(next(iter(loaded.data.train))))
    with pytest.raises(UserError) as caught:
        config_of("SASRecF", "--selected_features=['titel']")
    assert "did you mean title?" in str(caught.value) and "genre:token_seq" in str(caught.value)
    with pytest.raises(UserError, match="selected_features"):
        config_of("SASRecF")  # whose default is a column of ml-100k


def test_preloaded_weights_need_a_reader(shop, load):
    shop(
        "known",
        HEADER,
        rows_of(),
        ent=["ent_id:token|ent_emb:float_seq", *(f"i{item}|0.5 {item}" for item in range(17))],
        **{
            "kg": ["head_id:token|relation_id:token|tail_id:token", *(f"e{item}|r|e1" for item in range(17))],
            "link": ["item_id:token|entity_id:token", *(f"i{item}|e{item}" for item in range(17))],
        },
    )
    arguments = (
        "--additional_feat_suffix=ent",
        "--alias_of_item_id=['ent_id']",
        "--preload_weight={'ent_id': 'ent_emb'}",
        "--load_col={'inter': ['user_id', 'item_id', 'timestamp'], 'ent': ['ent_id', 'ent_emb'], "
        "'kg': ['head_id', 'relation_id', 'tail_id'], 'link': ['item_id', 'entity_id']}",
    )
    dataset = load("GRU4RecKG", "known", *arguments).dataset
    weights = dataset.get_preload_weight("ent_id")
    assert weights[dataset.token2id("item_id", "i3")].tolist() == [0.5, 3]
    with pytest.raises(UserError, match="reads no vectors from files"):
        load("SASRec", "known", *arguments)


def test_transform_is_for_models_that_read_it(config_of):
    assert config_of("BERT4Rec")["transform"] == "mask_itemseq" and config_of("SHAN")["transform"] == "inverse_itemseq"
    for model, name in (
        ("SASRec", "crop_itemseq"),
        ("ContRec", "mask_itemseq"),
        ("BERT4Rec", "~"),
        ("SHAN", "crop_itemseq"),
    ):
        with pytest.raises(UserError, match="transform"):
            config_of(model, f"--transform={name}")
    with pytest.raises(UserError, match="one of mask_itemseq"):
        config_of("GRU4Rec", "--transform=user_defined")
