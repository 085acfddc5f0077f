"""TIGER on both backbones: no code sees those after it, every beam is an item that may be found, and it learns."""

from functools import partial

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_contrec.errors import UserError
from recbole_contrec.model.parts.code_table import CodeTable
from recbole_contrec.model.semantic_ids import code_decoder
from recbole_contrec.model.semantic_ids.code_decoder import CodeWriter
from tests.helpers.files import write_atomic_files
from tests.helpers.models import exact_scores

BACKBONES = ["causal", "t5"]
LOWEST = torch.finfo(torch.double).min


@pytest.fixture
def ready(staged):
    """A function (*arguments) -> LoadedRun of a TIGER whose stages are done."""
    return partial(staged, "TIGER")


@pytest.fixture
def model_and_rows(ready):
    """A function (*arguments) -> model in eval mode with weights far from equal, and rows of the test."""

    def build(*arguments):
        loaded = ready(*arguments)
        model = loaded.model.double().eval()
        for part in (*model.code_heads, model.decoder.item_codes.words):
            torch.nn.init.normal_(part.weight)
        return model, next(iter(loaded.data.test))[0]

    return build


def one_target(history, item, user=1):
    """An interaction of one row, as RecBole builds it."""
    return Interaction(
        {
            "item_id_list": torch.tensor([history]),
            "item_length": torch.tensor([len(history)]),
            "item_id": torch.tensor([item]),
            "user_id": torch.tensor([user]),
        }
    )


def found_in(scores):
    """Items of the beam, a list a row."""
    return [row.nonzero().squeeze(1).tolist() for row in scores > LOWEST]


# reading


@pytest.mark.parametrize("adds", [False, True])
def test_a_code_is_read_alone_or_as_the_sum_up_to_it(adds):
    table = CodeTable(4, 3, 5, 8, adds)
    codes = torch.tensor([[4, 0, 2], [1, 5, 3]])  # [2, K]
    words = table.words.weight.view(3, 6, 8)  # [K, C + 1, D]
    expected = torch.stack([torch.stack([words[level, row[level]] for level in range(3)]) for row in codes.tolist()])
    if adds:
        expected = torch.stack([expected[:, 0], expected[:, 0] + expected[:, 1], expected.sum(1)], dim=1)
    torch.testing.assert_close(table.read(codes), expected)
    before = None
    for level in range(3):
        before = table.read_next(codes[:, level], level, before)
        torch.testing.assert_close(before, expected[:, level])
    table.codes[2] = codes[0]
    torch.testing.assert_close(table(torch.tensor([2])), expected[:1])


# training


@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_code_sees_those_after_it(model_and_rows, backbone):
    model, _ = model_and_rows(f"--backbone={backbone}")
    codes, row = model.decoder.item_codes.codes, one_target([3, 5, 9], 7)
    before = model.decoder.targets(model.windows(row)).states  # [1, K, D]
    assert before.shape == (1, 3, 16)
    for level in reversed(range(3)):
        codes[7, level] = (codes[7, level] + 1) % 16
        after = model.decoder.targets(model.windows(row)).states
        torch.testing.assert_close(after[:, : level + 1], before[:, : level + 1])
        assert (after - before)[:, level + 1 :].abs().amax(2).gt(1e-6).all()
    for level in range(3):  # of the history, all
        codes[5, level] = (codes[5, level] + 1) % 16
        after, before = model.decoder.targets(model.windows(row)).states, after
        assert (after - before).abs().amax(2).gt(1e-6).all()


def test_no_target_of_a_window_sees_later_items(model_and_rows):
    model, _ = model_and_rows()
    item_seq, user = torch.tensor([[3, 5, 9, 7]]), torch.tensor([1])
    before = model(item_seq, user)  # [1, 3, K, D]
    model.decoder.item_codes.codes[9] = (model.decoder.item_codes.codes[9] + 1) % 16
    after = model(item_seq, user)
    torch.testing.assert_close(after[:, 0], before[:, 0])
    torch.testing.assert_close(after[:, 1, 0], before[:, 1, 0])
    assert (after - before)[:, 2].abs().amax(2).gt(1e-6).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_against_a_plain_computation(model_and_rows, smoothing):
    model, _ = model_and_rows(f"--label_smoothing={smoothing}")
    codes = torch.tensor([[1, 2, 3], [16, 16, 16], [0, 15, 7]])  # the second has none
    states = torch.randn(3, 3, 16, dtype=torch.double)
    total = 0.0
    for row in (0, 2):
        for level, head in enumerate(model.code_heads):
            log_probs = head(states[row, level]).log_softmax(0)
            total -= (1 - smoothing) * log_probs[codes[row, level]] + smoothing * log_probs.mean()
    torch.testing.assert_close(model.decoder.loss(states, codes), total / 2)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_padding_gets_no_gradient_and_changes_no_loss(model_and_rows, ready, backbone):
    loaded = ready(f"--backbone={backbone}", "--dropout=0", *(["--sampled_prefixes=1000"] if backbone == "t5" else []))
    model = loaded.model.double()
    batch = max(loaded.data.train, key=lambda batch: batch["item_id_list"].numel())
    assert (batch["item_id_list"] == 0).any()
    loss = model.calculate_loss(batch).codes
    loss.backward()
    stand_ins = [level * 17 + 16 for level in range(3)]  # what the padding reads
    assert (
        not model.decoder.item_codes.words.weight.grad[stand_ins].any()
        and model.decoder.item_codes.words.weight.grad.any()
    )
    model.decoder.item_codes.words.weight.data[stand_ins] += 10
    torch.testing.assert_close(model.calculate_loss(batch).codes, loss)


# scores


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--user_buckets=7", "--n_layers=2"),
        ("--num_codebooks=1", "--codebook_size=32"),
        ("--code_reading=own", "--num_codebooks=3"),
        ("--backbone=t5",),
        ("--backbone=t5", "--user_buckets=7", "--n_layers=2"),
        ("--backbone=t5", "--num_codebooks=3"),
    ],
)
def test_a_beam_as_wide_as_the_catalogue_gives_exact_scores(model_and_rows, arguments, monkeypatch):
    model, rows = model_and_rows(*arguments)
    rows = rows[:4]
    exact = exact_scores(model, rows)
    torch.testing.assert_close(model.score_all(rows), exact)
    monkeypatch.setattr("recbole_contrec.model.semantic_ids.code_decoder.ITEMS_AT_ONCE", 7)
    torch.testing.assert_close(model.score_all(rows), exact)
    found = model.generate(rows, model.n_items)
    best, items = exact.topk(10, dim=1)
    torch.testing.assert_close(found.log_probs[:, :10], best)
    assert torch.equal(found.items[:, :10], items)
    assert exact.exp().sum(1).max() < 1 + 1e-9  # tuples that are no item have the rest


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_narrow_beam_gives_exact_scores_of_what_it_finds(model_and_rows, backbone):
    model, rows = model_and_rows(f"--backbone={backbone}", "--beam_size=6", "--topk=[5]", "--valid_metric=NDCG@5")
    rows = rows[:4]
    exact, scores = exact_scores(model, rows), model.full_sort_predict(rows)
    items = found_in(scores)
    assert all(len(row) == 6 and 0 not in row for row in items) and torch.isfinite(scores).all()
    torch.testing.assert_close(scores[scores > LOWEST], exact[scores > LOWEST])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_long_histories_are_read_a_few_at_a_time(model_and_rows, monkeypatch, backbone):
    model, rows = model_and_rows(f"--backbone={backbone}")
    whole, read = model.full_sort_predict(rows), []
    monkeypatch.setattr(
        code_decoder,
        "CodeWriter",
        lambda decoder, prompts, *rest: (read.append(prompts.shape[:2]), CodeWriter(decoder, prompts, *rest))[1],
    )
    monkeypatch.setattr(type(model.backbone), "POSITIONS", 40)
    torch.testing.assert_close(model.full_sort_predict(rows), whole, atol=1e-4, rtol=1e-4)
    assert len(read) > 1 and all(n == 1 or n * positions <= 40 for n, positions in read)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_one_item_is_scored_exactly_whether_the_beam_finds_it_or_not(model_and_rows, backbone):
    model, rows = model_and_rows(f"--backbone={backbone}", "--beam_size=1", "--topk=[1]", "--valid_metric=NDCG@1")
    rows = rows[:4]
    exact = exact_scores(model, rows)
    for item in (3, 17, 44):
        rows["item_id"][:] = item
        seen = (rows["item_id_list"] == item).any(1)
        wanted = exact[:, item].masked_fill(seen, LOWEST)
        torch.testing.assert_close(model.predict(rows), wanted)
    model.decoder.item_codes.codes[44] = model.decoder.item_codes.unknown_code
    assert (model.predict(rows) == LOWEST).all()


def test_the_longest_list_of_an_evaluation_widens_the_beam(model_and_rows):
    model, rows = model_and_rows("--beam_size=5", "--topk=[3,12]", "--valid_metric=NDCG@3")
    assert all(len(items) == 12 for items in found_in(model.full_sort_predict(rows)))


def test_all_that_is_masked_holds_no_place_of_the_beam_however_long_the_history(ready, monkeypatch):
    loaded = ready(
        "--mask_seen=True",
        "--beam_size=7",
        "--topk=[5]",
        "--valid_metric=NDCG@5",
        "--MAX_ITEM_LIST_LENGTH=3",
        "--generate_seen=True",
    )
    collected = []
    monkeypatch.setattr(
        type(loaded.trainer), "_collect_ranks", lambda self, interaction, scores, *_: collected.append(scores)
    )
    monkeypatch.setattr(type(loaded.trainer), "_write_ranks", lambda *_: None)
    loaded.trainer.eval_collector.data_collect(loaded.data.train)
    loaded.trainer.evaluate(loaded.data.test, load_best_model=False, save_ranks=True)
    scores = torch.cat(collected)
    assert ((scores == -torch.inf).sum(1) > 4).any()  # more than a history of three
    assert ((scores > torch.finfo(scores.dtype).min).sum(1) == 7).all()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--sampled_prefixes=9",), "sampled_prefixes: for backbone=t5 only"),
        (("--attention_head_size=8",), "attention_head_size: for"),
        (("--refine_every=2",), "refine_every: set self_improve=True"),
        (("--self_improve=True", "--epochs=3", "--refine_every=3"), "epochs=3 end before the first refinement"),
        (
            ("--self_improve=True", "--epochs=30", "--stopping_step=4", "--refine_every=5"),
            "stopping_step=4 would end a run",
        ),
    ],
)
def test_settings_that_would_be_ignored_are_refused(ready, arguments, words):
    with pytest.raises(UserError, match=words):
        ready(*arguments)


def test_somebody_new_reads_the_mean_of_the_buckets_in_use(model_and_rows):
    model, _ = model_and_rows("--user_buckets=1000")
    read = model.users(torch.tensor([0, 3]))
    torch.testing.assert_close(read[0, 0], model.users.weight[1:41].mean(0))  # 40 users
    torch.testing.assert_close(read[1, 0], model.users.weight[3])


def test_identifiers_depend_on_the_seed_alone(ready):
    codes = ready("--checkpoint_dir=one").model.decoder.item_codes.codes
    for arguments in (
        ("--checkpoint_dir=two", "--n_layers=2"),
        ("--checkpoint_dir=three", "--self_improve=True", "--refine_rounds=0"),
    ):
        assert torch.equal(ready(*arguments).model.decoder.item_codes.codes, codes)
    assert not torch.equal(ready("--checkpoint_dir=four", "--seed=5").model.decoder.item_codes.codes, codes)


@pytest.mark.parametrize("choice, enter", [("~", False), ("False", False), ("True", True)])
def test_items_of_the_history_are_found_only_where_they_may_be(model_and_rows, choice, enter):
    """In these data nobody meets an item twice."""
    model, rows = model_and_rows(f"--generate_seen={choice}", "--beam_size=60")
    for row, items in enumerate(found_in(model.full_sort_predict(rows))):
        history = set(rows["item_id_list"][row].tolist()) - {0}
        with_codes = {item for item in history if model.decoder.item_codes.codes[item, 0] < 16}
        assert history & set(items) == (with_codes if enter else set())
        assert len(items) == len(model.decoder.trie.items) - (0 if enter else len(with_codes))


def test_where_training_has_repeats_they_may_be_generated(ready, workplace):
    write_atomic_files(workplace / "round", n_items=24)
    loaded = ready(f"--data_path={workplace / 'round'}", "--beam_size=24")
    rows = next(iter(loaded.data.test))[0]
    assert loaded.model.generates_seen and loaded.model.eval().never_generated(rows) is None
    masked = ready(f"--data_path={workplace / 'round'}", "--mask_seen=True").model  # what the evaluation masks anyhow
    assert torch.equal(masked.never_generated(rows), rows["item_id_list"])


def test_seen_items_hold_no_place_of_the_beam(model_and_rows):
    model, rows = model_and_rows("--beam_size=5", "--topk=[5]", "--valid_metric=NDCG@5")
    assert all(len(items) == 5 for items in found_in(model.full_sort_predict(rows)))


def test_lists_leave_out_what_is_excluded_and_what_has_no_codes(model_and_rows):
    model, rows = model_and_rows("--beam_size=5", "--generate_seen=False")  # which is for the evaluation
    model.decoder.item_codes.codes[11] = 16
    model.eval()  # a new trie
    excluded = model.top_k(rows, 4)[1]
    scores, items = model.top_k(rows, model.n_items, excluded)  # the list widens the beam
    left = len(model.decoder.trie.items) - 4
    assert ((items > 0).sum(1) == left).all() and (items != 11).all()
    assert torch.equal(items == 0, scores == -torch.inf)
    assert not (items[:, :, None] == excluded[:, None]).any()
    assert all(len(set(row[:left])) == left for row in items.tolist())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_users_of_one_bucket_are_the_same(model_and_rows, backbone):
    model, _ = model_and_rows(f"--backbone={backbone}", "--user_buckets=7")
    torch.nn.init.normal_(model.users.weight)
    same, again, other = (model.score_all(one_target([3, 5, 9], 7, user)) for user in (3, 10, 4))
    torch.testing.assert_close(same, again)
    assert (same - other).abs().nan_to_num().max() > 1e-3


def test_without_buckets_users_are_not_told_apart(model_and_rows):
    model, _ = model_and_rows()
    torch.testing.assert_close(*(model.score_all(one_target([3, 5, 9], 7, user)) for user in (3, 4)))
