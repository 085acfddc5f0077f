"""The command line: every mistake is told in two lines and leaves nothing behind; whole runs, from files to a list."""

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import yaml

import recbole_contrec
from recbole_contrec.catalogue.places import package_properties
from recbole_contrec.cli import main
from recbole_contrec.errors import UserError
from recbole_contrec.storage import checkpoint
from tests.helpers.files import write_atomic_files
from tests.helpers.options import TINY, TINY_CONTREC, changed

COLUMNS = ["user_id", "rank", "item_id", "score", "title", "genre"]


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _loggers_as_before():
    """A command directs the package's logger at its own screen; other tests listen to it."""
    ours, root = logging.getLogger("recbole_contrec"), logging.getLogger()
    before = ours.handlers, ours.propagate, ours.level, root.handlers[:], root.level
    yield
    ours.handlers, ours.propagate, level, root.handlers[:], root_level = before
    ours.setLevel(level)
    root.setLevel(root_level)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A working directory with data sets, good and bad, and two finished runs of one epoch: saved/mine, saved/other."""
    folder, before = tmp_path_factory.mktemp("prepared"), Path.cwd()
    os.chdir(folder)
    try:
        write_atomic_files(folder / "data")
        atomic(
            "short",
            "user_id:token item_id:token timestamp:float",
            ["u1 a 1", "u1 b 2", "u1 c 3", "u1 d 4", "u2 a 1", "u2 b 2"],
        )
        atomic("untimed", "user_id:token item_id:token", ["u1 a", "u1 b", "u1 c"])
        atomic("nobody", "item_id:token timestamp:float", ["a 1", "b 2", "c 3"])
        Path("broken.yaml").write_text("epochs: 1\nseed: 1: 2\n")
        Path("misspelt.yaml").write_text("hiden_size: 16\n")
        assert main(train("--epochs=1", "--run_name=mine")) == 0
        assert main(train("--model=SASRec", "--epochs=1", "--run_name=other")) == 0
        whole = Path("saved/mine/best.safetensors").read_bytes()
        Path("cut.safetensors").write_bytes(whole[: len(whole) // 2])
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(prepared, tmp_path, monkeypatch):
    """A copy of the prepared directory to work in."""
    shutil.copytree(prepared, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def command(capsys):
    """A function (*arguments) -> exit code and what was printed."""

    def call(*arguments):
        capsys.readouterr()
        code = main(list(arguments))
        return Done(code, *capsys.readouterr())

    return call


def atomic(name, header, rows):
    path = Path("data") / name
    path.mkdir(parents=True)
    (path / f"{name}.inter").write_text("".join("\t".join(line.split()) + "\n" for line in (header, *rows)))


def train(*arguments):
    """Arguments of a tiny run of ContRec; the given ones, word for word, stand in for those of the same key."""
    given = [argument.split("=")[0] for argument in arguments]
    tiny = TINY if {"--model=SASRec", "--model=Own"} & set(arguments) else TINY_CONTREC
    defaults = ["--model=ContRec", "--dataset=tiny", "--data_path=data", *tiny]
    return [argument for argument in defaults if argument.split("=")[0] not in given] + list(arguments)


def recommend(*arguments):
    """Arguments of a list for one user from the run saved/mine."""
    return changed(["recommend", "--checkpoint=saved/mine", "--users=u3"], arguments)


def vectors(*arguments):
    """Arguments of the command that writes item vectors."""
    return changed(["vectors", "--dataset=tiny", "--data_path=data", "--output=v.npy"], arguments)


def result_of(name):
    return json.loads(Path(f"saved/{name}/result.json").read_text())


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*")}


# mistakes: name, arguments, what the error must say

MISTAKES = [
    ("model", train("--model=ContRek"), ["unknown model 'ContRek'", "did you mean ContRec"]),
    ("dataset", train("--dataset=tyny"), ["no data set 'tyny'", "did you mean tiny", "prepare --dataset="]),
    ("a known dataset", train("--dataset=ml-1n"), ["no data set 'ml-1n'", "prepare --dataset=ml-1m"]),
    ("an unknown dataset", train("--dataset=nosuch"), ["prepare --dataset=nosuch --from=FILE --user="]),
    ("no model", ["--dataset=tiny"], ["--model=NAME", "--list-models"]),
    ("no time column", train("--dataset=untimed"), ["untimed.inter", "time column", "--TIME_FIELD=COLUMN"]),
    ("no user column", train("--dataset=nobody"), ["nobody.inter", "user column", "--USER_ID_FIELD=COLUMN"]),
    ("a column that is not there", train("--USER_ID_FIELD=user"), ["tiny.inter", "user", "did you mean user_id"]),
    ("nothing left", train("--user_inter_num_interval=[1000,inf)"), ["'tiny'", "empty", "[1000,inf)", "Loosen"]),
    ("two items", train("--dataset=short"), ["fewer than three", "user 'u2' has 2", "user_inter_num_interval=[3,inf)"]),
    ("unknown setting", train("--hiden_size=16"), ["unknown setting hiden_size", "did you mean hidden_size"]),
    (
        "unknown setting in a file",
        train("--config_files=misspelt.yaml"),
        ["misspelt.yaml", "unknown setting hiden_size", "did you mean hidden_size"],
    ),
    ("type", train("--n_layers=two"), ["n_layers='two'", "whole number", "groups/compact.yaml"]),
    ("range", train("--dropout=1.5"), ["dropout=1.5", "from 0 to below 1"]),
    ("choice", train("--similarity=cosin"), ["similarity='cosin'", "did you mean cosine"]),
    ("interval", train("--user_inter_num_interval=foo"), ["user_inter_num_interval", "foo"]),
    ("seed", train("--seed=-1"), ["seed=-1"]),
    ("metric", train("--metrics=[NDGC]"), ["no metric 'NDGC'", "did you mean NDCG"]),
    ("settings that do not fit", train("--n_heads=3"), ["n_heads=3", "hidden_size=16"]),
    ("no equals sign", train("--epochs", "3"), ["--epochs 3", "write --epochs=3"]),
    ("no equals sign, own option", ["--model", "ContRec", "--dataset=tiny"], ["write --model=ContRec"]),
    ("misspelt model", ["--modle=ContRec", "--dataset=tiny"], ["unknown option --modle=ContRec", "did you mean model"]),
    ("misspelt list", ["--list-model"], ["unknown option --list-model", "did you mean list-models"]),
    ("no dashes", train("epochs=3"), ["write --epochs=3"]),
    ("twice", train("--seed=1", "--seed=2"), ["--seed is given twice", "--seed=1 and --seed=2"]),
    ("twice, own option", train("--model=ContRec", "--model=SASRec"), ["--model is given twice"]),
    ("no value but dashes", train("--model=ContRec", "--dataset=--"), ["--dataset=-- has no value"]),
    ("config file", train("--config_files=none.yaml"), ["no file none.yaml"]),
    ("yaml", train("--config_files=broken.yaml"), ["broken.yaml, line 2", "not valid YAML"]),
    ("properties", train("--properties=nowhere"), ["--properties=nowhere", "no such folder"]),
    ("vectors", train("--item_vectors=missing.npy"), ["item_vectors=missing.npy", "file"]),
    ("text encoder", train("--item_vectors=text", "--text_encoder=./none"), ["text_encoder=./none", "no such folder"]),
    (
        "text encoder without texts",
        train("--text_encoder=./none", "--text_similarity=0"),
        ["text_encoder='./none'", "item_vectors=svd asks"],
    ),
    (
        "output in the place of other runs",
        train("--checkpoint_dir=new/saved", "--output=new"),
        ["the run makes a folder of this name"],
    ),
    (
        "output over the model",
        train("--run_name=new", "--output=saved/new/best.safetensors"),
        ["the run keeps its best.safetensors"],
    ),
    ("resume of an empty name", train("--resume="), ["--resume= names no folder of a run"]),
    ("properties of an empty name", train("--properties="), ["--properties=: there is no such folder"]),
    (
        "bytes that are no text",
        train("--run_name=x\udcff"),
        ["run_name='x\\udcff': holds bytes or characters that are no text"],
    ),
    ("resume nothing", train("--resume=nowhere"), ["no checkpoint nowhere"]),
    ("resume another model", train("--resume=saved/other"), ["SASRec, not of ContRec"]),
    (
        "resume another size",
        train("--resume=saved/mine", "--hidden_size=32"),
        ["trained with hidden_size=16", "same settings"],
    ),
    ("output folder", train("--output=broken.yaml/result.json"), ["cannot write", "broken.yaml/result.json"]),
    ("checkpoint folder", train("--checkpoint_dir=broken.yaml/saved"), ["broken.yaml/saved"]),
    ("command", ["recomend", "--checkpoint=saved/mine"], ["unknown command 'recomend'", "did you mean recommend"]),
    ("settings of no model", ["--settings"], ["--model=NAME"]),
    ("lists", ["--list-models", "--epochs=3"], ["--epochs=3", "the lists read"]),
    ("recommend: option", recommend("--usres=u3"), ["no option --usres", "did you mean users"]),
    ("recommend: word", [*recommend(), "u3"], ["no option u3", "--key=value"]),
    ("recommend: no equals sign", [*recommend(), "--k", "3"], ["write --k=3"]),
    ("recommend: no checkpoint named", ["recommend", "--users=u3"], ["--checkpoint=PATH"]),
    ("recommend: nobody named", ["recommend", "--checkpoint=saved/mine"], ["--users=1,2,3", "--all", "--history"]),
    ("recommend: all and some", recommend("--all"), ["--all", "leave --users"]),
    ("recommend: k", recommend("--k=0"), ["--k=0", "at least 1"]),
    ("recommend: batch", recommend("--batch_size=many"), ["--batch_size=many", "whole number"]),
    ("recommend: user", recommend("--users=u3,u77"), ["no user 'u77'", "did you mean u7"]),
    ("recommend: item", recommend("--history=i1,j2"), ["no item 'j2'"]),
    ("recommend: missing", recommend("--checkpoint=saved/none"), ["no checkpoint saved/none"]),
    ("recommend: truncated", recommend("--checkpoint=cut.safetensors"), ["cut.safetensors", "damaged"]),
    ("recommend: foreign", recommend("--checkpoint=broken.yaml"), ["broken.yaml", "not a checkpoint"]),
    ("recommend: data gone", recommend("--data_path=nowhere"), ["no data set 'tiny' in nowhere"]),
    ("recommend: properties", recommend("--properties=nowhere"), ["--properties=nowhere", "no such folder"]),
    ("recommend: ending", recommend("--output=top.xlsx"), ["--output=top.xlsx", ".csv or .parquet"]),
    ("vectors: output", vectors("--output=vectors.csv"), ["--output=vectors.csv", "end in .npy"]),
    ("vectors: output folder", vectors("--output=broken.yaml/v.npy"), ["cannot write broken.yaml/v.npy"]),
    ("vectors: no output", vectors()[:-1], ["--dataset=NAME and --output=FILE.npy"]),
    ("vectors: no equals sign", [*vectors(), "--item_vectors", "svd"], ["write --item_vectors=svd"]),
    ("vectors: setting", vectors("--vector_szie=3"), ["unknown setting vector_szie", "did you mean vector_size"]),
    ("vectors: method", vectors("--item_vectors=lightgnc"), ["item_vectors=lightgnc", "did you mean lightgcn"]),
    ("vectors: model", vectors("--model=SASRec"), ["SASRec has no item_vectors", "--model=ContRec"]),
    ("vectors: text encoder", vectors("--text_encoder=./none"), ["text_encoder=./none", "OWNER/MODEL"]),
    ("vectors: texts", vectors("--text_fields=[]", "--item_vectors=text"), ["'tiny' has no item texts"]),
    ("recommend: a flag with a word", recommend("--include_seen=no"), ["--include_seen", "True or False, not 'no'"]),
    ("recommend: an empty history", ["recommend", "--checkpoint=saved/mine", "--history=, "], ["the history is empty"]),
    ("recommend: output folder", recommend("--output=nowhere/top.csv"), ["cannot write nowhere/top.csv"]),
]


@pytest.mark.parametrize("arguments, expected", [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_mistakes_are_told_in_two_lines_and_leave_nothing(here, command, arguments, expected):
    before = files_below(here)
    done = command(*arguments)
    assert done.code == 2
    assert done.err.startswith("error: ") and 1 <= len(done.err.splitlines()) <= 2, done.err
    for text in expected:
        assert text in done.err, done.err
    assert "Traceback" not in done.out + done.err and "np.str_" not in done.err
    assert files_below(here) == before
    with pytest.raises(UserError):  # what Python then shows with its traceback
        main([*arguments, "--debug"])


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_known_data_set_without_a_network(here, command, no_network):
    before = files_below(here)
    done = command(*train("--dataset=ml-1m"))
    assert done.code == 2 and 1 <= len(done.err.splitlines()) <= 2
    assert "ml-1m.zip" in done.err and "by hand" in done.err and "--from=FILE" in done.err
    assert set(files_below(here)) == set(before)


@pytest.mark.parametrize("mistake, expected", [("--model=ContRek", "unknown model"), ("--n_layers=two", "n_layers")])
def test_nothing_is_fetched_for_a_run_that_cannot_be(here, command, no_network, mistake, expected):
    done = command(*train("--dataset=ml-1m", mistake))
    assert done.code == 2 and expected in done.err


def test_a_bug_keeps_its_traceback(here, monkeypatch):
    from recbole_contrec import quick_start

    monkeypatch.setattr(quick_start, "load_data", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(train())


def test_nan_is_an_error_of_the_user(here, command, monkeypatch):
    from recbole_contrec.model.contrec import ContRec

    monkeypatch.setattr(ContRec, "at_unit_scale", lambda self, vectors: vectors * float("nan"))
    done = command(*train())
    assert done.code == 2 and "epoch 0, batch 0" in done.err and "Traceback" not in done.err


# lists and help


def test_help(workplace, command):
    assert command() == command("--help") == command("-h")
    done = command("--help")
    assert done.code == 0 and not done.err
    for word in ("recommend", "prepare", "vectors", "--model=", "--dataset=", "--resume=", "--properties=", "--debug"):
        assert word in done.out
    for option in ("--checkpoint=", "--users=", "--history=", "--k=", "--output=", "--all"):
        assert option in command("recommend", "--help").out
    for option in ("--text_encoder=", "--item_vectors=", "--output=", "--dataset=", "--vector_size="):
        assert option in command("vectors", "--help").out
    assert not list(workplace.iterdir())


def test_version(command):
    done = command("--version")
    assert done.code == 0 and done.out.startswith(f"recbole_contrec {recbole_contrec.__version__}, recbole 1.2")


def test_list_models(workplace, command):
    lines = {line.split()[0]: line for line in command("--list-models").out.splitlines()}
    assert str(package_properties() / "model" / "ContRec.yaml") in lines["ContRec"]
    assert "continuous tokens" in lines["ContRec"].lower()
    assert "sequential" in lines["SASRec"] and "general" in lines["LightGCN"] and len(lines) > 90


def test_list_models_of_a_user(workplace, command):
    yaml_of(
        "mine", "MyRec", "# A child of mine, told\n# over two lines. Not shown.\nextends: ContRec\n# Nor is this.\n"
    )
    assert "A child of mine, told over two lines.\n" in command("--list-models", "--properties=mine").out
    assert "MyRec" not in command("--list-models").out


def test_list_datasets(here, command):
    lines = {line.split()[0]: line for line in command("--list-datasets", "--data_path=data").out.splitlines()}
    assert str(Path("data/tiny")) in lines["tiny"] and "bundled" in lines["ml-100k"] and "no data yet" in lines["ml-1m"]
    assert "tiny" not in command("--list-datasets").out


def test_settings_of_a_model(workplace, command):
    lines = command("--settings", "--model=ContRec").out.splitlines()
    meanings = {lines[n][2:].split("=")[0]: lines[n + 1].strip() for n in range(0, len(lines), 2)}
    folder = package_properties()
    own = yaml.safe_load((folder / "model" / "ContRec.yaml").read_text(encoding="utf-8"))
    files = [folder / "groups" / f"{name}.yaml" for name in own.pop("include")]
    keys = {key for file in files for key in yaml.safe_load(file.read_text(encoding="utf-8"))}
    assert set(meanings) == {*own, *keys} - {"model_class", "dataset_class", "trainer_class"}
    assert all(len(meaning) > 3 for meaning in meanings.values())
    assert meanings["n_layers"] == "Layers." and "--n_layers=2 (a whole number from 1 to 1000)" in lines
    assert "--llm=~ (text or ~)" in lines and "--item_vectors=svd (text)" in lines


# runs in this process


def yaml_of(folder, name, text):
    path = Path(folder) / "model" / f"{name}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)


@pytest.mark.parametrize("folder, options", [("properties", []), ("mine", ["--properties=mine"])])
def test_a_model_that_is_a_yaml_file(here, command, folder, options):
    yaml_of(folder, "MyRec", "extends: ContRec\ndenoiser_depth: 1\nitem_tokens: 3\n")
    assert command(*train("--model=MyRec", "--epochs=1", "--run_name=child", *options)).code == 0
    parent, child = result_of("mine"), result_of("child")
    assert child["card"]["model"] == "MyRec"
    different = {key for key in child["settings"] if child["settings"][key] != parent["settings"].get(key)}
    assert {"denoiser_depth", "item_tokens"} <= different and "hidden_size" not in different
    head = {
        run: [
            name for name in checkpoint.load(f"saved/{run}/best.safetensors").part("model") if name.startswith("head.")
        ]
        for run in ("mine", "child")
    }
    assert 0 < len(head["child"]) < len(head["mine"])  # one block of the denoiser instead of two

    done = command("recommend", "--checkpoint=saved/child", "--users=u3", "--k=3", *options)
    assert done.code == 0 and len(done.out.splitlines()) == 4
    shutil.move(folder, "elsewhere")  # the model is now known only to who names the folder
    lost = command("recommend", "--checkpoint=saved/child", "--users=u3", "--k=3")
    assert lost.code == 2 and "MyRec" in lost.err
    again = command("recommend", "--checkpoint=saved/child", "--users=u3", "--k=3", "--properties=elsewhere")
    assert again == done


OWN_MODEL = """
from recbole.model.abstract_recommender import SequentialRecommender
from torch import nn


class MyModel(SequentialRecommender):
    '''The next item from the last one.'''

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.last = nn.Embedding(self.n_items, config["width"])
        self.next = nn.Linear(config["width"], self.n_items)

    def full_sort_predict(self, interaction):
        place = interaction[self.ITEM_SEQ_LEN][:, None] - 1
        return self.next(self.last(interaction[self.ITEM_SEQ].gather(1, place)[:, 0]))

    def calculate_loss(self, interaction):
        return nn.functional.cross_entropy(self.full_sort_predict(interaction), interaction[self.POS_ITEM_ID])
"""


def test_a_model_class_of_ones_own(here, command):
    Path("module_of_mine.py").write_text(OWN_MODEL)
    yaml_of(
        "properties",
        "Own",
        "model_class: module_of_mine:MyModel\nwidth: 24  # (int; >= 1) Width.\nloss_type: CE\nlearning_rate: 0.05\n",
    )
    try:
        assert command(*train("--model=Own", "--width=32", "--epochs=10", "--run_name=own")).code == 0
        result = result_of("own")
        assert result["card"]["parameters"] == 61 * 32 + 32 * 61 + 61
        assert result["test_result"]["hit@5"] > 0.5  # the next item is one or two steps on
        out = command("recommend", "--checkpoint=saved/own", "--history=i20", "--k=2").out
        assert {line.split()[2] for line in out.splitlines()[1:]} == {"i21", "i22"}
        assert command(*train("--model=Own", "--width=0")).code == 2
    finally:
        sys.modules.pop("module_of_mine", None)


def test_a_folder_of_files_with_other_column_names(here, command):
    """The same data under other names, lines turned round, give the same run: the time column was found and used."""
    header, *rows = [line.split("\t") for line in Path("data/tiny/tiny.inter").read_text().splitlines()]
    assert header[0::3] == ["user_id:token", "timestamp:float"]
    atomic("odd", "uid:token iid:token ts:float", [" ".join([user, item, time]) for user, item, _, time in rows])
    atomic(
        "usual",
        "user_id:token item_id:token timestamp:float",
        [" ".join([user, item, time]) for user, item, _, time in rows],
    )
    atomic(
        "reversed",
        "ts:float iid:token uid:token",
        [" ".join([time, item, user]) for user, item, _, time in reversed(rows)],
    )
    results = {}
    for name in ("usual", "odd", "reversed"):
        assert command(*train(f"--dataset={name}", "--epochs=1", f"--run_name={name}")).code == 0
        results[name] = result_of(name)
        assert [results[name]["card"][fact] for fact in ("users", "items", "interactions")] == [40, 60, len(rows)]
        done = command("recommend", f"--checkpoint=saved/{name}", "--users=u3", "--k=60", "--include_seen")
        assert done.out.splitlines()[0].split() == COLUMNS[:4] and len(done.out.splitlines()) == 61
    assert results["usual"]["test_result"] == results["odd"]["test_result"]
    from recbole_contrec.quick_start import load_data_and_model
    from recbole_contrec.recommendation import whole_histories

    loaded = load_data_and_model("saved/reversed")
    dataset = loaded.data.dataset
    history = whole_histories(loaded)[dataset.token2id("uid", "u3")]
    assert dataset.id2token("iid", history).tolist() == [item for user, item, *_ in rows if user == "u3"]


def test_an_interrupted_run_goes_on(here, command, monkeypatch):
    from recbole_contrec.training.trainer import RunTrainer

    assert command(*train("--epochs=4", "--run_name=whole")).code == 0
    save_last = RunTrainer.save_state

    def save_and_stop(self, epoch, train_data):
        save_last(self, epoch, train_data)
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunTrainer, "save_state", save_and_stop)
        stopped = command(*train("--epochs=4", "--run_name=cut"))
    assert stopped.code == 130 and stopped.err.splitlines()[-1] == "interrupted"
    assert not Path("saved/cut/result.json").exists()
    assert command(*train("--epochs=4", "--resume=saved/cut")).code == 0
    whole, resumed = result_of("whole"), result_of("cut")
    assert resumed["epochs"] == 4 and resumed["test_result"] == whole["test_result"]
    assert resumed["best_valid_result"] == whole["best_valid_result"]


def test_config_files_stand_below_the_command_line(here, command):
    Path("a.yaml").write_text("epochs: 1\nseed: 5\ndropout: 0.3\n")
    Path("b.yaml").write_text("seed: 6\n")
    arguments = [argument for argument in train() if not argument.startswith("--epochs")]
    assert command(*arguments, "--config_files=a.yaml,b.yaml", "--dropout=0.4", "--run_name=files").code == 0
    settings = result_of("files")["settings"]
    assert (settings["epochs"], settings["seed"], settings["dropout"]) == (1, 6, 0.4)


# recommend


def test_recommend_to_files(here, command):
    before = set(files_below(here))
    for name in ("top.csv", "top.parquet"):
        done = command("recommend", "--checkpoint=saved/mine", "--all", "--k=5", f"--output={name}")
        assert done.code == 0 and done.out == ""
    assert set(files_below(here)) - before == {here / "top.csv", here / "top.parquet"}
    table = pd.read_csv("top.csv")
    assert list(table.columns) == COLUMNS and table["user_id"].nunique() == 40
    assert (table.groupby("user_id").size() == 5).all() and table["rank"].tolist() == [1, 2, 3, 4, 5] * 40
    assert (table["title"] == "Title of " + table["item_id"].str[1:]).all()
    again = pd.read_parquet("top.parquet")
    assert list(again.columns) == COLUMNS
    pd.testing.assert_frame_equal(table, again, check_dtype=False)


def test_recommend_for_somebody_new(here, command):
    out = command("recommend", "--checkpoint=saved/mine/best.safetensors", "--history=i1, i2", "--k=60").out
    assert out.splitlines()[0].split() == COLUMNS
    items = [line.split()[2] for line in out.splitlines()[1:]]
    assert len(items) == 58 and not {"i1", "i2"} & set(items)
    out = command("recommend", "--checkpoint=saved/mine", "--history=i1,i2", "--k=60", "--include_seen").out
    assert {"i1", "i2"} <= {line.split()[2] for line in out.splitlines()[1:]} and len(out.splitlines()) == 61
    same = command("recommend", "--checkpoint=saved/mine", "--history=i1,i2", "--k=60", "--include_seen=True").out
    other = command("recommend", "--checkpoint=saved/mine", "--history=i1,i2", "--k=60", "--include_seen=False").out
    assert same == out and len(other.splitlines()) == 59


def test_nothing_left_for_the_first_users_is_no_reason_to_lose_the_others(tmp_path):
    """Users who have had everything, in a batch of their own."""
    from recbole_contrec.cli.tables import write_tables

    full = pd.DataFrame({"user_id": ["u1"], "rank": [1], "item_id": ["i1"], "score": [0.5], "title": ["A film"]})
    for name, read in (("top.csv", pd.read_csv), ("top.parquet", pd.read_parquet)):
        write_tables([full[:0].astype(float), full, full[:0]], str(tmp_path / name))
        pd.testing.assert_frame_equal(read(tmp_path / name), full, check_dtype=False)
    assert {path.name for path in tmp_path.iterdir()} == {"top.csv", "top.parquet"}


def test_recommend_where_the_data_lie_now(here, prepared, command):
    shutil.copytree("data", "moved")
    known = command(*recommend("--k=3"))
    assert known.code == 0 and command(*recommend("--k=3", "--data_path=moved")) == known
    lines = Path("moved/tiny/tiny.inter").read_text().splitlines(keepends=True)
    Path("moved/tiny/tiny.inter").write_text("".join(line for line in lines if not line.startswith("u3\t")))
    done = command(*recommend("--users=u4", "--data_path=moved"))
    assert done.code == 2 and "use the same data" in done.err


# a process of its own


def start(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "recbole_contrec", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The folder of a run that a process of its own has made."""
    folder = tmp_path_factory.mktemp("real")
    write_atomic_files(folder / "data")
    done = start(folder, *train("--run_name=mine"))
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_the_log_tells_the_whole_run(real):
    [log] = real.glob("log/*/*.log")
    assert log.parent.name == "ContRec"
    text = log.read_text()
    assert "\x1b" not in text  # no colours in a file
    result = json.loads((real / "saved/mine/result.json").read_text())
    places = [
        text.index(part)
        for part in (
            "changed settings: ",
            ": 40 users, ",
            "parameters are trained",
            "item vectors: ",
            "item tokenizer: ",
            "user tokenizer: ",
            "epoch 0 training",
            "epoch 0 evaluating",
            "epoch 1 training",
            "results (best epoch: ",
            "protocol card",
            "seconds: ",
        )
    ]
    assert places == sorted(places)
    for line in [line for line in text.splitlines() if " training [" in line]:
        assert all(f"{term}: " in line for term in ("ranking", "regression", "dispersive")), line
    for fact in ("users", "interactions", "seen_items_masked", "ties", "seed", "versions", "trainable_parameters"):
        assert f"\n  {fact} " in text
    table = text[text.index("results (best") : text.index("protocol card")].splitlines()[1:]
    assert table[0].split() == ["metric", "valid", "test"] and len({len(line) for line in table[:-1]}) == 1
    for name, value in result["test_result"].items():
        assert [name, f"{result['best_valid_result'][name]:.4f}", f"{value:.4f}"] in [line.split() for line in table]
    [hint] = [line for line in text.splitlines() if " recommend --checkpoint=" in line]
    assert Path(real, hint.split("--checkpoint=")[1].split()[0]).is_file() and "--users=" in hint


def test_tensorboard_has_every_term(real):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [log] = real.glob("log/*/*.log")
    events = EventAccumulator(str(real / "log_tensorboard" / log.stem)).Reload()
    assert {"Loss/Train/ranking", "Loss/Train/regression", "Vaild_score"} <= set(events.Tags()["scalars"])
    assert [point.step for point in events.Scalars("Loss/Train/ranking")] == [0, 1]
    curve = json.loads((real / "saved/mine/result.json").read_text())["curve"]
    best = max(point["score"] for point in curve)  # before validation chooses what the texts add
    assert max(point.value for point in events.Scalars("Vaild_score")) == pytest.approx(best)


def test_the_screen_holds_the_list_and_nothing_else(real):
    done = start(real, "recommend", "--checkpoint=saved/mine", "--users=u3,u7", "--k=3")
    assert done.returncode == 0, done.stderr[-2000:]
    header, *lines = done.stdout.splitlines()
    assert header.split() == COLUMNS
    assert [line.split()[:2] for line in lines] == [[user, str(rank)] for user in ("u3", "u7") for rank in (1, 2, 3)]
    assert all(f"Title of {line.split()[2][1:]} " in line for line in lines)
    assert "Traceback" not in done.stderr


def test_the_process_ends_with_the_code(tmp_path):
    done = start(tmp_path, "--model=ContRek", "--dataset=tiny")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith("error: unknown model 'ContRek'")
    assert len(done.stderr.splitlines()) <= 2 and not list(tmp_path.iterdir())


def test_a_reader_that_has_enough_ends_the_output(workplace):
    with subprocess.Popen(
        [sys.executable, "-m", "recbole_contrec", "--settings", "--model=ContRec"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == 1
