"""Every mistake on the command line is told in two lines and leaves nothing behind."""

import socket

import pytest

from recbole_contrec.cli import main
from recbole_contrec.errors import UserError
from tests.helpers.commands import files_below, recommend, train
from tests.helpers.options import changed


def vectors(*arguments):
    """Arguments of the command that writes item vectors."""
    return changed(["vectors", "--dataset=tiny", "--data_path=data", "--output=v.npy"], arguments)


# mistakes: name, arguments, what the error must say

BY_FILE = ["recommend", "--checkpoint=saved/mine"]
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
    ("recommend: two ways to name users", recommend("--users_file=broken.yaml"), ["--users and --users_file"]),
    ("recommend: file of users", BY_FILE + ["--users_file=none.txt"], ["--users_file: cannot read none.txt"]),
    ("recommend: a folder of users", BY_FILE + ["--users_file=saved"], ["--users_file: cannot read saved"]),
    ("recommend: no text of users", BY_FILE + ["--users_file=saved/mine/best.safetensors"], ["not UTF-8 text"]),
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
