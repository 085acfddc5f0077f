"""recbole_contrec.data.published: Amazon 2023, Yelp, Steam and Gowalla as they are published."""

import gzip
import json
import re
import time

import pandas as pd
import pytest

from recbole_contrec.data.download import PrepareError
from recbole_contrec.data.prepare import prepare
from recbole_contrec.data.writing import ITEM, TIME, USER, Tables, write
from tests.helpers.published import fails, lines

RATINGS_2023 = (
    "user_id,parent_asin,rating,timestamp\nAB,B01,5.0,1609459200123\nAC,B01,1.0,1500000000000\nAB,B02,4.0,1\n"
)
META_2023 = [
    {
        "title": "Pad &amp; Stick",
        "store": "Nintendo",
        "categories": ["Video Games", "Switch", "Pads", "Switch"],
        "details": {"Brand": "x"},
        "videos": [{"title": "v", "user_id": "z"}],
        "parent_asin": "B01",
        "bought_together": None,
    },
    {"title": None, "store": None, "categories": [], "parent_asin": "B02"},
    {"title": "no reviewer", "categories": "broken", "parent_asin": "B99"},
]
YELP = [
    {"review_id": "r1", "user_id": "u-1", "business_id": "b_1", "stars": 4.0, "date": "2019-07-07 22:09:11"},
    {"review_id": "r2", "user_id": "u-1", "business_id": "b_2", "stars": 1.0, "date": "2018-07-07 22:09:11"},
    {"review_id": "r3", "user_id": "u-2", "business_id": "b_1", "stars": 3.0, "date": None},
]
BUSINESSES = [
    {"business_id": "b_1", "name": 'Zaba\'s "Grill"', "city": "Reno", "categories": "Mexican, Restaurants"},
    {"business_id": "b_2", "name": "Cut", "city": "", "categories": None},
    {"business_id": "b_9", "name": "never reviewed", "categories": ["broken"]},
]
STEAM = [
    "{u'username': u'Spodermen', u'hours': 2.6, u'product_id': u'35140', u'date': u'2017-12-22', u'text': u'+'}",
    "{u'username': u'Spodermen', u'product_id': u'20', u'date': u'2017-12-21', u'text': u'\"'}",
    "{'username': \"it's\", 'product_id': '35140', 'date': '2018-01-01'}",
]
GAMES = [
    "{u'genres': [u'Action', u'Free to Play'], u'title': u'Batman\u2122', u'tags': [u'Action', u'Stealth'],"
    " u'id': u'35140', u'developer': u'Rocksteady'}",
    "{u'app_name': u'Team Fortress', u'id': u'20'}",
    "{u'app_name': u'without an id'}",
]
GOWALLA = (
    "0\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t22847\n0\t2010-10-18T22:17:43Z\t30.2\t-97.7\t420315\n"
)


def records(rows):
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n"


@pytest.fixture
def files(tmp_path):
    """Writes files under their published names, packed where the name says so; gives the path of the first."""

    def write(**contents):
        paths = []
        for name, content in contents.items():
            path = tmp_path / name
            data = content.encode()
            path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
            paths.append(path)
        return paths[0]

    return write


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_amazon_2023(files, tmp_path, ending):
    source = files(**{f"Video_Games.csv{ending}": RATINGS_2023, f"meta_Video_Games.jsonl{ending}": records(META_2023)})
    done = prepare("amazon-2023-video-games", tmp_path / "d", source, progress=False)
    assert lines(done, ".inter")[1:-1] == [
        "AB\tB02\t4\t0.001",
        "AB\tB01\t5\t1609459200.123",
        "AC\tB01\t1\t1500000000.0",
    ]
    assert lines(done, ".item") == [
        "item_id:token\ttitle:token_seq\tcategory:token_seq",
        "B01\tPad & Stick\tNintendo, Switch, Pads",
        "B02\t\t",
        "",
    ]


def test_yelp(files, tmp_path, monkeypatch, request):
    monkeypatch.setenv("TZ", "Asia/Tokyo")  # of this machine, which has no say in it
    time.tzset()
    request.addfinalizer(lambda: (monkeypatch.undo(), time.tzset()))
    source = files(
        **{
            "yelp_academic_dataset_review.json": records(YELP),
            "yelp_academic_dataset_business.json": records(BUSINESSES),
        }
    )
    done = prepare("yelp", tmp_path / "d", source, progress=False)
    assert lines(done, ".inter") == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "u-1\tb_2\t1\t1531001351",  # the earlier one first; a day of UTC
        "u-1\tb_1\t4\t1562537351",
        "",
    ]
    assert lines(done, ".item")[1:] == ["b_1\tZaba's ''Grill''\tReno, Mexican, Restaurants", "b_2\tCut\t", ""]
    assert done.notes == (
        "rows left out for want of a user, an item or a time: 1 (yelp_academic_dataset_review.json, line 3)",
    )


def test_yelp_is_not_downloaded(tmp_path):
    text = fails("yelp", tmp_path / "d")
    assert "https://www.yelp.com/dataset" in text and "--from=yelp_academic_dataset_review.json" in text


def test_steam(files, tmp_path):
    source = files(**{"steam_reviews.json.gz": records(STEAM), "steam_games.json.gz": records(GAMES)})
    done = prepare("steam", tmp_path / "d", source, progress=False)
    assert lines(done, ".inter") == [
        "user_id:token\titem_id:token\ttimestamp:float",
        "Spodermen\t20\t1513814400",
        "Spodermen\t35140\t1513900800",
        "it's\t35140\t1514764800",
        "",
    ]
    assert lines(done, ".item")[1:] == [
        "35140\tBatman\u2122\tRocksteady, Action, Free to Play, Stealth",
        "20\tTeam Fortress\t",
        "",
    ]


def test_gowalla(files, tmp_path):
    done = prepare("gowalla", tmp_path / "d", files(**{"loc-gowalla_totalCheckins.txt.gz": GOWALLA}), progress=False)
    assert lines(done, ".inter") == [
        "user_id:token\titem_id:token\ttimestamp:float",
        "0\t420315\t1287440263",
        "0\t22847\t1287532527",
        "",
    ]
    assert done.items == 2 and len(done.files) == 1


def test_rows_of_gowalla_without_a_location_or_a_time_are_left_out_and_told(files, tmp_path):
    damaged = (
        GOWALLA.replace("\n", "\r\n")
        + "7\t2010-10-17T23:42:03Z\t30.2\r\n8\t\t30\t-97\t22847\r\n\t2010-10-17T23:42:03Z\t3\t3\t5"
    )
    done = prepare("gowalla", tmp_path / "d", files(**{"loc.txt": damaged}), progress=False)
    assert done.users == 1 and done.items == 2 and done.interactions == 2
    assert done.notes == ("rows left out for want of a user, an item or a time: 3 (loc.txt, lines 3, 4, 5)",)


def test_no_source_hands_on_rows_that_lack_an_id(tmp_path):
    rows = pd.DataFrame({USER: ["a", None, "b"], ITEM: ["x", "y", None], TIME: [1.0, 2.0, 3.0]})
    with pytest.raises(PrepareError, match="2 interactions of d lack a user"):
        write(Tables(rows), tmp_path, "d", progress=False)


def test_ids_that_are_written_in_another_way_are_found_among_the_items(files, tmp_path):
    reviews = '\ufeff{"user_id": "u", "business_id": "caf\\u00e9", "stars": 1, "date": "2018-07-07T02:00:00+02:00"}\n'
    reviews += '{"user_id": "u", "business_id": "gr\u00fcn", "stars": 1, "date": "2018-07-07"}\n'
    businesses = '\ufeff{"business_id": "caf\\u00e9", "name": "A"}\n{"business_id": "gr\u00fcn", "name": "B"}\n'
    source = files(**{"r.json": reviews, "yelp_academic_dataset_business.json": businesses})
    done = prepare("yelp", tmp_path / "d", source, progress=False)
    assert [row.split("\t")[1] for row in lines(done, ".item")[1:3]] == ["A", "B"]
    assert [row.split("\t")[3] for row in lines(done, ".inter")[1:3]] == ["1530921600", "1530921600"]


@pytest.mark.parametrize(
    "name, contents, expected",
    [
        ("amazon-2023-books", {"Books.csv": "user_id,asin,rating,timestamp\n"}, "no file .*meta_Books.jsonl.gz"),
        (
            "amazon-2023-books",
            {"Books.csv": "user_id,asin,rating,timestamp\n", "meta_Books.jsonl": "\n"},
            "no column 'parent_asin' in Books.csv",
        ),
        (
            "yelp",
            {"r.json": '{"user_id": "u"}\n', "yelp_academic_dataset_business.json": "\n"},
            "no column 'business_id' in r.json, line 1",
        ),
        (
            "yelp",
            {"r.json": records([{**YELP[0], "date": "7/7/2019"}]), "yelp_academic_dataset_business.json": "\n"},
            "r.json, line 1: date holds '7/7/2019', which is no date as 2018-07-07",
        ),
        (
            "steam",
            {
                "r.json": records(STEAM),
                "steam_games.json": "{'id': '20', 'genres': 'Action'}\n",
            },
            "steam_games.json, line 1: genres holds 'Action' and must be a list of names",
        ),
        ("gowalla", {"g.txt": "0,2010-10-19T23:55:27Z,30,-97,22847\n"}, "the first line has 1 column"),
        ("gowalla", {"g.txt": "0\tyesterday\t30\t-97\t22847\n"}, "column 'time' of g.txt holds 'yesterday' in line 1:"),
        ("gowalla", {"g.txt": GOWALLA + "1\tsoon\t0\t0\t1\n"}, "holds 'soon' in line 3:"),
        ("gowalla", {"g.txt": ""}, "g.txt"),
    ],
)
def test_files_that_are_not_what_they_should_be(files, tmp_path, name, contents, expected):

    assert re.search(expected, fails(name, tmp_path / "d", files(**contents)))
    assert not (tmp_path / "d").exists()
