"""What the texts of a history add to scores: by hand, in every way of scoring, and never in the loss."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from recbole_contrec import load_data_and_model
from recbole_contrec.data.text import joined
from recbole_contrec.errors import UserError
from recbole_contrec.item_vectors.pca import principal_components
from recbole_contrec.item_vectors.words import words_of
from recbole_contrec.model.parts.text_similarity import TextSimilarity
from recbole_contrec.settings.config import Config
from tests.helpers.earlier import take_from_the_record
from tests.helpers.files import STORIES

WIDE = ("--hidden_size=16",)
MODELS = [("ContRec", ()), ("TokenRec", ()), ("SASRecAll", WIDE), ("SASRecAll-svd", WIDE)]


def test_later_items_count_more_and_the_last_five_alone():
    part = TextSimilarity(9, weight=3.0)
    part.vectors[1:, :8] = torch.eye(8)
    history = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 0], [2, 0, 0, 0, 0, 0, 0, 0], [0] * 8])
    queries = part.queries(history)
    weights = torch.tensor([0, 0, 0.7**4, 0.7**3, 0.7**2, 0.7, 1.0, 0])
    torch.testing.assert_close(queries[0, :8], weights / weights.norm())
    assert queries[1, 1] == 1 and not queries[2].any()
    scores = part(history, 1, 8)  # [3, 8]
    torch.testing.assert_close(scores, 3 * queries[:, :8])
    torch.testing.assert_close(part.paired(history, torch.tensor([7, 2, 5])), scores[[0, 1, 2], [6, 1, 4]])
    part.add_items(2)
    assert not part(history, 9, 2).any()


@pytest.mark.parametrize("model, told", MODELS)
@pytest.mark.parametrize("encoder", [(), (f"--text_encoder={STORIES}",)])
def test_scores_gain_the_similarity_and_nothing_else_changes(staged, model, told, encoder):
    plain, ours = (staged(model, *told, *more).model.eval() for more in ((), ("--text_similarity=4", *encoder)))
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in ours.named_parameters()]
    assert all(torch.equal(*pair) for pair in zip(plain.parameters(), ours.parameters()))
    loaded = staged(model, *told, "--text_similarity=4", *encoder)
    rows = next(iter(loaded.data.test))[0]
    part = getattr(ours, "catalogue", None) or ours.retrieval
    part = part.text_similarity
    norms = part.vectors[1:].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    gained = part(rows["item_id_list"], 0, ours.n_items)
    assert gained.abs().max() > 1
    torch.testing.assert_close(ours.full_sort_predict(rows), plain.full_sort_predict(rows) + gained)
    items = torch.arange(1, 1 + len(rows))
    rows.interaction["item_id"] = items
    every = ours.full_sort_predict(rows).gather(1, items[:, None]).squeeze(1)
    torch.testing.assert_close(ours.predict(rows), every, atol=1e-4, rtol=1e-4)
    batch = next(iter(loaded.data.train))
    torch.manual_seed(0)
    before = plain.calculate_loss(batch)
    torch.manual_seed(0)
    assert before == ours.calculate_loss(batch)


def test_texts_are_compared_by_their_whitened_words(staged):
    loaded = staged("SASRecAll", *WIDE, "--text_similarity=4")
    words = words_of(joined(loaded.data.dataset.item_texts), 384, loaded.config["seed"])
    found = loaded.model.catalogue.text_similarity.vectors
    columns = int(found.any(0).sum())
    expected, plain = (F.normalize(principal_components(words, columns, share), dim=1) for share in (1.0, 0.0))
    torch.testing.assert_close(found[:, :columns], expected)
    assert not torch.allclose(found @ found.T, plain @ plain.T, atol=0.1)


def test_the_best_items_are_the_same_in_bounded_memory(staged):
    loaded = staged("ContRec", "--text_similarity=4")
    rows = next(iter(loaded.data.test))[0]
    model = loaded.model.eval()
    scores, items = model.top_k(rows, 5)
    expected = model.full_sort_predict(rows)[:, 1:].topk(5)
    torch.testing.assert_close(scores, expected.values)
    assert torch.equal(items, expected.indices + 1)


def test_the_weight_of_a_trained_model_can_be_changed(run_tiny):
    result = run_tiny("ContRec", "--text_similarity=4", "--epochs=1")
    assert "text similarity" in result["stages"]
    for weight in (4, 9):
        loaded = load_data_and_model(result["checkpoint"], {"text_similarity": weight})
        assert loaded.model.retrieval.text_similarity.weight == weight
        assert loaded.model.retrieval.text_similarity.vectors.any()


def test_data_without_texts_say_so(tiny, run_tiny):
    (tiny / "tiny" / "tiny.item").unlink()
    for model, told in (("ContRec", ()), ("SASRecAll", WIDE)):
        with pytest.raises(UserError, match="has no item texts .*; set text_similarity=0"):
            run_tiny(model, "--text_similarity=4", *told)


def test_weights_are_compared_on_the_same_sampled_items(run_tiny, monkeypatch):
    monkeypatch.setattr(TextSimilarity, "WEIGHTS", (0.0, 1e-12, 2e-12, 3e-12))  # too small to change a ranking
    result = run_tiny("SASRecAll-texts", *WIDE, "--epochs=1", "--eval_args={'mode': 'uni20'}")
    assert len({*result["chosen_on_validation"]["text_similarity"]["valid_scores"].values()}) == 1


@pytest.mark.parametrize("model, told", [("ContRec", ()), ("TokenRec", ()), ("SASRecAll", WIDE)])
def test_validation_chooses_the_weight_that_is_left_open(run_tiny, model, told):
    result = run_tiny(model, "--text_similarity=~", "--epochs=2", *told)
    chosen = result["chosen_on_validation"]["text_similarity"]
    scores = {float(weight): score for weight, score in chosen["valid_scores"].items()}
    assert tuple(scores) == TextSimilarity.WEIGHTS
    assert chosen["value"] == max(scores, key=scores.get)
    assert result["best_valid_score"] == scores[chosen["value"]]
    assert scores[0.0] == max(point["score"] for point in result["curve"])  # epochs are chosen without it
    assert result["settings"]["text_similarity"] is None  # what was asked for
    loaded = load_data_and_model(result["checkpoint"])
    part = getattr(loaded.model, "catalogue", None) or loaded.model.retrieval
    assert loaded.config["text_similarity"] == chosen["value"]
    assert (part.text_similarity.weight if part.text_similarity else 0) == chosen["value"]
    again = loaded.trainer.evaluate(loaded.data.test, load_best_model=False)
    assert {name: value for name, value in again.items()} == pytest.approx(result["test_result"])


@pytest.mark.parametrize("model, default", [("ContRec", None), ("DeftRec", None), ("TokenRec", None), ("SASRecAll", 0)])
def test_validation_chooses_by_default_and_controls_say_when(tiny, model, default):
    config = Config(model, "tiny", arguments=[f"--data_path={tiny}"])
    assert config["text_similarity"] == default
    if default is None:
        assert Config(f"{model}-paper", "tiny", arguments=[f"--data_path={tiny}"])["text_similarity"] == 0


@pytest.mark.parametrize("texts", [None, "", "a !"])
def test_a_weight_that_is_left_open_costs_nothing_without_words(tiny, run_tiny, texts):
    file = tiny / "tiny" / "tiny.item"
    rows = [line.split("\t")[0] for line in file.read_text().splitlines()[1:]]
    file.unlink()
    if texts is not None:
        file.write_text("item_id:token\ttitle:token_seq\n" + "".join(f"{item}\t{texts}\n" for item in rows))
    result = run_tiny("ContRec", "--epochs=1")
    assert result["chosen_on_validation"] == {} and "text similarity" not in result["stages"]


def test_an_encoder_has_nothing_to_read_without_texts(tiny, run_tiny):
    (tiny / "tiny" / "tiny.item").unlink()
    with pytest.raises(UserError, match="text_encoder=.* has no item texts .*; set text_encoder=~"):
        run_tiny("ContRec", f"--text_encoder={STORIES}", "--epochs=1")


def test_a_finished_run_that_is_resumed_chooses_the_same(run_tiny):
    told = ("--text_similarity=~", "--epochs=2", "--run_name=open")
    first = run_tiny("ContRec", *told)
    again = run_tiny("ContRec", *told, resume=first["checkpoint"].replace("best.safetensors", "last.safetensors"))
    for key in ("chosen_on_validation", "best_valid_score", "test_result"):
        assert first[key] == again[key]


@pytest.mark.parametrize("ways", ["a file", "a resumed run"])
def test_weights_bring_what_was_chosen_with_them(run_tiny, assembled, monkeypatch, ways):
    """As RecBole is used: a model of today's settings, which leave the weight open, and the weights of a run."""
    monkeypatch.setattr(TextSimilarity, "WEIGHTS", (0.0, 8.0))
    result = run_tiny("ContRec", "--epochs=1", "--run_name=open", "--learning_rate=1e-5")
    assert result["chosen_on_validation"]["text_similarity"]["value"] == 8
    loaded = assembled("ContRec", "--epochs=1", "--learning_rate=1e-5")
    if ways == "a file":
        tested = loaded.trainer.evaluate(loaded.data.test, model_file=result["checkpoint"])
    else:
        loaded.trainer.resume_checkpoint(Path(result["checkpoint"]).parent)
        assert part_of(loaded).weight == 0  # it was chosen after the last epoch
        tested = loaded.trainer.evaluate(loaded.data.test)
    assert part_of(loaded).weight == 8 and tested == pytest.approx(result["test_result"])


def part_of(loaded):
    """What compares texts in a model."""
    return (getattr(loaded.model, "catalogue", None) or loaded.model.retrieval).text_similarity


@pytest.mark.parametrize(
    "model, told", [("ContRec", ()), ("SASRecAll", ("--text_similarity=~", *WIDE, f"--text_encoder={STORIES}"))]
)
def test_a_run_for_which_validation_chose_nothing_comes_back(run_tiny, monkeypatch, model, told):
    monkeypatch.setattr(TextSimilarity, "WEIGHTS", (0.0,))
    result = run_tiny(model, "--epochs=1", *told)
    assert result["chosen_on_validation"]["text_similarity"]["value"] == 0
    loaded = load_data_and_model(result["checkpoint"])
    assert loaded.config["text_similarity"] == 0 and part_of(loaded) is None
    again = loaded.trainer.evaluate(loaded.data.test, load_best_model=False)
    assert {name: value for name, value in again.items()} == pytest.approx(result["test_result"])
    assert part_of(load_data_and_model(result["checkpoint"], {"text_similarity": 2.0})).vectors.any()


def test_a_run_of_before_the_setting_comes_back_and_goes_on(run_tiny):
    told = ("--epochs=1", "--run_name=old")
    result = run_tiny("ContRec", "--text_similarity=0", *told)
    folder = Path(result["checkpoint"]).parent
    take_from_the_record(folder, "text_similarity")
    loaded = load_data_and_model(folder)
    assert loaded.config["text_similarity"] == 0 and part_of(loaded) is None
    again = run_tiny("ContRec", *told, resume=str(folder))
    assert again["test_result"] == result["test_result"] and again["chosen_on_validation"] == {}


def test_nothing_is_chosen_where_nothing_is_validated_and_that_is_said(run_tiny, caplog):
    result = run_tiny("ContRec", "--epochs=1", "--eval_step=0")
    assert "text_similarity is left to validation, and nothing is validated" in caplog.text
    assert result["chosen_on_validation"] == {} and "text similarity" not in result["card"]["method"]


def test_a_run_that_keeps_nothing_chooses_with_the_best_weights_as_well(run_tiny):
    told = ("--epochs=4", "--learning_rate=0.05")
    kept, unkept = run_tiny("ContRec", *told), run_tiny("ContRec", *told, saved=False)
    assert kept["best_epoch"] < 3  # the last weights are others
    for name in ("best_valid_score", "best_valid_result", "chosen_on_validation"):
        assert kept[name] == unkept[name]


def test_the_log_tells_of_texts_where_there_are_some(tiny, run_tiny, caplog):
    result = run_tiny("ContRec", "--epochs=1")
    assert "text similarity in the score, weight by validation" in caplog.text
    weight = result["chosen_on_validation"]["text_similarity"]["value"]
    assert ("text similarity in the score" in result["card"]["method"]) == (weight > 0)
    caplog.clear()
    (tiny / "tiny" / "tiny.item").unlink()
    result = run_tiny("ContRec", "--epochs=1")
    assert "text similarity" not in caplog.text and "text similarity" not in result["card"]["method"]


def test_few_texts_are_compared_by_what_they_say(staged):
    """Whitening all directions of a few texts would make each as far from every other one."""
    loaded = staged("ContRec", "--text_similarity=4")
    ids = loaded.data.dataset.field2token_id["item_id"]
    odd, even = ([ids[f"i{number}"] for number in range(first, 60, 2)] for first in (11, 10))
    vectors = loaded.model.retrieval.text_similarity.vectors
    cosines = vectors[odd] @ vectors[odd + even].T
    same = cosines[:, : len(odd)][~torch.eye(len(odd), dtype=torch.bool)].mean()
    assert same > cosines[:, len(odd) :].mean() + 0.1


def test_texts_that_are_all_one_add_nothing_and_say_so(tiny, run_tiny):
    file = tiny / "tiny" / "tiny.item"
    rows = [line.split("\t")[0] for line in file.read_text().splitlines()[1:]]
    file.write_text("item_id:token\ttitle:token_seq\n" + "".join(f"{item}\tone for all\n" for item in rows))
    with pytest.raises(UserError, match="text_similarity=4: .* tell no two items apart"):
        run_tiny("ContRec", "--text_similarity=4", "--epochs=1")
    assert run_tiny("ContRec", "--epochs=1")["chosen_on_validation"]["text_similarity"]["value"] == 0
