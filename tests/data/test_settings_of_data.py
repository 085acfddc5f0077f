"""RecBole's settings of files and columns: each changes what is read, or is refused where nothing reads it."""

import pytest

from recbole_contrec.errors import UserError
from tests.helpers.shop import HEADER, inter, rows_of


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
