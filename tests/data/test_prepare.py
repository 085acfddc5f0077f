"""recbole_contrec.data.prepare: the folder of a data set, its names, the command, and what RecBole reads of it."""

import errno
import sys
from pathlib import Path

import pandas as pd
import pytest

from recbole_contrec.cli.prepare import prepare as main
from recbole_contrec.data import prepare as command
from recbole_contrec.data.prepare import PrepareError, known_datasets, prepare
from recbole_contrec.data.published.recipes import AMAZON_2014
from recbole_contrec.errors import UserError
from tests.helpers.files import ROOT
from tests.helpers.published import COLUMNS, CSV, LASTFM, LATEST, META, ML_1M, REVIEWS, everything_below, fails, lines


def test_refuses_to_overwrite(archive, tmp_path, site):
    first = prepare("ml-1m", tmp_path / "d", archive(ML_1M), progress=False)
    before = first.files[0].read_text()
    text = fails("ml-1m", tmp_path / "d", site.url + "ml-1m.zip")
    assert "exists already" in text and "--force" in text
    assert site.log == []  # said before anything is downloaded

    shorter = archive({**ML_1M, "ml-1m/ratings.dat": "2::10::5::978300760\n"}, "shorter.zip")
    broken = tmp_path / "broken.zip"
    broken.write_text("no")
    fails("ml-1m", tmp_path / "d", broken, force=True)
    assert first.files[0].read_text() == before  # the old one stays until the new one is complete
    assert prepare("ml-1m", tmp_path / "d", shorter, force=True, progress=False).interactions == 1
    assert len(first.files[0].read_text().splitlines()) == 2
    assert everything_below(tmp_path / "d") == ["ml-1m", "ml-1m/ml-1m.inter", "ml-1m/ml-1m.item", "ml-1m/ml-1m.user"]


@pytest.mark.parametrize(
    "name, columns, files, said",
    [
        ("mine", COLUMNS, {}, "no file"),
        ("mine", {**COLUMNS, "time": "tss"}, {"source": CSV}, "did you mean ts"),
        (
            "mine",
            {**COLUMNS, "items": "items", "text": "name"},
            {"source": CSV, "items": "iid,title\n"},
            "'name' in items",
        ),
        ("mine", {**COLUMNS, "items": "items", "text": "name"}, {"source": CSV}, "no file"),
        ("mine", COLUMNS, {"source": ""}, "source is empty"),
        ("ml-1m", {}, {"source": "<html>log in</html>"}, "not the archive"),
        ("lastfm", {}, {"source": "<html>log in</html>"}, "not the archive"),
        ("amazon-beauty", {}, {"source": REVIEWS}, "no file"),
        ("amazon-beauty", {}, {"source": "{}", "meta_Beauty.json.gz": META}, "'reviewerID'"),
    ],
)
def test_a_wrong_file_is_named_before_a_data_set_that_stands_in_its_way(
    tmp_path, monkeypatch, name, columns, files, said
):
    monkeypatch.chdir(tmp_path)
    for file, content in files.items():
        Path(file).write_text(content)
    older = Path("d", name, f"{name}.inter")
    older.parent.mkdir(parents=True)
    older.write_text("older")
    text = fails(name, "d", "source", columns=columns)
    assert said in text and "exists already" not in text
    assert older.read_text() == "older"


def test_force_keeps_what_is_not_its_own(archive, tmp_path):
    done = prepare("ml-1m", tmp_path / "d", archive(ML_1M), progress=False)
    (done.path / "vectors.npy").write_text("days of work")
    assert "vectors.npy" in fails("ml-1m", tmp_path / "d", archive(ML_1M), force=True)
    assert (done.path / "vectors.npy").read_text() == "days of work"


def test_an_empty_folder_is_in_nobodys_way(archive, tmp_path):
    (tmp_path / "d" / "ml-1m").mkdir(parents=True)  # as an interrupted RecBole leaves it
    assert prepare("ml-1m", tmp_path / "d", archive(ML_1M), progress=False).files[0].exists()


def test_unwritable_folder(archive, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    text = fails("ml-1m", tmp_path / "file" / "d", archive(ML_1M))
    assert "cannot write in" in text and "--data_path" in text

    def denied(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    assert "Permission denied" in fails("ml-1m", tmp_path / "d", tmp_path / "given" / "source.zip")


def test_the_folder_can_be_read_by_others(archive, tmp_path):
    done = prepare("ml-1m", tmp_path / "d", archive(ML_1M), progress=False)
    (tmp_path / "plain").mkdir()
    assert done.path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_unknown_data_set(tmp_path):
    text = fails("ml-1n", tmp_path / "d")
    assert "did you mean ml-1m" in text and "--help" in text and "--from=" in text
    assert max(map(len, text.splitlines())) < 160  # the list of all stands elsewhere
    assert "comes with RecBole" in fails("ml-100k", tmp_path / "d")
    assert "--from" in fails("mine", tmp_path / "d", columns=COLUMNS)
    for name in ("../x", "a/b", "", ".hidden"):
        assert "name of a data set" in fails(name, tmp_path / "d", tmp_path)
    assert not (tmp_path / "d").exists()


def test_known_datasets_and_their_properties():
    known = known_datasets()
    folder = ROOT / "properties" / "dataset"
    named = "ml-1m ml-20m ml-latest-small lastfm gowalla steam yelp amazon-beauty amazon-video-games".split()
    for name in named:
        assert name in known and (folder / f"{name}.yaml").exists()
    assert known["amazon-beauty"] == "Amazon reviews 2014, Beauty, 5-core"
    assert known["amazon-2023-video-games"] == "Amazon reviews 2023, Video Games, 5-core"
    urls = [url for recipe in command.CATALOGUE.values() for url in recipe.urls if not recipe.page]
    assert all(url.startswith("https://") for url in urls)
    assert AMAZON_2014 + "meta_Clothing_Shoes_and_Jewelry.json.gz" in urls


def test_properties_name_the_columns_that_are_written(archive, tmp_path):
    yaml = pytest.importorskip("yaml")
    folder = ROOT / "properties" / "dataset"
    for name, members in [("ml-1m", ML_1M), ("ml-latest-small", LATEST), ("lastfm", LASTFM)]:
        done = prepare(name, tmp_path / "d", archive(members), progress=False)
        for suffix, columns in yaml.safe_load((folder / f"{name}.yaml").read_text())["load_col"].items():
            header = [column.split(":")[0] for column in lines(done, f".{suffix}")[0].split("\t")]
            assert set(columns) <= set(header)


def test_command(archive, tmp_path, capsys):
    source = archive(ML_1M)
    words = ["--dataset=ml-1m", f"--from={source}", f"--data_path={tmp_path / 'd'}"]
    assert main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "ml-1m: 2 users, 3 items, 4 interactions"
    assert "ml-1m.inter" in printed[2]
    for line, model in zip(printed[-2:], ("ContRec", "SASRec")):
        assert line.endswith(f"--model={model} --dataset=ml-1m --data_path={tmp_path / 'd'}")
    assert len(printed) == 5
    with pytest.raises(PrepareError, match="--force"):
        main(words)
    assert main([*words, "--force"]) == 0


def test_command_for_a_table(tmp_path, capsys):
    (tmp_path / "r.csv").write_text(CSV, encoding="utf-8")
    (tmp_path / "i.csv").write_text("iid,title,genre\nc,T,G\n")
    words = f"--dataset=mine --from={tmp_path}/r.csv --user=uid --item=iid --time=ts --rating=stars".split()
    words += f"--items={tmp_path}/i.csv --item_id=iid --text=title,genre --data_path={tmp_path}/d".split()
    assert main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[3].startswith("note: rows left out")
    assert printed[4].startswith("note: missing ratings")
    assert printed[5].endswith(f"--dataset=mine --data_path={tmp_path}/d")


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "--dataset=NAME"),
        (["--dataset", "ml-1m"], "--dataset=ml-1m"),
        (["ml-1m"], "--dataset=ml-1m"),
        (["--datset=ml-1m"], "did you mean --dataset"),
        (["--dataset=ml-1m", "--force=perhaps"], "--force"),
    ],
)
def test_bad_words(words, said):
    with pytest.raises(UserError) as caught:
        main(words)
    assert said in str(caught.value) and len(str(caught.value)) < 200


TRICKY = {
    **LATEST,
    "ml-latest-small/ratings.csv": "userId,movieId,rating,timestamp\n"
    + "".join(f"{user},{item},4.0,{1_700_000_000 + 10 * item}\n" for user in (1, 2, 3) for item in (4, 3, 1)),
}


def test_pandas_reads_it_as_recbole_does(archive, tmp_path):
    done = prepare("ml-latest-small", tmp_path / "d", archive(TRICKY), progress=False)
    for file in done.files:
        header = file.read_text().split("\n")[0].split("\t")
        assert all(column.split(":")[1] in ("token", "token_seq", "float") for column in header)
        types = {column: float if column.endswith(":float") else str for column in header}
        frame = pd.read_csv(file, delimiter="\t", usecols=header, dtype=types, encoding="utf-8", engine="python")
        assert len(frame) == len(file.read_text().split("\n")) - 2
    assert frame["movie_title:token_seq"].tolist() == ["Toy Story", "American President, The ''Q''", "Babylon 5"]


def test_recbole_reads_it(archive, tmp_path, monkeypatch):
    module = pytest.importorskip("recbole_contrec.settings.config")
    monkeypatch.setattr(sys, "argv", ["x"])
    monkeypatch.chdir(tmp_path)
    done = prepare("ml-latest-small", tmp_path / "d", archive(TRICKY), progress=False)
    from recbole.data import create_dataset

    settings = {"data_path": str(tmp_path / "d"), "gpu_id": "", "state": "ERROR",
                "load_col": {"inter": ["user_id", "item_id", "timestamp"],
                             "item": ["item_id", "movie_title", "release_year", "genre"]},
                "user_inter_num_interval": "[1,inf)", "item_inter_num_interval": "[1,inf)"}  # fmt: skip
    config = module.Config(model="SASRec", dataset="ml-latest-small", config_dict=settings)
    data = create_dataset(config)
    assert (data.user_num - 1, data.item_num - 1, data.inter_num) == (done.users, done.items, done.interactions)
    data.build()
    # 10 seconds apart: one and the same time in single precision, so the order of the file decides
    assert len(set(data.inter_feat["timestamp"].tolist())) == 1
    rows = data.inter_feat["user_id"] == 1
    assert data.id2token("item_id", data.inter_feat["item_id"][rows]).tolist() == ["3", "4"]
    assert data.id2token("item_id", data.inter_feat["item_id_list"][rows][-1][:2]).tolist() == ["1", "3"]
    title = data.item_feat["movie_title"][data.token2id("item_id", "3")]
    assert " ".join(data.id2token("movie_title", title[title > 0])) == "American President, The ''Q''"
