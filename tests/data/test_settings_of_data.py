"""RecBole's settings of files and columns: each changes what is read, or is refused where nothing reads it."""

import pytest
import torch
from recbole.utils import init_seed

from recbole_contrec.data.loading import load_data
from recbole_contrec.errors import UserError
from tests.helpers.options import changed


def inter(data):
    """Users and items of all interactions, by name, as a sorted list."""
    dataset = data.dataset
    return sorted(
        zip(
            dataset.id2token(dataset.uid_field, data.dataset.all_interactions.users),
            dataset.id2token(dataset.iid_field, data.dataset.all_interactions.items),
        )
    )


@pytest.fixture
def shop(tiny):
    """A function (name, header, rows, item lines) that writes a small data set beside the tiny one."""

    def write(name, header, rows, separator="\t", encoding="utf-8", **files):
        (tiny / name).mkdir()
        for suffix, lines in {"inter": [header, *rows], **files}.items():
            text = "\n".join(separator.join(line.split("|")) for line in lines) + "\n"
            (tiny / name / f"{name}.{suffix}").write_bytes(text.encode(encoding))

    return write


@pytest.fixture
def load(tiny):
    """A function (model, data set, *arguments) -> RunData."""

    def start(model, dataset, *arguments):
        from recbole_contrec.settings.config import Config

        defaults = [f"--data_path={tiny}", "--use_gpu=False", "--topk=[3]", "--valid_metric=NDCG@3"]
        config = Config(model, dataset, arguments=changed(defaults, arguments))
        init_seed(config["seed"], True)  # which rows a random split takes
        return load_data(config)

    return start


def rows_of(users=4, events=5, *columns):
    """Lines user|item|time and what columns give for (user, place)."""
    return [
        "|".join(
            [f"u{user}", f"i{(user + 2 * place) % 17}", str(place), *(str(column(user, place)) for column in columns)]
        )
        for user in range(users)
        for place in range(events)
    ]


CLICKS = (
    "--eval_args={'mode': 'labeled', 'split': {'RS': [0.2, 0.4, 0.4]}, 'order': 'RO', 'group_by': 'none'}",
    "--metrics=['AUC']",
    "--valid_metric=AUC",
)
HEADER = "user_id:token|item_id:token|timestamp:float"


def test_separators_and_encoding(shop, load):
    items = ["item_id:token|title:token_seq", *(f"i{item}|caf\u00e9+No {item}" for item in range(17))]
    shop("odd", HEADER, rows_of(), separator=",", encoding="latin-1", item=items)
    data = load("ContRec", "odd", "--field_separator=,", "--seq_separator=+", "--encoding=latin-1")
    assert len(inter(data)) == 20
    assert "caf\u00e9 No 3" in data.dataset.item_texts["title"]
    with pytest.raises(UserError):
        load("ContRec", "odd", "--encoding=latin-1")
    with pytest.raises(UserError, match="encoding"):
        load("ContRec", "odd", "--field_separator=,")
    shop("tabs", HEADER, rows_of(), encoding="cp1252", item=items)
    assert len(inter(load("ContRec", "tabs", "--field_separator=\\t", "--encoding=1252"))) == 20
    for separator, text in (
        ("", "cannot stand between columns"),
        ('"', "cannot stand between columns"),
        ("~", "with '~' between columns"),
    ):
        with pytest.raises(UserError, match=text):
            load("ContRec", "tabs", f"--field_separator={separator}")
    for separator in ("", "\t"):
        with pytest.raises(UserError, match="seq_separator"):
            load("ContRec", "tabs", f"--seq_separator={separator}", "--encoding=1252")


@pytest.mark.parametrize("model", ["SASRec", "ContRec"])
def test_columns_by_other_names(shop, load, model):
    shop("odd", "who:token|what:token|when:float", rows_of(4, 9))
    data = load(
        model,
        "odd",
        "--USER_ID_FIELD=who",
        "--ITEM_ID_FIELD=what",
        "--TIME_FIELD=when",
        "--LIST_SUFFIX=_before",
        "--ITEM_LIST_LENGTH_FIELD=how_many",
        "--MAX_ITEM_LIST_LENGTH=3",
    )
    row = data.test.dataset.inter_feat[0]
    assert row["what_before"].shape == (3,) and int(row["how_many"]) == 3 and "who" in row
    batch = next(iter(data.train))
    assert "what_before" in batch and "how_many" in batch and batch["what_before"].shape[1] <= 3


def test_data_path_holds_for_ml_100k_too(shop, load, tiny, config_of):
    from recbole_contrec.settings.config import Config

    assert "dataset_example" in Config("BPR", "ml-100k")["data_path"]
    assert (
        "dataset_example" in Config("BPR", "ml-100k", arguments=[f"--data_path={tiny}"])["data_path"]
    )  # there is none
    shop(
        "ml-100k",
        HEADER.replace("timestamp", "rating:float|timestamp"),
        [row.replace("|", "|", 1) + "|7" for row in rows_of()],
    )
    assert (
        len(
            inter(
                load(
                    "BPR",
                    "ml-100k",
                    "--load_col={'inter': ['user_id', 'item_id', 'timestamp']}",
                    "--eval_args={'split': {'LS': 'test_only'}}",
                )
            )
        )
        == 20
    )


# labels and features


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


# columns and rows


def test_lengths_of_sequences(load, config_of):
    arguments = "--load_col={'inter': ['user_id', 'item_id', 'timestamp'], 'item': ['item_id', 'title']}"
    assert load("BPR", "tiny", arguments).dataset.field2seqlen["title"] == 3
    assert load("BPR", "tiny", arguments, "--seq_len={'title': 2}").dataset.item_feat["title"].shape[1] == 2
    for setting, text in (
        ("{'titel': 2}", "did you mean title?"),
        ("{'timestamp': 2}", "has no length"),
        ("{'genre': 2}", "is not loaded"),
    ):
        with pytest.raises(UserError) as caught:
            config_of("BPR", arguments, f"--seq_len={setting}")
        assert text in str(caught.value)


@pytest.mark.parametrize("model", ["SASRec", "BPR", "ContRec"])
def test_columns_that_are_loaded(shop, load, model):
    shop("wide", HEADER + "|rating:float|channel:token", rows_of(4, 5, lambda *_: 1, lambda *_: "web"))
    fields = lambda *arguments: set(load(model, "wide", *arguments).dataset.field2type)  # noqa: E731
    assert {"rating", "channel"}.isdisjoint(fields())
    assert "rating" in fields("--load_col={'inter': ['user_id', 'item_id', 'timestamp', 'rating']}")
    assert "channel" in fields("--unload_col={'inter': ['rating']}") and "rating" not in fields(
        "--unload_col={'inter': ['rating']}"
    )
    data = load(model, "wide", "--unused_col={'inter': ['timestamp']}")
    assert "timestamp" not in data.test.dataset.inter_feat and len(inter(data)) == 20
    for argument, text in (
        ("--unused_col={'inter': ['rating']}", "no column 'rating'"),
        ("--additional_feat_suffix=ent", "no file"),
        ("--unused_col={'inter': ['item_id']}", "is needed"),
        ("--unload_col={'inter': ['user_id']}", "user_id"),
    ):
        with pytest.raises(UserError) as caught:
            load(model, "wide", argument)
        assert text in str(caught.value)


@pytest.mark.parametrize("model", ["SASRec", "ContRec"])
def test_filters(shop, load, model):
    rows = rows_of(6, 8, lambda user, place: 1 + (place > 1), lambda user, place: "web" if user < 4 else "shop")
    rows += ["u0|i0|9|2|web", "u0|i0|10|2|web"]
    shop("kept", HEADER + "|rating:float|channel:token", rows)
    count = lambda *arguments: len(inter(load(model, "kept", *arguments)))  # noqa: E731
    assert count() == 50
    assert (
        count("--val_interval={'rating': '[2,inf)'}") == 38
        and count("--val_interval={'rating': '(-inf,0];(1,2]'}") == 38
    )
    assert count("--val_interval={'channel': ['web']}") == 34
    assert count("--user_inter_num_interval=[9,inf)") == 10 and count("--user_inter_num_interval=(0,8]") == 40
    assert count("--item_inter_num_interval=[1,inf)") == 50
    assert count("--rm_dup_inter=first") == count("--rm_dup_inter=last") == 48
    for argument, text in (
        ("--val_interval={'rating': '>=2'}", "[2,inf)"),
        ("--val_interval={'channel': '[1,2]'}", "['a', 'b']"),
        ("--val_interval={'ratign': '[2,inf)'}", "rating"),
        ("--rm_dup_inter=all", "one of first, last"),
        ("--val_interval={'rating': ['2']}", "[3,inf)"),
    ):
        with pytest.raises(UserError) as caught:
            load(model, "kept", argument)
        assert text in str(caught.value)


def test_interactions_without_an_item_are_dropped_or_kept(shop, load):
    shop("part", HEADER, rows_of(6, 6), item=["item_id:token|title:token_seq", *(f"i{item}|x" for item in range(13))])
    columns = "--load_col={'inter': ['user_id', 'item_id', 'timestamp'], 'item': ['item_id', 'title']}"
    counts = [
        len(inter(load("BPR", "part", columns, f"--filter_inter_by_user_or_item={choice}"))) for choice in (True, False)
    ]
    assert counts[0] < counts[1] == 36


def test_columns_share_ids(shop, load):
    shop(
        "again",
        HEADER + "|previous:token|friend:token",
        rows_of(5, 6, lambda user, place: f"i{place}", lambda user, place: "u1"),
    )
    columns = "--load_col={'inter': ['user_id', 'item_id', 'timestamp', 'previous', 'friend']}"
    dataset = load("BPR", "again", columns, "--alias_of_item_id=['previous']", "--alias_of_user_id=['friend']").dataset
    assert dataset.field2id_token["previous"] is dataset.field2id_token["item_id"]
    assert dataset.inter_feat["friend"].unique().tolist() == [dataset.token2id("user_id", "u1")]
    with pytest.raises(UserError, match="reads token columns"):
        load("BPR", "again", columns, "--alias_of_item_id=['timestamp']")


def test_a_knowledge_graph(shop, load):
    shop(
        "graph",
        HEADER,
        rows_of(),
        link=["item_id:token|entity_id:token", *(f"i{item}|e{item}" for item in range(17))],
        kg=["h:token|r:token|t:token", *(f"e{item}|r{item % 2}|e{(item + 1) % 17}" for item in range(17)), "e0|rare|x"],
    )
    columns = (
        "--load_col={'inter': ['user_id', 'item_id', 'timestamp'], 'kg': ['h', 'r', 't'], 'link': ['item_id', "
        "'entity_id']}",
        "--HEAD_ENTITY_ID_FIELD=h",
        "--RELATION_ID_FIELD=r",
        "--TAIL_ENTITY_ID_FIELD=t",
        "--ENTITY_ID_FIELD=entity_id",
    )
    graph = lambda *arguments: load("CFKG", "graph", *columns, *arguments).dataset  # noqa: E731
    plain = graph()
    assert len(plain.kg_feat) == 18
    assert len(graph("--kg_reverse_r=True").kg_feat) == 36
    assert len(graph("--relation_kg_num_interval=[2,inf)").kg_feat) == 17
    assert len(graph("--entity_kg_num_interval=[2,inf)").kg_feat) == 17
    with pytest.raises(UserError, match=r"\[2,inf\)"):
        graph("--entity_kg_num_interval=>=2")
