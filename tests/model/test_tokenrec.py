"""TokenRec: its losses, what T5 trains on, its codes, what it reads, and runs."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from recbole_contrec.data.windows import NEXT_PREFIX
from recbole_contrec.model.parts.code_table import CodeTable
from recbole_contrec.model.parts.history import shuffled
from recbole_contrec.model.parts.targets import some_targets
from recbole_contrec.retrieval import pairwise_cosine_loss
from tests.helpers.options import STILL_TOKENREC as STILL

T5 = ["--backbone=t5", "--sampled_prefixes=1000"]  # all targets of these windows


@pytest.fixture
def ready(staged):
    """A function (*arguments) -> LoadedRun of a TokenRec whose stages are done."""
    return partial(staged, "TokenRec")


# losses


def test_loss_terms_have_names_and_weights(ready):
    def terms(*weights):
        model = ready(*STILL, "--repeat_bias=False", *weights).model.train()
        torch.manual_seed(0)
        return model.calculate_loss(next(iter(ready().data.train)))

    both, other = terms("--pairwise_weight=0.5"), terms("--ranking_weight=0.25", "--pairwise_weight=1.5")
    assert both._fields == ("ranking", "pairwise") and all(term > 0 for term in both)
    torch.testing.assert_close(other.ranking, both.ranking * 0.25)
    torch.testing.assert_close(other.pairwise, both.pairwise * 3)
    assert terms().pairwise == 0


def test_pairwise_loss_against_torch(monkeypatch):
    torch.manual_seed(0)
    items, preference = torch.randn(9, 6), torch.randn(200, 6)
    target = torch.randint(1, 9, (200,))
    drawn = []

    def randint(low, high, *rest, original=torch.randint, **options):
        assert (low, high) == (1, 8)
        drawn.append(original(low, high, *rest, **options))
        return drawn[-1]

    monkeypatch.setattr(torch, "randint", randint)
    loss = pairwise_cosine_loss(preference, items, target, margin=0.2)
    other = drawn[0] + (drawn[0] >= target)
    assert (other != target).all() and other.unique().tolist() == [*range(1, 9)]
    near = F.cosine_embedding_loss(preference, items[target], torch.ones(200))
    far = F.cosine_embedding_loss(preference, items[other], -torch.ones(200), margin=0.2)
    torch.testing.assert_close(loss, near + far)
    with pytest.raises(ValueError, match="at least two items"):
        pairwise_cosine_loss(preference, items[:2], target)


# what T5 trains on


def test_some_targets_are_the_last_and_drawn_ones():
    torch.manual_seed(0)
    next_items = torch.tensor([[0, 3, 4, 5, 6, 0], [7, 0, 0, 0, 0, 0], [0, 0, 2, 3, 0, 0], [1, 2, 3, 4, 5, 6]])
    seen = torch.zeros(next_items.shape)
    for _ in range(200):
        chosen = some_targets(next_items, 2)
        assert ((chosen == next_items) | (chosen == 0)).all()
        assert (chosen > 0).sum(1).tolist() == [3, 1, 2, 3]
        seen += chosen > 0
    assert (seen[[0, 1, 2, 3], [4, 0, 3, 5]] == 200).all()  # the last one always
    assert (seen[3, :5] - 80).abs().max() < 30  # the others alike
    assert (some_targets(next_items, 0) > 0).sum(1).tolist() == [1] * 4
    torch.testing.assert_close(some_targets(next_items, 99), next_items)


def test_targets_are_counted_as_they_are_drawn(ready):
    loaded = ready("--backbone=t5", "--sampled_prefixes=2")
    batch = next(iter(loaded.data.train))
    drawn = len(loaded.model.train().windows(batch).targets().items)
    whole = int((batch[NEXT_PREFIX + "item_id_list"] > 0).sum())
    assert loaded.model.windows.count_targets(batch) == drawn < whole


def test_shuffling_keeps_the_items_of_a_history():
    torch.manual_seed(0)
    item_seq = torch.tensor([[5, 6, 7, 8, 0, 0], [3, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
    mixed = torch.stack([shuffled(item_seq) for _ in range(50)])
    assert ((mixed > 0) == (item_seq > 0)).all()
    assert torch.equal(mixed.sort(2).values[0], mixed.sort(2).values[-1])
    assert len(mixed[:, 2].unique(dim=0)) > 40 and (mixed[:, 0, 0] == 5).float().mean() < 0.5


def test_histories_are_shuffled_in_training_only(ready):
    loaded = ready(*STILL, *T5, "--shuffle_history=True")
    model, batch = loaded.model.train(), next(iter(loaded.data.train))
    first, second = model.calculate_loss(batch).ranking, model.calculate_loss(batch).ranking
    assert first != second
    model.history.shuffled = False
    torch.testing.assert_close(model.calculate_loss(batch).ranking, model.calculate_loss(batch).ranking)
    rows = next(iter(loaded.data.test))[0]
    model.history.shuffled = True
    torch.testing.assert_close(model.eval().full_sort_predict(rows), model.full_sort_predict(rows))


# codes


def test_codes_are_those_of_the_tokenizers(ready):
    from recbole_contrec.tokenizer import collision_rate, encode_rows, standardise, svd_vectors

    loaded = ready("--distinct_codes=False")
    dataset = loaded.data.train.dataset
    users, items = dataset.histories.pairs()
    vectors = svd_vectors(users, items, dataset.user_num, dataset.item_num, 16, seed=2020)
    model = loaded.model
    for side, part, rows in (("item", model.items, vectors.items), ("user", model.users, vectors.users)):
        table, tokenizer = part.table, part.quantiser
        assert torch.equal(table.codes, encode_rows(tokenizer, standardise(rows)))
        assert tokenizer.codebook_size == 8  # four rows a code, at least
        assert (table.codes[0] == tokenizer.codebook_size).all()
        report = loaded.trainer.progress.stages[f"{side} tokenizer"].report
        assert report["collisions"] == report["collisions_left"]
        assert min(report["codes_in_use"]) > 0.5 and min(report["perplexity"]) > 0.4
    distinct = ready().model.items.table.codes
    assert collision_rate(distinct[distinct[:, 0] < 8]) == 0


def test_a_code_is_one_word_wherever_it_stands():
    torch.manual_seed(0)
    table = CodeTable(5, 2, 3, 4)
    table.codes.copy_(torch.tensor([[3, 3], [0, 1], [0, 2], [1, 1], [1, 0]]))
    words = table(torch.tensor([[1, 2], [3, 0]]))
    assert words.shape == (2, 2, 2, 4)
    assert torch.equal(words[0, 0, 0], words[0, 1, 0]) and torch.equal(words[0, 0, 1], words[1, 0, 1])
    assert not torch.equal(words[0, 0, 0], words[0, 0, 1])
    assert torch.equal(table.read(torch.tensor([[3, 3]])), table(torch.tensor([0])))
    everything = table(torch.arange(5)).flatten(0, 1).unique(dim=0)
    assert len(everything) == 2 + 3 + 2  # codes 0 and 1, codes 0, 1 and 2, two stand-ins


def test_user_codes_matter_and_unknown_users_have_a_stand_in(ready):
    loaded = ready("--user_token_dropout=1.0", "--fold_in=False")
    model = loaded.model.eval()
    rows = next(iter(loaded.data.test))[0]
    known = model.full_sort_predict(rows)
    nobody = torch.zeros_like(rows["user_id"])
    in_training = model.train().users(rows["user_id"], rows["item_id_list"])
    torch.testing.assert_close(in_training, model.users(nobody, rows["item_id_list"]))  # all of them dropped
    rows["user_id"] = nobody
    unknown = model.eval().full_sort_predict(rows)
    assert torch.isfinite(unknown).all() and not torch.allclose(known, unknown)


def test_the_held_out_wording_is_read_in_evaluation_only(ready):
    loaded = ready("--dropout=0", "--user_token_dropout=0")
    model, batch = loaded.model, next(iter(loaded.data.train))
    assert model.train().calculate_loss(batch).ranking != model.calculate_loss(batch).ranking  # drawn instructions
    tested = set(model.prompt.instructions.numbers[-1].tolist())
    read = []
    words = model.prompt.instructions.vectors
    words.register_forward_hook(lambda _, inputs, __: read.append(set(inputs[0].flatten().tolist())))
    model.eval().full_sort_predict(next(iter(loaded.data.test))[0])
    assert read and all(numbers == tested for numbers in read)


# histories


def test_the_published_setting_reads_first_interactions_only(config_of):
    from recbole_contrec.data.loading import load_data

    whole, cut = (load_data(config_of("TokenRec", f"--first_n={n}")) for n in ("~", 8))
    start, stop = whole.train.histories.offsets[:-1], whole.train.histories.offsets[1:]
    test, valid, shortened = (
        dict(zip(part.dataset.inter_feat["user_id"].tolist(), part.dataset.inter_feat["item_id"].tolist()))
        for part in (whole.test, whole.valid, cut.test)
    )
    assert cut.test.dataset.inter_feat["item_length"].max() == 7
    assert cut.train.dataset.item_num == whole.train.dataset.item_num
    for user, first, last in zip(whole.train.histories.users.tolist(), start, stop):
        items = [*whole.train.histories.items[first:last].tolist(), *filter(None, [valid.get(user)]), test[user]]
        assert shortened[user] == items[:8][-1]
    lengths = cut.train.histories.offsets[1:] - cut.train.histories.offsets[:-1]
    assert lengths.max() == 6 and len(lengths) == len(start)


# runs


@pytest.mark.parametrize("arguments", [(), ("--backbone=t5", "--sampled_prefixes=10", "--epochs=25", "--eval_step=25")])
def test_it_learns(run_tiny, arguments):
    trained = run_tiny(
        "TokenRec",
        "--epochs=15",
        "--eval_step=15",
        "--learning_rate=0.02",
        "--train_batch_size=64",
        "--dropout=0",
        *arguments,
    )
    assert trained["test_result"]["hit@5"] > 0.6  # 60 items; popularity reaches a sixth of that


def test_equal_seeds_give_equal_runs(run_tiny):
    first, second = (run_tiny("TokenRec", f"--checkpoint_dir={folder}") for folder in "ab")
    assert first["test_result"] == second["test_result"] and first["best_valid_result"] == second["best_valid_result"]
    assert first["card"]["first_interactions_only"] is None


def test_the_recipe_of_the_paper_runs_and_ranks(run_tiny):
    result = run_tiny("TokenRec-paper", "--epochs=1", "--lightgcn_epochs=2", "--first_n=9")
    assert result["card"]["first_interactions_only"] == 9 and result["test_result"]["hit@20"] > 0


def test_a_checkpoint_recommends_to_known_and_new_people(run_tiny):
    from recbole_contrec import load_data_and_model, recommend

    result = run_tiny("TokenRec", "--epochs=1")
    loaded = load_data_and_model(result["checkpoint"])
    assert (
        loaded.model.items.table.codes[1:] < loaded.model.items.table.unknown_code
    ).any()  # codes come with the weights
    table = recommend(loaded, users=["u3", "u5"], histories=[["i1", "i2"]], k=4)
    assert len(table) == 12 and table["item_id"].notna().all()
