"""Data sets as their authors publish them, in a few lines each; and what tests ask of what `prepare` made of them."""

import io
import json
import zipfile
from pathlib import Path

import pytest

from recbole_contrec.data.prepare import PrepareError, prepare


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return file.getvalue()


ML_1M = {
    "ml-1m/": "",
    "ml-1m/ratings.dat": "2::10::5::978300760\n1::20::3::978302109\n1::10::4::978301968\n1::30::1::978301968\n",
    "ml-1m/movies.dat": (
        "10::Shanghai Triad (Yao a yao yao dao waipo qiao) (1995)::Drama\n"
        "20::Misérables, Les (1995)::Drama|Children's\n"
        "30::Star Wars: Episode IV :-) (1977)::Sci-Fi\n"
        "99::Nobody Saw It (2000)::Horror\n"
    ).encode("latin-1"),
    "ml-1m/users.dat": "1::F::1::10::48067\n2::M::56::16::02460\n3::M::25::15::55117\n",
}


LATEST = {
    "ml-latest-small/ratings.csv": (
        "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,3.5,964981247\n2,4,0.5,964981247\n"
    ),
    "ml-latest-small/movies.csv": (
        "movieId,title,genres\n"
        "1,Toy Story (1995),Adventure|Comedy\n"
        '3,"American President, The\t""Q""  (2009–2012)",Drama\n'
        "4,Babylon 5,(no genres listed)\n"
    ),
    "ml-latest-small/links.csv": "movieId,imdbId\n1,0114709\n",
}


LASTFM = {
    "user_taggedartists-timestamps.dat": (
        "userID\tartistID\ttagID\ttimestamp\n"
        "2\t52\t13\t1238536800000\n2\t52\t15\t1230764400000\n2\t63\t13\t1233442800000\n2\t7\t13\t1233442800000\n"
        "9\t63\t1\t1230764400000\n"
    ),
    "user_artists.dat": "userID\tartistID\tweight\n2\t52\t13883\n2\t51\t11690\n9\t63\t7\n",
    "artists.dat": ('id\tname\turl\tpictureURL\n51\tUnheard\tu\tp\n52\t"Weird Al" Yankovic\tu\tp\n63\tCafé\tu\t\n'),
}


REVIEWS = "".join(
    json.dumps({"reviewerID": user, "asin": item, "overall": rating, "unixReviewTime": time}) + "\n"
    for user, item, rating, time in [
        ("A2", "B001", 5.0, 1390000000),
        ("A1", "B001", 3.0, 1380000000),
        ("A1", "B002", 4.0, 1370000000),
        ("A1", "B003", 1.0, 1370000000),
    ]
)


META = (
    "{'asin': 'B999', 'title': 'never reviewed', 'categories': [['Beauty']], 'bad': __import__}\n"
    "{'asin': 'B002', 'title': 'Nail\\tPolish &amp; \"Red\"', 'brand': 'OPI', 'price': 3.1,"
    " 'categories': [['Beauty', 'Makeup', 'Nails'], ['Beauty', 'Makeup', 'Gift']]}\n"
    "{'asin': 'B001', 'categories': [['Beauty']]}\n"
)


def lines(done, suffix):
    file = done.path / f"{done.path.name}{suffix}"
    assert file in done.files
    return file.read_text(encoding="utf-8").split("\n")


def everything_below(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def fails(*args, **keywords):
    with pytest.raises(PrepareError) as caught:
        prepare(*args, progress=False, **keywords)
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    return text


CSV = (
    "\ufeffuid,iid,ts,stars,junk\n"
    '007,"a ""b""",2024-01-02 00:00:10,4.5,x\n'
    "u2,NA,2024-01-02,1,x\n"
    "u2,c,2024-01-02T00:00:00+01:00,,x\n"
    "007,c,2024-01-01,3,x\n"
)


COLUMNS = {"user": "uid", "item": "iid", "time": "ts"}
