"""Whole runs: from files to result, checkpoint and recommendations; killed, resumed, and fed with nonsense."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_contrec.errors import UserError
from recbole_contrec.fold_in import fold_in_interactions
from recbole_contrec.quick_start import load_data_and_model
from recbole_contrec.recommendation import recommend, whole_histories
from recbole_contrec.settings.config import Config
from recbole_contrec.storage import checkpoint
from tests.helpers.files import write_atomic_files
from tests.helpers.options import TINY, TINY_CONTREC, changed


@pytest.mark.parametrize("model", ["ContRec", "SASRec", "GRU4Rec", "BERT4Rec", "LightGCN", "BPR", "Pop"])
def test_train_reload_and_evaluate(run_tiny, model):
    result = run_tiny(model)
    assert result["best_epoch"] >= 0 and result["card"]["model"] == model
    assert {"hit@10", "ndcg@10", "mrr@10", "recall@10", "ndcg@5", "ndcg@20"} <= set(result["test_result"])
    loaded = load_data_and_model(result["checkpoint"])
    assert loaded.trainer.evaluate(loaded.data.test, load_best_model=False) == result["test_result"]
    assert loaded.trainer.evaluate(loaded.data.valid, load_best_model=False) == result["best_valid_result"]


def test_a_knowledge_graph_is_read(run_tiny, tiny):
    """Its loader holds two others and has no public ``dataset``."""
    lines = [f"e{item}\tgenre\te{60 + item % 2}" for item in range(60)]
    (tiny / "tiny" / "tiny.kg").write_text(
        "\n".join(["head_id:token\trelation_id:token\ttail_id:token", *lines]) + "\n"
    )
    lines = [f"i{item}\te{item}" for item in range(60)]
    (tiny / "tiny" / "tiny.link").write_text("\n".join(["item_id:token\tentity_id:token", *lines]) + "\n")
    result = run_tiny("CKE")
    loaded = load_data_and_model(result["checkpoint"])
    assert loaded.trainer.evaluate(loaded.data.test, load_best_model=False) == result["test_result"]
    assert len(recommend(loaded, users=["u1"], k=3)) == 3


def test_a_missing_library_is_named(run_tiny, monkeypatch):
    from recbole.model.general_recommender import LightGCN

    def needs_more(*_):
        import a_library_that_nobody_has  # noqa: F401

    monkeypatch.setattr(LightGCN, "__init__", needs_more)
    with pytest.raises(UserError, match="LightGCN needs a_library_that_nobody_has, which is not installed"):
        run_tiny("LightGCN")


def test_result_file_holds_everything(run_tiny, workplace):
    result = run_tiny("ContRec", "--output=deep/out.json", "--seed=11")
    written = json.loads((workplace / "deep" / "out.json").read_text())
    assert written == json.loads(json.dumps(result))
    assert json.loads((workplace / written["checkpoint"]).parent.joinpath("result.json").read_text()) == written
    card = written["card"]
    assert card["users"] == 40 and card["seed"] == 11 and card["seen_items_masked"] is False
    assert card["interactions"] == len((workplace / "data/tiny/tiny.inter").read_text().splitlines()) - 1
    assert card["targets"]["test"] == 40 and card["parameters"] > card["trainable_parameters"] > 0
    stages = {"item vectors", "item tokenizer", "user tokenizer", "text similarity"}
    assert set(written["seconds"]) == stages | {"training", "epoch", "test"}
    assert written["settings"]["hidden_size"] == 16 and written["settings"]["seed"] == 11
    assert 0 < written["stages"]["item tokenizer"]["report"]["active_dimensions"] <= 32


def test_same_protocol_for_every_model(run_tiny):
    ours, theirs = run_tiny("ContRec")["card"], run_tiny("SASRec")["card"]
    for fact in (
        "dataset",
        "users",
        "items",
        "interactions",
        "split",
        "order",
        "ranking",
        "targets",
        "max_history",
        "seen_items_masked",
        "topk",
        "metrics",
    ):
        assert ours[fact] == theirs[fact], fact


def test_ranks_reproduce_the_metrics(run_tiny, workplace):
    result = run_tiny("ContRec")
    ranks = np.load(os.path.join(os.path.dirname(result["checkpoint"]), "test_ranks.npz"))  # no pickle inside
    assert len(set(ranks["user"])) == len(ranks["user"]) == 40 and ranks["item"].dtype.kind == "U"
    rank = ranks["rank"]
    assert (ranks["ties"] == 0).all()  # otherwise the next lines would have a choice
    assert result["test_result"]["hit@10"] == pytest.approx((rank <= 10).mean(), abs=1e-4)
    assert result["test_result"]["ndcg@10"] == pytest.approx(
        np.where(rank <= 10, 1 / np.log2(rank + 1), 0).mean(), abs=1e-4
    )


def test_equal_seeds_give_equal_numbers_and_others_do_not(run_tiny):
    first, second = run_tiny("ContRec", "--checkpoint_dir=a"), run_tiny("ContRec", "--checkpoint_dir=b")
    assert first["test_result"] == second["test_result"] and first["best_valid_result"] == second["best_valid_result"]
    weights = [checkpoint.load(result["checkpoint"]).tensors["model.item_vectors.weight"] for result in (first, second)]
    assert torch.equal(*weights)
    other = run_tiny("ContRec", "--checkpoint_dir=c", "--seed=5")
    assert not torch.equal(weights[0], checkpoint.load(other["checkpoint"]).tensors["model.item_vectors.weight"])


def test_finished_stages_are_found_again(run_tiny):
    first, second = run_tiny("ContRec"), run_tiny("ContRec", "--learning_rate=0.01")
    assert not any(stage["found_on_disk"] for stage in first["stages"].values())
    assert all(stage["found_on_disk"] for stage in second["stages"].values())
    third = run_tiny("ContRec", "--token_sigma=0.3")
    assert [stage["found_on_disk"] for stage in third["stages"].values()] == [True, False, False, False]


def test_training_learns(run_tiny):
    """The tiny users walk in steps of one or two: a trained model knows, an untrained one does not."""
    result = run_tiny(
        "ContRec", "--epochs=15", "--eval_step=15", "--learning_rate=0.02", "--train_batch_size=64", "--dropout=0"
    )
    assert result["test_result"]["hit@5"] > 0.6


def test_seen_items_are_masked_for_every_model_or_none(run_tiny):
    for model in ("ContRec", "SASRec", "LightGCN"):
        cards = {
            choice: run_tiny(
                model, f"--mask_seen={choice}", "--topk=[60]", "--metrics=[Hit]", "--epochs=1", "--valid_metric=Hit@60"
            )
            for choice in ("True", "False")
        }
        assert cards["True"]["card"]["seen_items_masked"] and not cards["False"]["card"]["seen_items_masked"]
        assert cards["False"]["test_result"]["hit@60"] == 1.0 == cards["True"]["test_result"]["hit@60"]


def test_masking_removes_what_was_seen(assembled):
    loaded = assembled("SASRec", "--mask_seen=True")
    batch = next(iter(loaded.data.test))
    loaded.trainer.tot_item_num = loaded.data.dataset.item_num
    loaded.trainer._seen_now = loaded.trainer._seen["test"]
    loaded.model.eval()
    _, scores, _, target = loaded.trainer._full_sort_batch_eval(batch)
    histories = whole_histories(loaded)
    for row, user in enumerate(batch[0]["user_id"].tolist()):
        masked = set(torch.nonzero(scores[row] == -torch.inf).flatten().tolist()) - {0}
        assert masked == set(histories[user][:-1].tolist()) - {int(target[row])}


# resume

TRAIN = """
import os, sys
sys.argv = ["x"]
import torch; torch.set_num_threads(1)
from recbole_contrec.quick_start import run
from recbole_contrec.training.window_trainer import WindowTrainer
if os.environ.get("SLOW"):  # time for a kill in the middle of an epoch
    import time
    base = WindowTrainer.set_learning_rate
    def slow(self, progress):
        time.sleep(0.05 if progress > 0.5 else 0)
        base(self, progress)
    WindowTrainer.set_learning_rate = slow
run("ContRec", "tiny", arguments={arguments!r}, resume=os.environ.get("RESUME"))
"""


ANSWERING = ("--answer_weight=0.3", "--prompt_text=bag", "--text_bonus=0.1", "--vocabulary_size=300")


@pytest.mark.parametrize(
    "model, arguments",
    [
        ("ContRec", ()),
        ("SASRec", ()),
        ("ContRec", ("--learning_rate=1e-12",)),
        ("ContRec", ANSWERING),
        ("ContRec", (*ANSWERING, "--condition_on=answer")),
    ],
    ids=["ContRec", "SASRec", "the first epoch stays the best", "answers", "behind answers"],
)
def test_a_resumed_run_equals_an_uninterrupted_one_in_process(run_tiny, workplace, model, arguments):
    """Stopped after two of four epochs, as a kill between epochs does."""
    whole = run_tiny(model, "--epochs=4", "--run_name=whole", *arguments)

    from recbole_contrec.training.trainer import RunTrainer

    save_last = RunTrainer.save_state

    def save_and_die(self, epoch, train_data):
        save_last(self, epoch, train_data)
        if epoch == 1:
            raise KeyboardInterrupt

    RunTrainer.save_state = save_and_die
    try:
        with pytest.raises(KeyboardInterrupt):
            run_tiny(model, "--epochs=4", "--run_name=cut", *arguments)
    finally:
        RunTrainer.save_state = save_last
    resumed = run_tiny(model, "--epochs=4", *arguments, resume="saved/cut")
    assert resumed["test_result"] == whole["test_result"] and resumed["settings"] == whole["settings"]
    assert resumed["best_valid_result"] == whole["best_valid_result"] and resumed["best_epoch"] == whole["best_epoch"]
    curves = [[(point["epoch"], point["score"]) for point in result["curve"]] for result in (whole, resumed)]
    best = whole["best_valid_score"]
    if chosen := whole["chosen_on_validation"].get("text_similarity"):
        best = chosen["valid_scores"]["0"]  # the epoch is chosen before what the texts add
        assert whole["best_valid_score"] == max(chosen["valid_scores"].values())
    assert resumed["chosen_on_validation"] == whole["chosen_on_validation"]
    assert curves[0] == curves[1] and curves[0][whole["best_epoch"]] == (whole["best_epoch"], best)
    for clock in ("seconds", "core_seconds"):
        seconds = [point[clock] for point in resumed["curve"]]
        assert len(seconds) == 4 and seconds == sorted(seconds) and seconds[0] > 0
    last = [checkpoint.load(workplace / "saved" / name / "last.safetensors") for name in ("whole", "cut")]
    for name, tensor in last[0].tensors.items():
        assert torch.equal(tensor, last[1].tensors[name]), name


def test_kill_9_in_an_epoch_then_resume(tiny, workplace):
    arguments = [*changed(TINY_CONTREC, ["--epochs=6", "--train_batch_size=30"]), f"--data_path={tiny}"]

    def start(name, **environment):
        code = TRAIN.format(arguments=[*arguments, f"--run_name={name}", f"--output={name}.json"])
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=workplace,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )

    def finish(process):
        error = process.communicate(timeout=120)[1]
        assert process.returncode == 0, error.decode()[-2000:]

    finish(start("whole"))
    killed = start("cut", SLOW="1")
    last = workplace / "saved" / "cut" / "last.safetensors"
    deadline = time.monotonic() + 90
    while not (last.exists() and checkpoint.load(last).record["epoch"] >= 3):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (workplace / "cut.json").exists()
    finish(start("cut", RESUME=str(last.parent)))
    whole, resumed = (json.loads((workplace / f"{name}.json").read_text()) for name in ("whole", "cut"))
    assert resumed["test_result"] == whole["test_result"] and resumed["best_valid_result"] == whole["best_valid_result"]
    assert resumed["epochs"] == whole["epochs"] == 6


# checkpoints of something else


def test_foreign_checkpoints_are_refused(run_tiny, workplace):
    result = run_tiny("ContRec", "--epochs=1")
    folder = os.path.dirname(result["checkpoint"])
    with pytest.raises(UserError, match="checkpoint of ContRec, not of SASRec"):
        run_tiny("SASRec", resume=folder)
    write_atomic_files(workplace / "elsewhere", n_users=30, seed=3)
    with pytest.raises(UserError, match="trained on 'tiny'.*use the same data"):
        run_tiny("ContRec", f"--data_path={workplace / 'elsewhere'}", resume=folder)
    with pytest.raises(UserError, match="was trained with hidden_size=16: resume with the same settings"):
        run_tiny("ContRec", "--hidden_size=32", resume=folder)
    with pytest.raises(UserError, match="holds a model only"):
        run_tiny("ContRec", resume=result["checkpoint"])
    with pytest.raises(UserError, match="there is no checkpoint"):
        run_tiny("ContRec", resume="nowhere")


def test_checkpoints_hold_no_pickle(run_tiny, workplace):
    run_tiny("SASRec", "--epochs=1")
    files = [path for path in (workplace / "saved").rglob("*") if path.is_file()]
    assert files and {path.suffix for path in files} <= {".safetensors", ".npz", ".json"}


def test_nan_names_epoch_batch_and_term(run_tiny, monkeypatch):
    from recbole_contrec.model.contrec import ContRec

    monkeypatch.setattr(ContRec, "at_unit_scale", lambda self, vectors: vectors * float("nan"))
    with pytest.raises(FloatingPointError, match="not finite in epoch 0, batch 0: .*regression"):
        run_tiny("ContRec")


# recommend


@pytest.fixture
def trained(run_tiny):
    return load_data_and_model(run_tiny("ContRec", "--epochs=1")["checkpoint"])


def test_recommend_for_known_users(trained):
    table = recommend(trained, ["u3", "u7"], k=4)
    assert list(table.columns) == ["user_id", "rank", "item_id", "score", "title", "genre"]
    assert table["user_id"].tolist() == ["u3"] * 4 + ["u7"] * 4 and table["rank"].tolist() == [1, 2, 3, 4] * 2
    assert (table.groupby("user_id")["score"].diff().dropna() <= 0).all()
    assert (table["title"] == "Title of " + table["item_id"].str[1:]).all()
    histories = whole_histories(trained)
    names = {trained.data.dataset.token2id("user_id", user): user for user in ("u3", "u7")}
    for number, user in names.items():
        seen = set(trained.data.dataset.id2token("item_id", histories[number]))
        assert not seen & set(table.loc[table["user_id"] == user, "item_id"])


def test_recommend_reads_the_whole_history(trained, tiny):
    """Also the last two items, which training never saw, and in the order of the file."""
    lines = [line.split("\t") for line in (tiny / "tiny" / "tiny.inter").read_text().splitlines()[1:]]
    for user in ("u0", "u11"):
        wanted = [item for who, item, *_ in lines if who == user]
        number = trained.data.dataset.token2id("user_id", user)
        assert trained.data.dataset.id2token("item_id", whole_histories(trained)[number]).tolist() == wanted


def test_histories_of_recbole_models_are_whole_as_well(run_tiny, trained):
    for model in ("SASRec", "LightGCN"):
        other = load_data_and_model(run_tiny(model, "--epochs=1", "--MAX_ITEM_LIST_LENGTH=5")["checkpoint"])
        ours, theirs = whole_histories(trained), whole_histories(other)
        assert {u: h.tolist() for u, h in ours.items()} == {u: h.tolist() for u, h in theirs.items()}
        assert len(recommend(other, ["u1"], k=3)) == 3


def test_batches_change_nothing(trained):
    one, many = recommend(trained, k=5, batch_size=7), recommend(trained, k=5, batch_size=1000)
    assert one["user_id"].nunique() == 40
    pd.testing.assert_frame_equal(one, many, rtol=1e-4, atol=1e-4)


def test_somebody_new(trained):
    table = recommend(trained, histories=[["i1", "i2", "i3"], ["i9"]], k=3)
    assert table["user_id"].tolist() == ["new-1"] * 3 + ["new-2"] * 3
    assert not set(table["item_id"][:3]) & {"i1", "i2", "i3"}
    again = recommend(trained, histories=[["i1", "i2", "i3"]], k=60, exclude_seen=False)
    assert {"i1", "i2", "i3"} <= set(again["item_id"])


def test_everything_seen_leaves_fewer_than_k(trained):
    everything = [f"i{number}" for number in range(58)]
    table = recommend(
        trained,
        histories=[[item for item in everything if item in trained.data.dataset.field2token_id["item_id"]]],
        k=10,
    )
    assert 0 < len(table) < 10 and table["rank"].tolist() == list(range(1, len(table) + 1))


def test_unknown_names_are_errors(trained):
    with pytest.raises(UserError, match="no user 'u77'.*did you mean"):
        recommend(trained, ["u77"])
    with pytest.raises(UserError, match="no item 'j1'"):
        recommend(trained, histories=[["j1"]])
    with pytest.raises(UserError, match="k=0"):
        recommend(trained, ["u1"], k=0)
    with pytest.raises(UserError, match="history is empty"):
        recommend(trained, histories=[[]])
    with pytest.raises(UserError, match="batch_size=-1"):
        recommend(trained, ["u1"], batch_size=-1)


@pytest.mark.parametrize("asked", [dict(users="12"), dict(histories="12"), dict(histories=["12", "i1"])])
def test_a_text_is_no_list_of_names(trained, asked):
    with pytest.raises(UserError, match="'12' is one text; give a list"):
        recommend(trained, **asked)


def test_histories_may_be_an_array(trained):
    histories = [["i1", "i2"], ["i9", "i3"]]
    pd.testing.assert_frame_equal(
        recommend(trained, histories=np.array(histories), k=3), recommend(trained, histories=histories, k=3)
    )


def test_a_list_is_no_longer_than_the_catalogue(trained):
    assert (
        len(recommend(trained, histories=[["i1"]], k=10**12, exclude_seen=False)) == trained.data.dataset.item_num - 1
    )


def test_a_model_left_in_training_mode_recommends_the_same(trained):
    wanted = recommend(trained, ["u1", "u2"], k=5)
    trained.model.train()
    pd.testing.assert_frame_equal(recommend(trained, ["u1", "u2"], k=5), wanted)


@pytest.mark.parametrize("model", ["FPMC", "TransRec"])
def test_somebody_new_reads_no_row_that_was_never_trained(run_tiny, model):
    loaded, lists = load_data_and_model(run_tiny(model, "--epochs=1")["checkpoint"]), []
    tables = [
        part
        for part in loaded.model.modules()
        if isinstance(part, torch.nn.Embedding) and part.num_embeddings == loaded.data.dataset.user_num
    ]
    for number in (-9.0, 9.0):
        for table in tables:
            torch.nn.init.constant_(table.weight[0], number)
        lists.append(recommend(loaded, histories=[["i1", "i2"]], k=5))
    assert tables
    pd.testing.assert_frame_equal(*lists)


def test_a_column_named_like_the_answers_is_kept(trained, monkeypatch):
    trained.data.dataset.item_texts["answer"] = trained.data.dataset.item_texts["title"]
    assert "answer" in recommend(trained, ["u1"], k=3)
    monkeypatch.setattr(type(trained.model), "can_answer", True)
    monkeypatch.setattr(trained.model, "answers", lambda rows, encoding: ["said"] * len(rows))
    encode = trained.model.encode_histories
    monkeypatch.setattr(trained.model, "encode_histories", lambda rows, answer: encode(rows))
    table = recommend(trained, ["u1"], k=3)
    assert (table["answer"] == "said").all() and (table["item_answer"] == table["title"]).all()


@pytest.mark.parametrize("model", ["ContRec", "SIIT-states"])
def test_a_loaded_run_is_trained_on_from_where_it_was(run_tiny, model):
    arguments = ("--refine_every=1", "--epochs=3") if model == "SIIT-states" else ("--epochs=2",)
    loaded = load_data_and_model(run_tiny(model, *arguments)["checkpoint"])
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    loaded.trainer.epochs = 0
    loaded.trainer.fit(loaded.data.train, loaded.data.valid, saved=False)
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_general_model_has_nothing_to_say_about_new_users(run_tiny):
    loaded = load_data_and_model(run_tiny("LightGCN", "--epochs=1")["checkpoint"])
    with pytest.raises(UserError, match="reads user ids, not histories"):
        recommend(loaded, histories=[["i1"]])


def test_settings_are_a_dictionary_in_python(run_tiny, tiny):
    """The same run as by the command line; what is given to a checkpoint changes it likewise."""
    from recbole_contrec import run

    settings = {**Config("SASRec", "tiny", arguments=[*TINY, f"--data_path={tiny}"]).external_config_dict, "epochs": 1}
    settings = {key: value for key, value in settings.items() if key not in ("model", "dataset")}
    result = run("SASRec", "tiny", settings={**settings, "topk": [3, 5], "valid_metric": "NDCG@5"})
    other = run_tiny("SASRec", "--epochs=1", "--topk=[3,5]", "--valid_metric=NDCG@5")
    assert result["test_result"] == other["test_result"] and result["settings"] == other["settings"]
    assert load_data_and_model(result["checkpoint"], {"eval_batch_size": 7}).config["eval_batch_size"] == 7
    with pytest.raises(UserError, match="settings: unknown setting epoch .did you mean epochs"):
        run("SASRec", "tiny", settings={"epoch": 1})
    with pytest.raises(UserError, match="settings: eval_batch_size='7': must be a whole number"):
        load_data_and_model(result["checkpoint"], {"eval_batch_size": "7"})


def test_objective_function_serves_recbole_search(tiny):
    from recbole_contrec.quick_start import objective_function

    settings = {argument[2:].split("=")[0]: argument.split("=", 1)[1] for argument in TINY_CONTREC}
    result = objective_function(
        {**settings, "model": "ContRec", "dataset": "tiny", "data_path": str(tiny), "epochs": 1}
    )
    assert result["valid_score_bigger"] and 0 <= result["best_valid_score"] <= 1 and "ndcg@10" in result["test_result"]


@pytest.mark.parametrize("data_path", ["dataset", "elsewhere"])
def test_known_data_sets_are_fetched_where_they_are_missing(workplace, monkeypatch, data_path):
    """The run goes on with what the download left; nothing is fetched twice, and unknown names are not asked for."""
    from recbole_contrec import quick_start
    from recbole_contrec.cli import main

    fetched = []

    def prepare(name, path):
        fetched.append((name, path))
        write_atomic_files(workplace / path, name)

    monkeypatch.setattr(quick_start, "prepare", prepare)
    arguments = [
        "--model=Pop",
        "--dataset=ml-latest-small",
        "--show_progress=False",
        "--user_inter_num_interval=[3,inf)",
    ]
    arguments += [] if data_path == "dataset" else [f"--data_path={data_path}"]
    assert main(arguments) == 0 and main(arguments) == 0
    assert fetched == [("ml-latest-small", data_path)]
    assert main(["--model=Pop", "--dataset=ml-latest-smal"]) == 2 and len(fetched) == 1


def test_without_a_network_the_error_says_what_to_put_where(workplace, monkeypatch, capsys):
    from recbole_contrec.cli import main
    from recbole_contrec.data import prepare as catalogue

    recipe = catalogue.CATALOGUE["ml-1m"]
    closed = type(recipe)(recipe.description, ("http://127.0.0.1:9/ml-1m.zip",), recipe.convert)
    monkeypatch.setitem(catalogue.CATALOGUE, "ml-1m", closed)
    assert main(["--model=ContRec", "--dataset=ml-1m"]) == 2
    error = capsys.readouterr().err
    assert "ml-1m.zip" in error and "--from=" in error and "Traceback" not in error
    assert not (workplace / "dataset" / "ml-1m").exists()


SWEEP = [
    "ItemKNN",
    "EASE",
    "NeuMF",
    "MultiVAE",
    "RecVAE",
    "NGCF",
    "FPMC",
    "Caser",
    "NARM",
    "SLIMElastic",
    "FDSA",
    "GRU4RecF",
]


@pytest.mark.parametrize("model", SWEEP)
def test_other_kinds_of_recbole_models(run_tiny, model):
    """Closed forms with sparse matrices, two optimizers, own training loops, models without full_sort_predict."""
    options = [
        "--selected_features=[genre]",
        "--load_col={inter: [user_id, item_id, timestamp], item: [item_id, genre]}",
    ]
    options = options if model in ("FDSA", "GRU4RecF") else []
    result = run_tiny(model, "--epochs=1", "--topk=[5,10]", *options)
    loaded = load_data_and_model(result["checkpoint"])
    assert loaded.trainer.evaluate(loaded.data.test, load_best_model=False) == result["test_result"]
    assert len(recommend(loaded, ["u1"], k=3)) == 3


def test_a_model_that_reads_more_than_histories_says_so(run_tiny, monkeypatch):
    loaded = load_data_and_model(run_tiny("SASRec", "--epochs=1")["checkpoint"])
    monkeypatch.setattr(loaded.model, "full_sort_predict", lambda rows: rows["rating_list"])
    with pytest.raises(UserError, match="reads .*rating_list.* which histories of items do not have"):
        recommend(loaded, ["u1"], k=3)


def test_a_model_of_contexts_is_asked_item_by_item_if_it_knows_enough(run_tiny, monkeypatch):
    loaded = load_data_and_model(run_tiny("FM", "--epochs=1", "--threshold={'rating': 3}")["checkpoint"])
    assert len(recommend(loaded, ["u1", "u2"], k=3)) == 6
    monkeypatch.setattr(loaded.model, "predict", lambda rows: rows["rating_list"])
    with pytest.raises(UserError, match="FM reads .* which histories of items do not have"):
        recommend(loaded, ["u1"], k=3)


def test_a_stage_is_no_checkpoint(trained, workplace):
    with pytest.raises(UserError, match="holds no model"):
        load_data_and_model(str(next((workplace / "saved" / "stages").glob("*.safetensors"))))


def write_vectors(folder, seed, width=16):
    (folder / "v.tokens.txt").write_text("\n".join(f"i{number}" for number in range(60)) + "\n")
    np.save(folder / "v.npy", np.random.default_rng(seed).normal(size=(60, width)).astype(np.float32))


def test_the_vector_file_of_a_run_is_not_needed_afterwards(run_tiny, workplace):
    write_vectors(workplace, 0)
    checkpoint = run_tiny("ContRec", "--item_vectors=v.npy", "--epochs=1")["checkpoint"]
    known = recommend(checkpoint, ["u1"], k=3)
    write_vectors(workplace, 1)
    with pytest.raises(UserError, match="trained with other vectors than item_vectors=v.npy gives now"):
        fold_in_interactions(load_data_and_model(checkpoint), {"new": ["u1", "u2"]})
    (workplace / "v.npy").unlink()
    pd.testing.assert_frame_equal(recommend(checkpoint, ["u1"], k=3), known)
    with pytest.raises(UserError, match="item_vectors=v.npy: neither a file"):
        fold_in_interactions(load_data_and_model(checkpoint), {"new": ["u1", "u2"]})


@pytest.mark.parametrize("model", ["ContRec", "TokenRec", "TIGER"])
def test_vectors_that_do_not_fit_are_refused_before_anything_is_written(run_tiny, workplace, model):
    write_vectors(workplace, 0, width=7)
    with pytest.raises(UserError, match="item_vectors=v.npy has vectors of width 7: set --vector_size=7"):
        run_tiny(model, "--item_vectors=v.npy")
    assert {path.name for path in workplace.iterdir()} == {"data", "v.npy", "v.tokens.txt"}


def test_vectors_that_tell_no_items_apart_are_refused(run_tiny, workplace):
    write_vectors(workplace, 0)
    np.save(workplace / "v.npy", np.ones((60, 16), dtype=np.float32))
    with pytest.raises(UserError, match="item_vectors=v.npy gives all items of 'tiny' the same vector"):
        run_tiny("ContRec", "--item_vectors=v.npy")
    with pytest.raises(UserError, match="item_descriptions=v.npy gives all items of 'tiny' the same vector"):
        run_tiny("SIIT-states", "--item_descriptions=v.npy")


@pytest.mark.parametrize("model", ["S3Rec", "RaCT"])
def test_models_that_need_pickles_are_refused(run_tiny, workplace, model):
    with pytest.raises(UserError, match="not supported here"):
        run_tiny(model)
    assert not (workplace / "saved").exists()


def test_a_resumed_run_keeps_the_settings_of_the_first(run_tiny, workplace):
    run_tiny("ContRec", "--epochs=1", "--seed=5", "--learning_rate=0.01", "--run_name=first")
    from recbole_contrec.quick_start import run as plain_run

    result = plain_run("ContRec", "tiny", arguments=["--epochs=2"], resume="saved/first")
    assert result["settings"]["seed"] == 5 and result["settings"]["learning_rate"] == 0.01
    assert result["epochs"] == 2 and result["seconds"]["training"] > 0
    with pytest.raises(UserError, match="seed=5"):
        plain_run("ContRec", "tiny", arguments=["--seed=6"], resume="saved/first")


def test_changed_vector_files_are_read_again(run_tiny, workplace):
    found = []
    for seed in (0, 1, 1):
        write_vectors(workplace, seed)
        stages = run_tiny("ContRec", "--item_vectors=v.npy", "--epochs=1")["stages"]
        found.append(stages["item vectors"]["found_on_disk"])
    assert found == [False, False, True]


def test_no_epochs_and_no_validation(run_tiny):
    untrained = run_tiny("SASRec", "--epochs=0")
    assert untrained["best_valid_score"] is None and untrained["test_result"]["hit@10"] >= 0
    unvalidated = run_tiny("ContRec", "--epochs=1", "--eval_step=0")
    assert unvalidated["best_valid_score"] is None and unvalidated["best_epoch"] == 0


def test_ties_are_counted(run_tiny):
    result = run_tiny("Pop")
    ranks = np.load(os.path.join(os.path.dirname(result["checkpoint"]), "test_ranks.npz"))
    lower, upper = (ranks["rank"] <= 10).mean(), (ranks["rank"] + ranks["ties"] <= 10).mean()
    assert ranks["ties"].max() > 0 and upper <= result["test_result"]["hit@10"] <= lower


def test_nan_of_a_recbole_model_names_epoch_and_batch(run_tiny, monkeypatch):
    from recbole.model.sequential_recommender import SASRec

    monkeypatch.setattr(SASRec, "calculate_loss", lambda self, batch: self.item_embedding.weight.sum() * float("nan"))
    with pytest.raises(FloatingPointError, match="epoch 0, batch 0"):
        run_tiny("SASRec")


def test_learning_rate_rises_and_falls_over_the_run(assembled):
    loaded = assembled(
        "ContRec",
        "--epochs=10",
        "--warmup_ratio=0.2",
        "--learning_rate=0.01",
        "--final_learning_rate_ratio=0.1",
        "--train_batch_size=64",
    )
    trainer, rates = loaded.trainer, []
    trainer.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    for epoch in range(10):
        trainer._train_epoch(loaded.data.train, epoch)
    top = rates.index(max(rates))
    assert rates[top] == pytest.approx(0.01, rel=0.05) and 0.15 < top / len(rates) < 0.25
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0.001, rel=0.1)


def test_the_average_is_what_is_validated_and_kept(run_tiny, workplace):
    run_tiny("ContRec", "--epochs=1", "--ema_decay=0.9", "--run_name=run")
    last, best = (checkpoint.load(workplace / "saved" / "run" / f"{name}.safetensors") for name in ("last", "best"))
    average = last.part("average")
    for name, tensor in average.items():
        assert torch.equal(best.part("model")[name], tensor), name
    assert any(not torch.equal(last.part("model")[name], tensor) for name, tensor in average.items())


def test_the_average_works_under_any_trainer(run_tiny, workplace):
    (workplace / "properties" / "model").mkdir(parents=True)
    (workplace / "properties" / "model" / "Mine.yaml").write_text(
        "extends: SASRec\naverage_decay: 0.9  # (float; 0..<1) Moving average.\nmodel_class: "
        "recbole.model.sequential_recommender.sasrec:SASRec\n"
    )
    trained = run_tiny(
        "Mine",
        "--epochs=30",
        "--eval_step=30",
        "--learning_rate=0.01",
        "--train_batch_size=64",
        "--hidden_dropout_prob=0",
        "--attn_dropout_prob=0",
    )
    assert trained["test_result"]["hit@5"] > 0.6
