"""Whole runs: from files to a result, of every kind of model, fetched data and nonsense among them."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from recbole_contrec.errors import UserError
from recbole_contrec.quick_start import load_data_and_model
from recbole_contrec.recommendation import recommend, whole_histories
from recbole_contrec.settings.config import Config
from recbole_contrec.storage import checkpoint
from tests.helpers.files import write_atomic_files
from tests.helpers.options import TINY, TINY_CONTREC


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
    place = np.where(rank <= 10, rank, 0)  # of the target in the list of ten
    listed = ranks["catalogue"][ranks["top"]] == ranks["item"][:, None]
    assert (np.where(listed.any(1), listed.argmax(1) + 1, 0) == place).all() and (ranks["top"] > 0).all()


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


@pytest.mark.parametrize("model", ["SASRec", "SASRecAll"])
@pytest.mark.parametrize(
    "split",
    [
        "{'split': {'GTS': [9, 15]}}",
        "{'split': {'TS': [0.7, 0.1, 0.2]}}",
        "{'split': {'RS': [0.6, 0.2, 0.2]}, 'group_by': 'none'}",
        "{'split': {'RS': [0.6, 0.2, 0.2]}, 'group_by': 'user'}",
        "{'split': {'LS': 'test_only'}}",
    ],
)
def test_masking_removes_what_was_seen_before_each_of_several_targets(assembled, model, split):
    """All of it, not only what fits into a row."""
    loaded = assembled(model, "--mask_seen=True", "--MAX_ITEM_LIST_LENGTH=3", f"--eval_args={split}")
    loaded.model.eval()
    loaded.trainer.tot_item_num = loaded.data.dataset.item_num
    place = {user: len(history) for user, history in whole_histories(loaded).items()}
    for part in ("test", "valid"):
        loaded.trainer._seen_now = loaded.trainer._seen.get(part)
        for batch in reversed(list(getattr(loaded.data, part))):
            _, scores, _, targets = loaded.trainer._full_sort_batch_eval(batch)
            for row, user in reversed(list(enumerate(batch[0]["user_id"].tolist()))):
                place[user] -= 1
                history, target = whole_histories(loaded)[user], int(targets[row])
                assert history[place[user]] == target
                masked = set(torch.nonzero(scores[row] == -torch.inf).flatten().tolist()) - {0}
                assert masked == set(history[: place[user]].tolist()) - {target}


def test_nan_names_epoch_batch_and_term(run_tiny, monkeypatch):
    from recbole_contrec.model.contrec import ContRec

    monkeypatch.setattr(ContRec, "at_unit_scale", lambda self, vectors: vectors * float("nan"))
    with pytest.raises(FloatingPointError, match="not finite in epoch 0, batch 0: .*regression"):
        run_tiny("ContRec")


@pytest.mark.parametrize("model", ["ContRec", "SIIT-states"])
def test_a_loaded_run_is_trained_on_from_where_it_was(run_tiny, model):
    arguments = ("--refine_every=1", "--epochs=3") if model == "SIIT-states" else ("--epochs=2",)
    loaded = load_data_and_model(run_tiny(model, *arguments)["checkpoint"])
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    loaded.trainer.epochs = 0
    loaded.trainer.fit(loaded.data.train, loaded.data.valid, saved=False)
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, before[name]), name


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
    closed = replace(recipe, urls=("http://127.0.0.1:9/ml-1m.zip",))
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


@pytest.mark.parametrize("model", ["S3Rec", "RaCT"])
def test_models_that_need_pickles_are_refused(run_tiny, workplace, model):
    with pytest.raises(UserError, match="not supported here"):
        run_tiny(model)
    assert not (workplace / "saved").exists()


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


@pytest.mark.parametrize("model", ["SASRecAll", "SASRec", "BPR"])
def test_a_model_that_is_loaded_with_other_interactions_says_so(run_tiny, tiny, caplog, model):
    """Its test items of today may be those that it was trained on."""
    folder = run_tiny(model, "--epochs=1")["checkpoint"]
    caplog.clear()
    load_data_and_model(folder, {"mask_seen": True, "eval_batch_size": 512})
    assert not any("other interactions" in record.message for record in caplog.records)
    path = tiny / "tiny" / "tiny.inter"
    head, *rows = path.read_text().splitlines()
    last = max((row.split("\t") for row in rows if row.startswith("u1\t")), key=lambda row: float(row[-1]))
    path.write_text("\n".join([head, *rows, "\t".join([*last[:-1], f"{float(last[-1]) + 1}"])]) + "\n")
    load_data_and_model(folder)
    assert "was trained on other interactions or texts of the same users and items" in caplog.text
