"""recbole_contrec.data.usual_columns: tables whose columns nobody has named."""

from pathlib import Path

import pytest

from recbole_contrec.cli.prepare import prepare as main
from recbole_contrec.data.prepare import prepare
from recbole_contrec.data.usual_columns import complete
from tests.helpers.published import fails, lines


@pytest.mark.parametrize(
    "header, expected",
    [
        ("user_id item_id timestamp", ("user_id", "item_id", "timestamp")),
        ("userId movieId rating timestamp", ("userId", "movieId", "timestamp")),
        ("date customer_id article_id price t_dat", ("customer_id", "article_id", "date")),
        (
            "user_id:token item_id:token rating:float timestamp:float",
            ("user_id:token", "item_id:token", "timestamp:float"),
        ),
        ("reviewerID asin parent_asin overall unixReviewTime", ("reviewerID", "parent_asin", "unixReviewTime")),
        ("user_id artist_id track_id ts", ("user_id", "track_id", "ts")),  # of both, what was heard
        ("Time Item User username", ("User", "Item", "Time")),
        ("userId user_id itemId timestamp", ("userId", "itemId", "timestamp")),  # the first of two of one name
        ("a b c", ("user_id", "item_id", "timestamp")),  # the error of a missing column follows
    ],
)
def test_columns_of_usual_names(header, expected):
    columns, notes = complete({}, header.split(), None)
    assert tuple(columns[option] for option in ("user", "item", "time")) == expected
    said = {word.partition("=")[2] for note in notes for word in note.split() if word.startswith("--")}
    assert said == set(expected) - {"user_id", "item_id", "timestamp"}


def test_what_is_given_is_not_guessed():
    columns, notes = complete({"user": "b", "time": "c"}, ["user_id", "b", "c", "sku"], ["sku", "id", "title"])
    assert columns == {"user": "b", "item": "sku", "time": "c", "item_id": "sku", "text": ["title"]}
    assert notes == ("columns taken by their names: --item=sku --text=title",)


def test_a_column_that_is_given_is_not_taken_for_another_one(tmp_path, monkeypatch):
    columns, _ = complete({"item": "user_id"}, ["user_id", "uid", "time"], None)  # people who follow people
    assert (columns["user"], columns["item"]) == ("uid", "user_id")
    monkeypatch.chdir(tmp_path)
    Path("buys.csv").write_text("user_id,timestamp\na,1\n")
    assert "users and items are two columns" in fails("shop", "d", "buys.csv", columns={"item": "user_id"})


def test_a_table_without_options(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("buys.csv").write_text("uid,sku,ts\na,1,5\na,2,4\n")
    Path("products.csv").write_text("product_id,price,Title,brand\n1,3,Pad,Acme\n2,4,Pen,\n")
    done = prepare("shop", "d", "buys.csv", columns={"items": "products.csv"}, progress=False)
    assert lines(done, ".inter")[1:-1] == ["a\t2\t4", "a\t1\t5"]
    assert lines(done, ".item")[:2] == ["item_id:token\tTitle:token_seq\tbrand:token_seq", "1\tPad\tAcme"]
    taken = "columns taken by their names: --user=uid --item=sku --time=ts --item_id=product_id --text=Title,brand"
    assert done.notes == (taken,)
    assert main(["--dataset=shop", "--data_path=e", "--from=buys.csv"]) == 0
    assert "note: columns taken by their names: --user=uid --item=sku --time=ts\n" in capsys.readouterr().out


def test_a_column_that_is_missing_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("buys.csv").write_text("who,sku,ts\na,1,5\n")
    assert "no column 'user_id' in buys.csv, name it with --user=COLUMN" in fails("shop", "d", "buys.csv")
    Path("buys.csv").write_text("uid,sku,ts\na,1,5\n")
    Path("products.csv").write_text("sku,price\n1,3\n")
    text = fails("shop", "d", "buys.csv", columns={"items": "products.csv"})
    assert "needs --text=COLUMN,COLUMN" in text and "(sku, price)" in text
    Path("products.csv").write_text("number,title\n1,Pad\n")
    assert "no column 'sku' in products.csv, name it with --item_id" in fails(
        "shop", "d", "buys.csv", columns={"items": "products.csv"}
    )
