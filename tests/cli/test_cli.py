"""Whole runs on the command line, from files to a list, in this process and in one of their own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from recbole_contrec.storage import checkpoint
from tests.helpers.commands import atomic, files_below, recommend, train, yaml_of
from tests.helpers.files import write_atomic_files

COLUMNS = ["user_id", "rank", "item_id", "score", "title", "genre"]


def result_of(name):
    return json.loads(Path(f"saved/{name}/result.json").read_text())


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


def test_recommend_for_the_users_in_a_file(here, command, tmp_path):
    named = command(*recommend("--k=3"))
    assert named.code == 0
    Path("users.txt").write_text("\ufeffu3\r\n\n", encoding="utf-8")
    assert command("recommend", "--checkpoint=saved/mine", "--k=3", "--users_file=users.txt") == named
    Path("users.txt").write_text("u3\nu3,u4\n")  # a comma is part of an id
    unknown = command("recommend", "--checkpoint=saved/mine", "--users_file=users.txt")
    assert unknown.code == 2 and "no user 'u3,u4'" in unknown.err
    Path("users.txt").write_text("\n \n")
    nobody = command("recommend", "--checkpoint=saved/mine", "--users_file=users.txt")
    assert nobody.code == 2 and "--users_file: users.txt names no user" in nobody.err


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
