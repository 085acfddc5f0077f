"""recbole_contrec.data.published: MovieLens, Last.fm and Amazon as they are published, and damaged archives of them."""

import gzip
import os

import pytest

from recbole_contrec.data import writing
from recbole_contrec.data.prepare import prepare
from recbole_contrec.data.published.movielens import split_title
from tests.helpers.published import LASTFM, LATEST, META, ML_1M, REVIEWS, fails, lines


def test_ml_1m(archive, tmp_path):
    done = prepare("ml-1m", tmp_path / "d", archive(ML_1M), progress=False)
    assert (done.users, done.items, done.interactions) == (2, 3, 4)
    assert [file.name for file in done.files] == ["ml-1m.inter", "ml-1m.item", "ml-1m.user"]
    assert lines(done, ".inter") == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "2\t10\t5\t978300760",
        "1\t10\t4\t978301968",  # two ratings of one second: as in the file
        "1\t30\t1\t978301968",
        "1\t20\t3\t978302109",
        "",
    ]
    assert lines(done, ".item") == [
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tgenre:token_seq",
        "10\tShanghai Triad (Yao a yao yao dao waipo qiao)\t1995\tDrama",
        "20\tMisérables, Les\t1995\tDrama Children's",
        "30\tStar Wars: Episode IV :-)\t1977\tSci-Fi",
        "",
    ]
    assert lines(done, ".user") == [
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token",
        "1\t1\tF\t10\t48067",
        "2\t56\tM\t16\t02460",
        "",
    ]


@pytest.mark.parametrize("name", ["ml-latest-small", "ml-20m"])
def test_movielens_csv(archive, tmp_path, name):
    done = prepare(name, tmp_path / "d", archive(LATEST), progress=False)
    assert lines(done, ".inter")[1:] == ["1\t3\t3.5\t964981247", "1\t1\t4.0\t964982703", "2\t4\t0.5\t964981247", ""]
    assert lines(done, ".item")[1:] == [
        "1\tToy Story\t1995\tAdventure Comedy",
        "3\tAmerican President, The ''Q''\t2009\tDrama",
        "4\tBabylon 5\t\t",
        "",
    ]


def test_lastfm_is_ordered_by_the_first_tag(archive, tmp_path):
    done = prepare("lastfm", tmp_path / "d", archive(LASTFM), progress=False)
    assert lines(done, ".inter") == [
        "user_id:token\titem_id:token\tweight:float\ttimestamp:float",
        "2\t52\t13883\t1230764400",  # the second of its two tags is the earlier one
        "2\t63\t0\t1233442800",
        "2\t7\t0\t1233442800",
        "9\t63\t7\t1230764400",
        "",
    ]
    # artist 7 has no name but has an interaction; artist 51 has a name only
    assert lines(done, ".item")[0] == "item_id:token\tname:token_seq"
    assert lines(done, ".item")[1:] == ["52\t''Weird Al'' Yankovic", "63\tCafé", "7\t", ""]


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_amazon(tmp_path, pack):
    suffix = ".json.gz" if pack is gzip.compress else ".json"
    (tmp_path / f"reviews_Beauty_5{suffix}").write_bytes(pack(REVIEWS.encode()))
    (tmp_path / f"meta_Beauty{suffix}").write_bytes(pack(META.encode()))
    source = tmp_path / f"reviews_Beauty_5{suffix}"
    done = prepare("amazon-beauty", tmp_path / "d", source, progress=False)
    assert lines(done, ".inter") == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "A2\tB001\t5\t1390000000",
        "A1\tB002\t4\t1370000000",
        "A1\tB003\t1\t1370000000",
        "A1\tB001\t3\t1380000000",
        "",
    ]
    assert lines(done, ".item") == [
        "item_id:token\ttitle:token_seq\tcategory:token_seq",
        "B002\tNail Polish & ''Red''\tOPI, Makeup, Nails, Gift",
        "B001\t\t",
        "B003\t\t",
        "",
    ]


def test_amazon_needs_the_companion_file(tmp_path):
    (tmp_path / "reviews_Beauty_5.json.gz").write_bytes(gzip.compress(REVIEWS.encode()))
    text = fails("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json.gz")
    assert str(tmp_path / "meta_Beauty.json.gz") in text and "https://snap.stanford.edu" in text


def test_amazon_executes_nothing_and_names_the_line(tmp_path):
    (tmp_path / "reviews_Beauty_5.json").write_text(REVIEWS)
    (tmp_path / "meta_Beauty.json").write_text("{'asin': 'B001', 'title': open('/etc/passwd').read()}\n")
    assert "meta_Beauty.json, line 1" in fails("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json")


def test_amazon_without_a_field(tmp_path):
    (tmp_path / "reviews_Beauty_5.json").write_text(REVIEWS.replace("unixReviewTime", "unixreviewtime"))
    (tmp_path / "meta_Beauty.json").write_text(META)
    text = fails("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json")
    assert "'unixReviewTime'" in text and "did you mean unixreviewtime" in text


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("'brand': 'OPI'", "'brand': ['OPI']", ["line 2", "brand", "['OPI']"]),
        ("'brand': 'OPI'", "'brand': None", None),
        ("'brand': 'OPI'", "'brand': 7", None),
        ("'title': 'Nail", "'title': {}, 'else': 'Nail", ["line 2", "title", "{}"]),
        (
            "'categories': [['Beauty', 'Makeup', 'Nails']",
            "'categories': {'a': 1}, 'else': [['x']",
            ["line 2", "categories"],
        ),
        (
            "'categories': [['Beauty', 'Makeup', 'Nails']",
            "'categories': 'Beauty', 'else': [['x']",
            ["line 2", "categories", "'Beauty'"],
        ),
    ],
)
def test_odd_fields_of_amazons_products(tmp_path, old, new, said):
    assert old in META
    (tmp_path / "reviews_Beauty_5.json").write_text(REVIEWS)
    (tmp_path / "meta_Beauty.json").write_text(META.replace(old, new))
    if said is None:
        prepare("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json", progress=False)
    else:
        text = fails("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json")
        assert "meta_Beauty.json" in text and all(part in text for part in said)


def test_categories_in_a_single_list_are_one_branch(tmp_path):
    (tmp_path / "reviews_Beauty_5.json").write_text(REVIEWS)
    (tmp_path / "meta_Beauty.json").write_text(
        '{"asin": "B002", "title": "Polish", "categories": ["Beauty", "Makeup"]}\n'
    )
    done = prepare("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json", progress=False)
    assert lines(done, ".item")[1] == "B002\tPolish\tMakeup"


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("overall", "[5]", ["overall", "[5]", "no number"]),
        ("unixReviewTime", '"soon"', ["'soon'", "no number"]),
        ("reviewerID", "[1]", ["reviewerID", "[1]"]),
        ("unixReviewTime", "null", None),
        ("reviewerID", '""', None),
        ("unixReviewTime", "Infinity", None),
    ],
)
def test_odd_fields_of_amazons_reviews(tmp_path, field, value, said):
    review = {"reviewerID": '"A9"', "asin": '"B001"', "overall": "5.0", "unixReviewTime": "1380000000", field: value}
    line = "{" + ", ".join(f'"{name}": {part}' for name, part in review.items()) + "}\n"
    (tmp_path / "reviews_Beauty_5.json").write_text(REVIEWS + line)
    (tmp_path / "meta_Beauty.json").write_text(META)
    number = (REVIEWS + line).count("\n")
    if said is None:
        done = prepare("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json", progress=False)
        assert done.interactions == 4 and f"line {number})" in done.notes[0]
    else:
        text = fails("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json")
        assert f"line {number}" in text and all(part in text for part in said)


def test_clean_text():
    assert writing.clean_text('  a\t"b"\r\nc\u2028d\xa0e\0f\ud800 ') == "a ''b'' c d ef"


@pytest.mark.parametrize(
    "title, split",
    [
        ("Toy Story (1995)", ("Toy Story", "1995")),
        ("Up (The Film) (2009) ", ("Up (The Film)", "2009")),
        ("Series (2007-2010)", ("Series", "2007")),
        ("Series (2009– )", ("Series", "2009")),
        ("2001 (A)", ("2001 (A)", "")),
    ],
)
def test_split_title(title, split):
    assert split_title(title) == split


def test_truncated_archive(archive, tmp_path):
    source = archive({**ML_1M, "ml-1m/README": os.urandom(10_000)})
    source.write_bytes(source.read_bytes()[:-5_000])
    text = fails("ml-1m", tmp_path / "d", source)
    assert "source.zip" in text and "cut off" in text
    assert not (tmp_path / "d").exists()


def test_damaged_member(archive, tmp_path):
    source = archive(ML_1M)
    content = bytearray(source.read_bytes())
    place = content.index(b"ml-1m/ratings.dat") + len("ml-1m/ratings.dat") + 8
    content[place] ^= 0xFF
    source.write_bytes(content)
    assert "source.zip" in fails("ml-1m", tmp_path / "d", source)


def test_truncated_gzip(tmp_path):
    reviews = tmp_path / "reviews_Beauty_5.json.gz"
    reviews.write_bytes(gzip.compress(REVIEWS.encode())[:-20])
    (tmp_path / "meta_Beauty.json.gz").write_bytes(gzip.compress(META.encode()))
    assert "cut off" in fails("amazon-beauty", tmp_path / "d", reviews)


def test_not_a_zip(tmp_path):
    (tmp_path / "ml-1m.zip").write_text("<html>log in to the hotel's network</html>")
    assert "not the archive" in fails("ml-1m", tmp_path / "d", tmp_path / "ml-1m.zip")
    assert "no file" in fails("ml-1m", tmp_path / "d", tmp_path / "ml-2m.zip")
    assert "is a folder" in fails("ml-1m", tmp_path / "d", tmp_path)


@pytest.mark.parametrize("name, members", [("ml-1m", ML_1M), ("ml-20m", LATEST), ("lastfm", LASTFM)])
def test_missing_member(archive, tmp_path, name, members):
    used = [member for member in members if not member.endswith(("/", "links.csv"))]
    for missing in used:
        source = archive({member: text for member, text in members.items() if member != missing})
        text = fails(name, tmp_path / "d", source)
        assert f"no {missing.rsplit('/', 1)[-1]} in source.zip" in text


def test_missing_column_of_a_member(archive, tmp_path):
    members = {name: text.replace("movieId", "movieID") for name, text in LATEST.items()}
    text = fails("ml-20m", tmp_path / "d", archive(members))
    assert "'movieId'" in text and "ratings.csv" in text and "did you mean movieID" in text


def test_a_line_with_too_few_fields(archive, tmp_path):
    text = fails("ml-1m", tmp_path / "d", archive({**ML_1M, "ml-1m/users.dat": "1::F::1::10::48067\n2::M\n"}))
    assert "users.dat, line 2" in text
