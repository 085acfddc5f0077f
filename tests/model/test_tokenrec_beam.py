"""TokenRec that generates codes: no code sees those after it, the beam finds what is likely and only what is there."""

from functools import partial

import pytest
import torch

from tests.helpers.models import exact_scores


@pytest.fixture
def ready(staged):
    """A function (*arguments) -> LoadedRun of a TokenRec-beam whose stages are done."""
    return partial(staged, "TokenRec-beam")


@pytest.fixture
def model_and_rows(ready):
    """A function (*arguments) -> model in eval mode with weights far from equal, and rows of the test."""

    def build(*arguments):
        loaded = ready(*arguments)
        model = loaded.model.double().eval()
        for head in model.code_heads:
            torch.nn.init.normal_(head.weight)
        return model, next(iter(loaded.data.test))[0]

    return build


def test_no_code_sees_its_own_item_beyond_the_codes_before(model_and_rows):
    model, _ = model_and_rows("--dropout=0")
    item_seq, user, n_tokens, n_codes = (
        torch.tensor([[3, 5, 9, 7]]),
        torch.tensor([1]),
        3,
        model.decoder.item_codes.codebook_size,
    )
    before, codes = model(item_seq, user), model.decoder.item_codes.codes  # [1, L, K, D]
    assert before.shape == (1, 3, n_tokens, 16)
    model.item_vectors.weight.data[9] += 1
    for level in reversed(range(n_tokens)):  # of item 9, the second to be predicted
        codes[9, level] = (codes[9, level] + 1) % n_codes
        after = model(item_seq, user)
        torch.testing.assert_close(after[:, 0], before[:, 0])
        torch.testing.assert_close(after[:, 1, : level + 1], before[:, 1, : level + 1])
        later = torch.cat([after[:, 1, level + 1 :] - before[:, 1, level + 1 :], after[:, 2] - before[:, 2]], dim=1)
        assert later.abs().amax(2).gt(1e-6).all()  # but whoever comes later sees it


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (
            "--id_embedding=False",
            "--num_user_codebooks=0",
            "--instructions=[]",
            "--held_out_instruction=~",
            "--n_layers=2",
        ),
        ("--num_codebooks=1", "--codebook_size=60", "--num_user_codebooks=0"),
    ],
)
def test_a_beam_as_wide_as_the_catalogue_gives_exact_scores(model_and_rows, arguments):
    model, rows = model_and_rows(*arguments)
    rows = rows[:4]
    exact = exact_scores(model, rows)  # [B, N]
    torch.testing.assert_close(model.score_all(rows), exact)
    found = model.generate(rows, model.n_items)
    best, items = exact.topk(10, dim=1)
    torch.testing.assert_close(found.log_probs[:, :10], best)
    assert torch.equal(found.items[:, :10], items)
    assert (
        exact[:, model.decoder.item_codes.codes[:, 0] == model.decoder.item_codes.codebook_size] == -torch.inf
    ).all()
    assert exact.exp().sum(1).max() < 1 + 1e-9  # tuples that are no item have the rest


def test_scores_keep_the_contract(model_and_rows):
    """Fresh, writable and finite; equal to predict, to the best K and to those of each row alone."""
    model, rows = model_and_rows("--beam_size=7", "--topk=[5]", "--valid_metric=NDCG@5")
    lowest = torch.finfo(torch.float64).min
    first, exact = model.full_sort_predict(rows), model.score_all(rows)
    first[:, 0] = -torch.inf  # as RecBole's trainer does
    scores = model.full_sort_predict(rows)
    assert scores.shape == (len(rows), model.n_items) and torch.isfinite(scores).all()
    in_beam = scores > lowest
    assert (in_beam.sum(1) == 7).all() and not in_beam[:, 0].any()
    torch.testing.assert_close(scores[in_beam], exact[in_beam])
    rows["item_id"][::2] = scores.argmax(1)[::2]
    torch.testing.assert_close(model.predict(rows), exact.gather(1, rows["item_id"][:, None]).squeeze(1))
    best, items = model.top_k(rows, 5)
    wanted, numbers = first.topk(5, dim=1)
    assert torch.equal(best, wanted) and torch.equal(items, numbers)
    alone = torch.cat([model.full_sort_predict(rows[row : row + 1]) for row in range(len(rows))])
    torch.testing.assert_close(scores, alone)


def test_lists_leave_out_what_is_excluded_and_what_does_not_exist(model_and_rows):
    model, rows = model_and_rows("--beam_size=7")
    model.decoder.item_codes.codes[11] = model.decoder.item_codes.unknown_code
    model.eval()  # a new trie
    excluded = model.top_k(rows, 4)[1]
    scores, items = model.top_k(rows, model.n_items, excluded)
    n_left = (
        model.n_items
        - 1
        - 4
        - int((model.decoder.item_codes.codes[1:, 0] == model.decoder.item_codes.unknown_code).sum())
    )
    assert ((items > 0).sum(1) == n_left).all() and (items != 11).all()  # the list widens the beam
    assert torch.equal(items == 0, scores == -torch.inf)
    assert not (items[:, :, None] == excluded[:, None]).any()
    assert all(len(set(row[:n_left])) == n_left for row in items.tolist())
    torch.testing.assert_close(scores[:, :n_left], model.score_all(rows).gather(1, items)[:, :n_left])


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--item_positions=one",), "unknown setting item_positions"),
        (("--backbone=t5",), "unknown setting backbone"),
        (("--repeat_bias=True",), "unknown setting repeat_bias"),
        (("--beam_size=0",), "beam_size=0: must be"),
        (("--codebook_size=2", "--num_codebooks=2"), "raise codebook_size, which is 2 here, or num_codebooks"),
    ],
)
def test_settings_that_do_not_go_together(ready, arguments, words):
    from recbole_contrec.errors import UserError

    with pytest.raises(UserError, match=words):
        ready(*arguments)


def test_it_learns_and_recommends(run_tiny):
    from recbole_contrec import load_data_and_model, recommend

    trained = run_tiny(
        "TokenRec-beam", "--epochs=25", "--eval_step=25", "--learning_rate=0.02", "--train_batch_size=64", "--dropout=0"
    )
    assert trained["test_result"]["hit@5"] > 0.6  # 60 items; popularity reaches a sixth of that
    loaded = load_data_and_model(trained["checkpoint"])
    table = recommend(loaded, users=["u3", "u5"], histories=[["i1", "i2"]], k=25)
    assert len(table) == 75 and table["item_id"].notna().all()


def test_what_an_evaluation_masks_holds_no_place_of_the_beam(ready):
    loaded = ready("--mask_seen=True", "--beam_size=5", "--topk=[5]", "--valid_metric=NDCG@5")
    rows = next(iter(loaded.data.test))[0]
    scores = loaded.model.eval().full_sort_predict(rows)
    found = scores > torch.finfo(scores.dtype).min
    count = found.sum(1)  # five, but where the best beginnings lead to fewer items that were not seen
    assert (count > 0).all() and (count <= 5).all() and (count == 5).float().mean() > 0.9
    assert not found.gather(1, rows["item_id_list"])[rows["item_id_list"] > 0].any()
