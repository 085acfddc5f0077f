"""The control: RecBole's SASRec to the last score, trained at every position."""

import pytest
import torch
import torch.nn.functional as F

from recbole_contrec import load_data_and_model
from recbole_contrec.data.windows import NEXT_PREFIX
from recbole_contrec.errors import UserError
from recbole_contrec.tokenizer import standardise, svd_vectors
from tests.helpers.files import STORIES
from tests.helpers.models import moved_by_training


def test_scores_and_parameters_are_those_of_recbole(assembled):
    ours, theirs = assembled("SASRecAll").model.eval(), assembled("SASRec").model.eval()
    assert {name: p.shape for name, p in ours.named_parameters()} == {
        name: p.shape for name, p in theirs.named_parameters()
    }
    theirs.load_state_dict(ours.state_dict())
    rows = next(iter(assembled("SASRecAll").data.test))[0]
    assert len(rows["item_length"].unique()) > 2  # ours leaves the padding of the shorter ones out
    torch.testing.assert_close(ours.full_sort_predict(rows), theirs.full_sort_predict(rows))
    torch.testing.assert_close(ours.predict(rows), theirs.predict(rows))


def test_rankings_do_not_depend_on_how_many_histories_fit_at_once(assembled, monkeypatch):
    loaded = assembled("SASRecAll")
    model, rows = loaded.model.eval(), next(iter(loaded.data.test))[0]
    wanted = model.full_sort_predict(rows)
    monkeypatch.setattr("recbole_contrec.model.sasrec_all.POSITIONS", 1)
    torch.testing.assert_close(model.full_sort_predict(rows), wanted)


def test_window_loss_equals_the_loss_of_recbole_over_all_prefixes(assembled):
    """But for the padding, which RecBole's softmax takes for a candidate."""
    still = ("--hidden_dropout_prob=0", "--attn_dropout_prob=0", "--MAX_ITEM_LIST_LENGTH=30")
    loaded = assembled("SASRecAll", *still)
    model = loaded.model.train()
    count = 0
    for batch in loaded.data.train:
        items, targets = batch["item_id_list"], batch[NEXT_PREFIX + "item_id_list"]
        losses = []
        for row, place in (targets > 0).nonzero().tolist():
            prefix = torch.zeros_like(items[row])
            prefix[: place + 1] = items[row, : place + 1]
            state = model.forward(prefix[None], torch.tensor([place + 1]))
            losses.append(F.cross_entropy(state @ model.item_embedding.weight[1:].T, targets[row, place][None] - 1))
        assert model.calculate_loss(batch).ranking.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)
        assert model.windows.count_targets(batch) == len(losses)
        count += len(losses)
    assert count == loaded.data.train.n_targets


def test_it_learns(run_tiny):
    trained = run_tiny(
        "SASRecAll",
        "--epochs=30",
        "--eval_step=30",
        "--learning_rate=0.01",
        "--train_batch_size=64",
        "--hidden_dropout_prob=0",
        "--attn_dropout_prob=0",
    )
    assert trained["test_result"]["hit@5"] > 0.6


@pytest.mark.parametrize(
    "told",
    [
        (),
        ("--item_vectors=text", "--text_whitening=0.5"),
        ("--item_vectors=svd+text", f"--text_encoder={STORIES}"),
        ("--item_vectors=svd+text", "--train_text_columns=False"),
    ],
)
def test_embeddings_can_start_at_the_vectors_of_contrec(staged, told):
    model = staged("SASRecAll-svd", "--hidden_size=16", *told).model
    contrec = staged("ContRec", "--item_vectors_init=vectors", "--train_item_vectors=True", *told).model
    assert torch.equal(model.item_embedding.weight, contrec.item_vectors.weight)
    assert model.item_embedding.weight.requires_grad and not model.item_embedding.weight[0].any()


def test_an_svd_start_is_the_one_of_the_recorded_runs(staged):
    """Of an earlier version, which made it in the constructor."""
    loaded = staged("SASRecAll-svd", "--hidden_size=16")
    dataset = loaded.data.train_dataset
    vectors = svd_vectors(*dataset.histories.pairs(), dataset.user_num, dataset.item_num, 16, seed=2020)
    assert torch.equal(loaded.model.item_embedding.weight, 0.02 * standardise(vectors.items))


@pytest.mark.parametrize(
    "model, told, said",
    [
        ("SASRecAll", ("--item_vectors=text",), "item_vectors: item embeddings start at random"),
        ("SASRecAll", ("--item_vectors=text", "--text_similarity=4"), "item_vectors: item embeddings start at random"),
        ("SASRecAll", ("--train_item_vectors=False",), "would keep random vectors"),
        ("SASRecAll-svd", ("--train_text_columns=False",), "set item_vectors=svd.text"),
        ("ContRec", ("--item_vectors=text", "--train_text_columns=False"), "set item_vectors=svd.text"),
        (
            "ContRec",
            (
                "--item_vectors=svd+text",
                "--train_text_columns=False",
                "--train_item_vectors=False",
                "--item_vectors_init=vectors",
            ),
            "leave train_item_vectors True",
        ),
        ("SASRecAll", ("--item_embedding_init=svd",), "item_embedding_init is now called item_vectors_init"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(assembled, model, told, said):
    with pytest.raises(UserError, match=said):
        loaded = assembled(model, *told)
        loaded.model.check_unread(loaded.config)
        loaded.model.check_sources(loaded.data.train_dataset)


def test_texts_in_the_scores_need_no_item_vectors(staged):
    loaded = staged("SASRecAll", "--hidden_size=16", "--text_similarity=4", f"--text_encoder={STORIES}")
    assert list(loaded.trainer.progress.stages) == ["item texts", "text similarity"]


@pytest.mark.parametrize("model, table", [("SASRecAll", "item_embedding"), ("ContRec", "item_vectors")])
@pytest.mark.parametrize("start", ["random", "vectors"])
@pytest.mark.parametrize(
    "source, text, others", [("svd+text", slice(8, 16), slice(0, 8)), ("text+svd", slice(0, 8), slice(8, 16))]
)
def test_text_columns_stay_while_the_others_learn(staged, model, table, start, source, text, others):
    width = ("--hidden_size=16",) if model == "SASRecAll" else ()
    told = (f"--item_vectors={source}", f"--item_vectors_init={start}", "--train_text_columns=False", *width)
    loaded = staged(model, *told, "--weight_decay=0.1")
    weight = getattr(loaded.model, table).weight
    before = weight.detach().clone()
    assert before[1:, text].square().mean().sqrt() == pytest.approx(0.04, rel=0.1)  # twice what the others start at
    assert before[1:, others].square().mean().sqrt() == pytest.approx(0.02, rel=0.1)
    moved_by_training(loaded, 3)
    assert torch.equal(weight[:, text], before[:, text])
    assert (weight[1:, others] != before[1:, others]).all()


def test_runs_go_on_and_come_back_with_kept_columns(run_tiny):
    told = ("--item_vectors=svd+text", "--train_text_columns=False", "--hidden_size=16", "--epochs=2")
    result = run_tiny("SASRecAll-svd", *told)
    assert list(result["stages"]) == ["item vectors"]
    loaded = load_data_and_model(result["checkpoint"])
    again = run_tiny("SASRecAll-svd", *told)
    assert again["stages"]["item vectors"]["found_on_disk"] and again["test_result"] == result["test_result"]
    assert loaded.model.vector_settings.kept == range(8, 16)
