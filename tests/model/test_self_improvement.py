"""Identifiers that improve themselves: all distinct, none less likely or more crowded than before, by a model that is
aligned."""

import numpy as np
import pytest
import torch

from recbole_contrec.decoding import AllTuples, diverse_beam_search
from recbole_contrec.errors import UserError
from recbole_contrec.model.semantic_ids import CodeDecoder
from recbole_contrec.model.semantic_ids.rewriting import more_crowded

NONE = 16  # codes of a codebook in these tests


@pytest.fixture
def improving(staged):
    """A function (*arguments) -> model in eval mode whose stages are done, with weights far from equal."""

    def build(*arguments, model="SIIT"):
        model = staged(model, *arguments).model.eval()
        torch.manual_seed(0)  # whether stages were built or found
        for part in (*model.code_heads, model.improvement.to_prompt):
            torch.nn.init.normal_(part.weight)
        return model

    return build


@torch.no_grad()
def own_log_probs(model):
    """Log-probabilities of every item's own identifier behind its description [n], and the items [n]."""
    codes = model.decoder.item_codes.codes
    items = ((codes[:, 0] < NONE) & model.improvement.descriptions.any(1)).nonzero().squeeze(1)
    mark, described = model.improvement.marks[0], model.improvement.to_prompt(model.improvement.descriptions[items])
    total = torch.zeros(len(items), dtype=described.dtype)
    states = model.decoder.states_before_codes(torch.stack([mark.expand_as(described), described], dim=1), codes[items])
    for level, head in enumerate(model.code_heads):
        log_probs = head(states[:, level]).log_softmax(1)
        total += torch.stack([row[code] for row, code in zip(log_probs, codes[items, level])])
    return total, items


def refine(model, batches=()):
    """Give a model other semantic ids, and say what changed."""
    refined = model.refine(batches)
    model.adopt(refined)
    return refined.report


def known(codes):
    return codes[codes[:, 0] < NONE]


def item_at(trie, codes):
    """The item that a walk along the trie comes to."""
    node = torch.tensor(0)
    for level, code in enumerate(codes):
        children = trie.children(level, node)
        (node,) = children.nodes[children.real & (children.codes == code)]
    return int(trie.items[node])


# one refinement


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--backbone=t5",),
        ("--refine_assignment=greedy",),
        ("--refinement=random",),
        ("--refine_groups=1", "--refine_candidates=30"),
        ("--user_buckets=3",),
    ],
)
def test_refined_identifiers_are_distinct_and_lead_back_to_their_items(improving, arguments):
    model = improving(*arguments)
    for _ in range(3):
        before, old_trie = model.decoder.item_codes.codes.clone(), model.decoder.trie
        report = refine(model)
        after = model.decoder.item_codes.codes
        assert torch.equal(after[:, 0] < NONE, before[:, 0] < NONE)  # who has none stays without
        assert len(known(after).unique(dim=0)) == len(known(after)) and known(after).max() < NONE
        different = known(after) != known(before)
        assert report["share_changed"] == pytest.approx(different.any(1).double().mean().item(), abs=1e-4)
        assert report["share_of_codes_changed"] == pytest.approx(different.double().mean(0).tolist(), abs=1e-4)
        assert model.decoder.trie is not old_trie
        items = (after[:, 0] < NONE).nonzero().squeeze(1).tolist()
        assert [item_at(model.decoder.trie, codes) for codes in after[items].tolist()] == items


@pytest.mark.parametrize("backbone", ["causal", "t5"])
def test_searches_for_a_few_items_each_give_what_one_for_all_gives(improving, monkeypatch, backbone):
    model = improving(f"--backbone={backbone}")
    whole = model.refine(())
    monkeypatch.setattr("recbole_contrec.model.semantic_ids.rewriting.ITEMS_A_SEARCH", 7)
    few = model.refine(())
    assert torch.equal(few.codes, whole.codes) and few.report == whole.report and whole.report["share_changed"] > 0


@pytest.mark.parametrize("arguments", [(), ("--backbone=t5",), ("--refine_assignment=greedy",), ("--refine_margin=3",)])
def test_no_item_gets_an_identifier_that_is_less_likely(improving, arguments):
    model = improving(*arguments).double()
    (before, items), old = own_log_probs(model), model.decoder.item_codes.codes.clone()
    report = refine(model)
    after = own_log_probs(model)[0]
    moved = (model.decoder.item_codes.codes != old).any(1)[items]
    margin = model.improvement.settings.margin
    assert (after[moved] > before[moved] + margin).all() and torch.equal(after[~moved], before[~moved])
    assert moved.double().mean() > 0.3 and report["share_wanting_change"] > 0.5


def test_a_margin_that_nothing_reaches_changes_nothing(improving):
    model = improving("--refine_margin=1000")
    before = model.decoder.item_codes.codes.clone()
    report = refine(model)
    assert torch.equal(model.decoder.item_codes.codes, before)
    assert report["share_changed"] == report["share_wanting_change"] == 0


@pytest.mark.parametrize("n_tokens", [2, 3, 4])
def test_more_crowded_is_where_more_others_share_all_codes_but_the_last_two(n_tokens):
    generator = torch.Generator().manual_seed(0)
    own, held = (torch.randint(3, (n, n_tokens), generator=generator) for n in (30, 10))
    candidates = torch.randint(3, (30, 6, n_tokens), generator=generator)
    found = more_crowded(own, candidates, held)
    for item, mine in enumerate(own.tolist()):
        others = [
            codes[: n_tokens - 2] for number, codes in enumerate(torch.cat([own, held]).tolist()) if number != item
        ]
        for place, codes in enumerate(candidates[item].tolist()):
            assert found[item, place] == (others.count(codes[: n_tokens - 2]) > others.count(mine[: n_tokens - 2]))
    assert found.any() == (n_tokens > 2) and not found.all()


def test_no_item_moves_to_where_it_is_more_crowded(improving):
    def crowded_moves(model):
        """Moves, and those of them to a first code that more others had."""
        before = model.decoder.item_codes.codes.clone()
        refine(model)
        has = before[:, 0] < NONE
        old, new = before[has, 0].tolist(), model.decoder.item_codes.codes[has, 0].tolist()
        crowded = [old.count(now) - (now == then) > old.count(then) - 1 for then, now in zip(old, new)]
        return (model.decoder.item_codes.codes != before).any(1).sum(), sum(crowded)

    (free, into_crowds), (bound, none) = crowded_moves(improving("--refine_crowding=True")), crowded_moves(improving())
    assert free > bound > 10 and into_crowds > 5 and none == 0


def test_the_control_gives_as_many_items_the_same_identifiers_at_random(improving):
    """Also where the model lets items swap, and one drawn at random could be the item's own."""
    tight = "--num_codebooks=1", "--refine_candidates=40"
    by_model, at_random = improving(*tight), improving(*tight, "--refinement=random")
    old = by_model.decoder.item_codes.codes.clone()
    assert torch.equal(old, at_random.decoder.item_codes.codes)
    wanted, share, *_ = by_model.refine(())
    moved = (wanted != old).any(1)
    taken_over = (wanted[moved][:, None] == old[moved]).all(2).any(1)
    assert taken_over.sum() >= 3
    for seed in range(20):
        torch.manual_seed(seed)
        drawn, report, *_ = at_random.refine(())
        assert torch.equal((drawn != old).any(1), moved) and not torch.equal(drawn, wanted)
        assert torch.equal(drawn.unique(dim=0), wanted.unique(dim=0))
        assert report["share_changed"] == share["share_changed"]


def test_nobody_who_has_the_likeliest_identifier_wants_another(improving, monkeypatch):
    """The search and the pass that scores what an item has round differently; that is no wish."""
    exactly = CodeDecoder.log_probs
    monkeypatch.setattr(CodeDecoder, "log_probs", lambda *arguments: exactly(*arguments) - 1e-5)
    model = improving("--refine_groups=1", "--refine_candidates=4")
    codes, improvement = model.decoder.item_codes.codes, model.improvement
    items = own_log_probs(model)[1]
    best = diverse_beam_search(
        AllTuples(3, NONE), 4, model.decoder.writer(improvement.prompts(items, model.decoder).vectors, 4)
    ).codes[:, 0]
    codes.fill_(NONE)
    for item, mine in zip(items.tolist(), best):
        if not (codes == mine).all(1).any():
            codes[item] = mine
    assert len(known(codes)) > 20
    report = refine(model)
    assert report["share_wanting_change"] == report["share_changed"] == 0


def test_items_without_a_description_keep_their_identifiers_for_themselves(improving):
    model = improving()
    codes, before = model.decoder.item_codes.codes, model.decoder.item_codes.codes.clone()
    refine(model)
    moved = (codes != before).any(1).nonzero().squeeze(1)
    silent, others = moved[: len(moved) // 2], moved[len(moved) // 2 :]
    wanted = codes[others[: len(silent)]].clone()
    codes.copy_(before)
    free = ~(wanted[:, None] == before).all(2).any(1)
    codes[silent[free]] = wanted[free]  # what others want is theirs now
    kept = codes[silent].clone()
    model.improvement.describe(model.improvement.descriptions.index_fill(0, silent, 0.0))
    report = refine(model)
    assert free.sum() > 5 and report["share_changed"] > 0.1 and torch.equal(codes[silent], kept)
    assert len(known(codes).unique(dim=0)) == len(known(codes)) == report["items"]


# alignment


@pytest.mark.parametrize("model", ["SIIT", "TokenRec-beam"])
def test_items_are_described_by_other_vectors_than_their_identifiers_come_from(staged, model):
    arguments = ("--self_improve=True", "--refine_rounds=0", "--item_vectors=svd")
    plain, text, told = (
        staged(model, *arguments, *further).model
        for further in ((), ("--item_vectors=text",), ("--item_descriptions=text",))
    )
    assert torch.equal(told.improvement.descriptions, text.improvement.descriptions)
    assert not torch.equal(told.improvement.descriptions, plain.improvement.descriptions)
    assert torch.equal(told.decoder.item_codes.codes, plain.decoder.item_codes.codes)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--item_descriptions=texts",), "item_descriptions=texts: neither a file nor one of svd, lightgcn, text"),
        (("--item_descriptions=svd+text", "--vector_size=15"), "item_descriptions=svd.text: 2 different parts"),
        (("--item_descriptions=text", "--text_fields=[]"), "item_descriptions=text: 'tiny' has no item texts"),
        (("--self_improve=False", "--item_descriptions=text"), "item_descriptions, .*: set self_improve=True as well"),
    ],
)
def test_descriptions_that_cannot_be_had_are_refused(run_tiny, workplace, arguments, message):
    with pytest.raises(UserError, match=message):
        run_tiny("SIIT", *arguments)
    assert not (workplace / "saved").exists()  # before anything is written


@pytest.mark.parametrize("backbone", ["causal", "t5"])
def test_alignment_reaches_what_it_is_made_of_and_falls(improving, backbone):
    model = improving(f"--backbone={backbone}", "--alignment_items=200")
    improvement = model.improvement
    for number, loss in enumerate(improvement.losses(model.decoder)):
        model.zero_grad()
        loss.backward()
        assert improvement.marks.grad[number].any() and not improvement.marks.grad[1 - number].any()
        asked, other = (improvement.to_prompt, improvement.to_description)[:: 1 - 2 * number]
        assert asked.weight.grad.any() and (other.weight.grad is None or not other.weight.grad.any())
        assert model.decoder.item_codes.words.weight.grad.any()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    seen = []
    for _ in range(60):
        losses = improvement.losses(model.decoder)
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
        seen.append([loss.item() for loss in losses])
    first, last = np.mean(seen[:5], axis=0), np.mean(seen[-5:], axis=0)
    assert (last < 0.7 * first).all()


def test_the_loss_has_weighted_terms_of_alignment(staged):
    loaded = staged("SIIT", "--dropout=0", "--alignment_weight=0.5", "--alignment_items=2000")
    model, batch = loaded.model, next(iter(loaded.data.train))
    loss = model.calculate_loss(batch)
    torch.testing.assert_close(
        loss[1:], tuple(0.5 * term for term in model.improvement.losses(model.decoder)), rtol=0.05, atol=0.05
    )
    assert staged("TIGER").model.calculate_loss(batch)._fields == ("codes",)


# settings


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--alignment_weight=0",), "alignment_weight=0: .*refine_rounds=0 as well"),
        (("--eval_step=3", "--refine_every=2", "--epochs=9"), "eval_step=3: .* take a divisor of refine_every=2"),
        (("--eval_step=2", "--refine_every=5", "--epochs=9"), "eval_step=2: .* take a divisor of refine_every=5"),
        (("--stopping_step=3", "--refine_every=4", "--epochs=9"), "stopping_step=3 would end a run"),
        (("--stopping_step=1", "--eval_step=2", "--refine_every=4", "--epochs=9"), "stopping_step=1 would end"),
        (("--semantic_ids=pq", "--vector_size=2", "--num_codebooks=3"), "num_codebooks=3: semantic_ids=pq"),
    ],
)
def test_settings_that_cannot_be_are_refused(assembled, arguments, message):
    with pytest.raises(UserError, match=message):
        assembled("SIIT", *arguments)


def test_patience_counts_validations(assembled):
    assembled("SIIT", "--stopping_step=2", "--eval_step=2", "--refine_every=4", "--epochs=9")
