"""Identifiers that improve themselves: all distinct, none less likely than before, and taken back where ranking gets worse."""


import numpy as np
import pytest
import torch

from conftest import TINY_SIIT, changed, write_atomic_files
from recbole_contrec import load_data_and_model
from recbole_contrec.decoding import AllTuples, diverse_beam_search
from recbole_contrec.errors import UserError
from recbole_contrec.model.base.identifier_generation import IdentifierGenerator
from recbole_contrec.model.base.self_improvement import more_crowded
from recbole_contrec.training import checkpoint
from recbole_contrec.training.trainer import CurvePoint, RunTrainer
from recbole_contrec.training.window_trainer import WindowTrainer

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
    codes = model.item_codes.codes
    items = ((codes[:, 0] < NONE) & model.improvement.descriptions.any(1)).nonzero().squeeze(1)
    mark, described = model.improvement.marks[0], model.improvement.to_prompt(model.improvement.descriptions[items])
    total = torch.zeros(len(items), dtype=described.dtype)
    states = model.states_of_codes(torch.stack([mark.expand_as(described), described], dim=1), codes[items])
    for level, head in enumerate(model.code_heads):
        log_probs = head(states[:, level]).log_softmax(1)
        total += torch.stack([row[code] for row, code in zip(log_probs, codes[items, level])])
    return total, items


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


@pytest.mark.parametrize("arguments", [(), ("--backbone=t5",), ("--refine_assignment=greedy",), ("--refinement=random",),
                                       ("--refine_groups=1", "--refine_candidates=30"), ("--user_buckets=3",)])
def test_refined_identifiers_are_distinct_and_lead_back_to_their_items(improving, arguments):
    model = improving(*arguments)
    for _ in range(3):
        before, old_trie = model.item_codes.codes.clone(), model.trie
        report = model.refine()
        after = model.item_codes.codes
        assert torch.equal(after[:, 0] < NONE, before[:, 0] < NONE)  # who has none stays without
        assert len(known(after).unique(dim=0)) == len(known(after)) and known(after).max() < NONE
        different = known(after) != known(before)
        assert report["share_changed"] == pytest.approx(different.any(1).double().mean().item(), abs=1e-4)
        assert report["share_of_codes_changed"] == pytest.approx(different.double().mean(0).tolist(), abs=1e-4)
        assert model.trie is not old_trie
        history = [1, 7, 30]
        assert [item_at(model.trie, codes) for codes in after[history].tolist()] == history


@pytest.mark.parametrize("arguments", [(), ("--backbone=t5",), ("--refine_assignment=greedy",), ("--refine_margin=3",)])
def test_no_item_gets_an_identifier_that_is_less_likely(improving, arguments):
    model = improving(*arguments).double()
    (before, items), old = own_log_probs(model), model.item_codes.codes.clone()
    report = model.refine()
    after = own_log_probs(model)[0]
    moved = (model.item_codes.codes != old).any(1)[items]
    margin = model.config["refine_margin"]
    assert (after[moved] > before[moved] + margin).all() and torch.equal(after[~moved], before[~moved])
    assert moved.double().mean() > 0.3 and report["share_wanting_change"] > 0.5


def test_a_margin_that_nothing_reaches_changes_nothing(improving):
    model = improving("--refine_margin=1000")
    before = model.item_codes.codes.clone()
    report = model.refine()
    assert torch.equal(model.item_codes.codes, before)
    assert report["share_changed"] == report["share_wanting_change"] == 0


@pytest.mark.parametrize("n_tokens", [2, 3, 4])
def test_more_crowded_is_where_more_others_share_all_codes_but_the_last_two(n_tokens):
    generator = torch.Generator().manual_seed(0)
    own, held = (torch.randint(3, (n, n_tokens), generator=generator) for n in (30, 10))
    candidates = torch.randint(3, (30, 6, n_tokens), generator=generator)
    found = more_crowded(own, candidates, held)
    for item, mine in enumerate(own.tolist()):
        others = [codes[:n_tokens - 2] for number, codes in enumerate(torch.cat([own, held]).tolist()) if number != item]
        for place, codes in enumerate(candidates[item].tolist()):
            assert found[item, place] == (others.count(codes[:n_tokens - 2]) > others.count(mine[:n_tokens - 2]))
    assert found.any() == (n_tokens > 2) and not found.all()


def test_no_item_moves_to_where_it_is_more_crowded(improving):
    def crowded_moves(model):
        """Moves, and those of them to a first code that more others had."""
        before = model.item_codes.codes.clone()
        model.refine()
        has = before[:, 0] < NONE
        old, new = before[has, 0].tolist(), model.item_codes.codes[has, 0].tolist()
        crowded = [old.count(now) - (now == then) > old.count(then) - 1 for then, now in zip(old, new)]
        return (model.item_codes.codes != before).any(1).sum(), sum(crowded)

    (free, into_crowds), (bound, none) = crowded_moves(improving("--refine_crowding=True")), crowded_moves(improving())
    assert free > bound > 10 and into_crowds > 5 and none == 0


def test_the_control_gives_as_many_items_the_same_identifiers_at_random(improving):
    """Also where the model lets items swap, and one drawn at random could be the item's own."""
    tight = "--item_tokens=1", "--refine_candidates=40"
    by_model, at_random = improving(*tight), improving(*tight, "--refinement=random")
    old = by_model.item_codes.codes.clone()
    assert torch.equal(old, at_random.item_codes.codes)
    wanted, share = by_model.improvement.refine(by_model)
    moved = (wanted != old).any(1)
    taken_over = (wanted[moved][:, None] == old[moved]).all(2).any(1)
    assert taken_over.sum() >= 3
    for seed in range(20):
        torch.manual_seed(seed)
        drawn, report = at_random.improvement.refine(at_random)
        assert torch.equal((drawn != old).any(1), moved) and not torch.equal(drawn, wanted)
        assert torch.equal(drawn.unique(dim=0), wanted.unique(dim=0))
        assert report["share_changed"] == share["share_changed"]


def test_nobody_who_has_the_likeliest_identifier_wants_another(improving, monkeypatch):
    """The search and the pass that scores what an item has round differently; that is no wish."""
    exactly = IdentifierGenerator.log_probs
    monkeypatch.setattr(IdentifierGenerator, "log_probs", lambda *arguments: exactly(*arguments) - 1e-5)
    model = improving("--refine_groups=1", "--refine_candidates=4")
    codes, improvement = model.item_codes.codes, model.improvement
    items = own_log_probs(model)[1]
    best = diverse_beam_search(AllTuples(3, NONE), 4, model.writer_behind(improvement._prompts(items), 4)).codes[:, 0]
    codes.fill_(NONE)
    for item, mine in zip(items.tolist(), best):
        if not (codes == mine).all(1).any():
            codes[item] = mine
    assert len(known(codes)) > 20
    report = model.refine()
    assert report["share_wanting_change"] == report["share_changed"] == 0


def test_items_without_a_description_keep_their_identifiers_for_themselves(improving):
    model = improving()
    codes, before = model.item_codes.codes, model.item_codes.codes.clone()
    model.refine()
    moved = (codes != before).any(1).nonzero().squeeze(1)
    silent, others = moved[:len(moved) // 2], moved[len(moved) // 2:]
    wanted = codes[others[:len(silent)]].clone()
    codes.copy_(before)
    free = ~(wanted[:, None] == before).all(2).any(1)
    codes[silent[free]] = wanted[free]  # what others want is theirs now
    kept = codes[silent].clone()
    model.improvement.describe(model.improvement.descriptions.index_fill(0, silent, 0.0))
    report = model.refine()
    assert free.sum() > 5 and report["share_changed"] > 0.1 and torch.equal(codes[silent], kept)
    assert len(known(codes).unique(dim=0)) == len(known(codes)) == report["items"]


# alignment


@pytest.mark.parametrize("model", ["SIIT", "TokenRec-beam"])
def test_items_are_described_by_other_vectors_than_their_identifiers_come_from(staged, model):
    arguments = ("--self_improve=True", "--refine_rounds=0", "--item_vectors=svd")
    plain, text, told = (staged(model, *arguments, *further).model for further in (
        (), ("--item_vectors=text",), ("--item_descriptions=text",)))
    assert torch.equal(told.improvement.descriptions, text.improvement.descriptions)
    assert not torch.equal(told.improvement.descriptions, plain.improvement.descriptions)
    assert torch.equal(told.item_codes.codes, plain.item_codes.codes)


@pytest.mark.parametrize("arguments, message", [
    (("--item_descriptions=texts",), "item_descriptions=texts: neither a file nor one of svd, lightgcn, text"),
    (("--item_descriptions=svd+text", "--vector_size=15"), "item_descriptions=svd.text: 2 different parts"),
    (("--item_descriptions=text", "--text_fields=[]"), "item_descriptions=text: 'tiny' has no item texts"),
    (("--self_improve=False", "--item_descriptions=text"), "item_descriptions, .*: set self_improve=True as well")])
def test_descriptions_that_cannot_be_had_are_refused(run_tiny, workplace, arguments, message):
    with pytest.raises(UserError, match=message):
        run_tiny("SIIT", *arguments)
    assert not (workplace / "saved").exists()  # before anything is written


@pytest.mark.parametrize("backbone", ["causal", "t5"])
def test_alignment_reaches_what_it_is_made_of_and_falls(improving, backbone):
    model = improving(f"--backbone={backbone}", "--alignment_items=200")
    improvement = model.improvement
    for number, loss in enumerate(improvement.losses(model)):
        model.zero_grad()
        loss.backward()
        assert improvement.marks.grad[number].any() and not improvement.marks.grad[1 - number].any()
        asked, other = (improvement.to_prompt, improvement.to_description)[::1 - 2 * number]
        assert asked.weight.grad.any() and (other.weight.grad is None or not other.weight.grad.any())
        assert model.item_codes.words.weight.grad.any()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    seen = []
    for _ in range(60):
        losses = improvement.losses(model)
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
    torch.testing.assert_close(loss[1:], tuple(0.5 * term for term in model.improvement.losses(model)), rtol=0.05, atol=0.05)
    assert staged("TIGER").model.calculate_loss(batch)._fields == ("codes",)


# training in rounds


@pytest.mark.parametrize("bigger, scores, kept", [
    (True, [0.1, 0.3, 0.2, 0.25], False), (True, [0.1, 0.3, 0.2, 0.3], True), (True, [0.1, 0.3, 0.4, 0.2], True),
    (False, [0.3, 0.1, 0.2, 0.4], False), (False, [0.3, 0.2, 0.1, 0.1], True), (True, [0.1, 0.3], None)])
def test_a_refinement_is_judged_by_the_best_validation_before_and_after(assembled, monkeypatch, bigger, scores, kept):
    trainer, done = assembled("SIIT").trainer, []
    monkeypatch.setattr(trainer, "_refine", lambda epoch: done.append("refine"))
    monkeypatch.setattr(trainer, "_take_back", lambda: done.append("take back"))
    trainer.valid_metric_bigger, trainer.best_is_saved = bigger, True
    trainer.curve = [CurvePoint(epoch, 0.0, 0.0, score) for epoch, score in enumerate(scores)]
    trainer.refinements = [{"epoch": 2}]
    trainer._between_rounds(4)
    assert trainer.refinements[0].get("kept") == kept
    assert done == (["take back"] if kept is False else ["refine"])
    if kept is False:
        trainer._between_rounds(6)  # judged once
        assert done == ["take back", "refine"]


ROUNDS = ("--epochs=9", "--refine_every=4", "--refine_rounds=1", "--learning_rate=0.03", "--train_batch_size=64", "--dropout=0",
          "--average_decay=0.9", "--final_learning_rate_ratio=1", "--beam_size=60", "--valid_metric=MRR@10")


def permuted(model):
    """Identifiers of others for everybody: a planted refinement that is none."""
    codes = model.item_codes.codes
    has = (codes[:, 0] < NONE).nonzero().squeeze(1)
    codes[has] = codes[has[torch.randperm(len(has))]]
    model._trie = None
    return {"share_changed": 1.0}


def test_a_bad_refinement_is_taken_back(run_tiny, workplace, monkeypatch):
    set_learning_rate = WindowTrainer._set_learning_rate

    def learn_half_of_the_time(self, progress):  # so that what is spoiled is not learned again
        set_learning_rate(self, progress)
        for group in self.optimizer.param_groups:
            group["lr"] *= progress < 4 / 9

    monkeypatch.setattr(WindowTrainer, "_set_learning_rate", learn_half_of_the_time)
    monkeypatch.setattr(IdentifierGenerator, "refine", permuted)
    result = run_tiny("SIIT", *ROUNDS, "--run_name=bad")
    (record,) = result["refinements"]
    assert record["epoch"] == 4 and record["kept"] is False and record["valid_after"] < record["valid_before"]
    stage = next((workplace / "saved" / "stages").glob("identifiers-*"))
    for name in ("best", "last"):
        codes = checkpoint.load(workplace / "saved" / "bad" / f"{name}.safetensors").tensors["model.item_codes.codes"]
        assert torch.equal(codes, checkpoint.load(stage).tensors["codes"])
    score = {point["epoch"]: point["score"] for point in result["curve"]}
    assert score[8] == result["best_valid_score"] > max(score[epoch] for epoch in range(4, 8))  # the best weights again


@pytest.mark.parametrize("saved", [True, False])
def test_what_is_taken_back_does_not_depend_on_what_is_saved(staged, monkeypatch, workplace, saved):
    """Also where an older run of the same name left a checkpoint."""
    loaded = staged("SIIT", "--run_name=old", "--epochs=3", "--refine_every=1", "--refine_rounds=1")
    trainer, codes, scores = loaded.trainer, loaded.model.item_codes.codes, iter([0.3, 0.2, 0.1])
    trainer.folder.mkdir(parents=True)
    (trainer.folder / "best.safetensors").write_bytes(b"of another run")
    at_first = codes.clone()
    monkeypatch.setattr(IdentifierGenerator, "refine", permuted)
    monkeypatch.setattr(trainer, "_valid_epoch", lambda *_, **__: (next(scores, 0.1), {"ndcg@10": 0.0}))
    monkeypatch.setattr(trainer, "_between_rounds", between := Recorded(trainer._between_rounds))
    trainer.config["refine_tolerance"] = None
    trainer.fit(loaded.data.train, loaded.data.valid, verbose=False, saved=saved)
    (record,) = trainer.refinements
    assert between.calls == 2 and not record["kept"] and record["valid_before"] == 0.3 and torch.equal(codes, at_first)


class Recorded:
    """A function that counts its calls."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *arguments):
        self.calls += 1
        return self.function(*arguments)


@pytest.mark.parametrize("tolerance, bigger, at_once, kept", [
    ("0.1", True, 0.26, False), ("0.1", True, 0.28, None), ("0.5", True, 0.16, None), ("~", True, 0.0, None),
    ("0.1", False, 0.34, False), ("0.1", False, 0.32, None), ("0", True, 0.29, False), ("0", True, 0.3, None)])
def test_what_costs_too_much_at_once_is_not_done(staged, monkeypatch, tolerance, bigger, at_once, kept):
    loaded = staged("SIIT", f"--refine_tolerance={tolerance}")
    trainer, codes = loaded.trainer, loaded.model.item_codes.codes
    trainer.valid_metric_bigger, trainer.curve, trainer.cur_step = bigger, [CurvePoint(0, 0.0, 0.0, 0.3)], 2
    before = codes.clone()
    monkeypatch.setattr(IdentifierGenerator, "refine", permuted)
    monkeypatch.setattr(trainer, "_valid_epoch", lambda data: (at_once if data is loaded.data.valid else None, {}))
    trainer._refine(1)
    (record,) = trainer.refinements
    assert record["valid_at_once"] == at_once and record.get("kept") == kept
    assert trainer.cur_step == (2 if kept is False else 0)  # nothing to wait for where it is undone
    assert torch.equal(codes, before) == (kept is False)


def test_identifiers_are_written_and_judged_by_the_weights_that_count(staged, monkeypatch):
    trainer = staged("SIIT").trainer
    trainer.average.average = {name: torch.full_like(p, 0.5) for name, p in trainer.average.parameters.items()}
    trainer.curve, seen = [CurvePoint(0, 0.0, 0.0, 0.3)], []

    def look(*_):
        seen.append(all((p == 0.5).all() for p in trainer.average.parameters.values()))
        return {} if len(seen) == 1 else (0.3, {})

    monkeypatch.setattr(IdentifierGenerator, "refine", look)
    monkeypatch.setattr(trainer, "_valid_epoch", look)
    trainer._refine(1)
    assert seen == [True, True] and not all((p == 0.5).all() for p in trainer.average.parameters.values())


def test_a_later_best_that_is_not_saved_comes_back_all_the_same(staged):
    """A resumed run whose file holds an older best."""
    loaded = staged("SIIT", "--epochs=1", "--refine_rounds=0")
    trainer, weights = loaded.trainer, loaded.model.improvement.marks
    trainer._save_checkpoint(0)
    trainer.fit(loaded.data.train, loaded.data.valid, verbose=False, saved=False)
    best = weights.detach().clone()
    with torch.no_grad():
        weights.add_(1)
    trainer._take_back()
    assert torch.equal(weights, best)


def test_only_models_that_improve_themselves_keep_their_best_in_memory(staged):
    loaded = staged("TIGER", "--epochs=1")
    loaded.trainer.fit(loaded.data.train, loaded.data.valid, verbose=False, saved=False)
    assert loaded.trainer.best_in_memory is None


@pytest.mark.parametrize("arguments, message", [
    (("--alignment_weight=0",), "alignment_weight=0: .*refine_rounds=0 as well"),
    (("--eval_step=3", "--refine_every=2", "--epochs=9"), "eval_step=3: .* take a divisor of refine_every=2"),
    (("--eval_step=2", "--refine_every=5", "--epochs=9"), "eval_step=2: .* take a divisor of refine_every=5"),
    (("--stopping_step=3", "--refine_every=4", "--epochs=9"), "stopping_step=3 would end a run"),
    (("--stopping_step=1", "--eval_step=2", "--refine_every=4", "--epochs=9"), "stopping_step=1 would end"),
    (("--identifiers=pq", "--vector_size=2", "--item_tokens=3"), "item_tokens=3: identifiers=pq")])
def test_settings_that_cannot_be_are_refused(assembled, arguments, message):
    with pytest.raises(UserError, match=message):
        assembled("SIIT", *arguments)


def test_patience_counts_validations(assembled):
    assembled("SIIT", "--stopping_step=2", "--eval_step=2", "--refine_every=4", "--epochs=9")


def test_patience_starts_anew_where_a_refinement_is_taken_back(staged):
    trainer = staged("SIIT").trainer
    trainer._save_checkpoint(0)
    trainer.cur_step = 3
    trainer._take_back()
    assert trainer.cur_step == 0 and trainer.best_is_saved


def test_a_good_refinement_is_kept(run_tiny, workplace, monkeypatch):
    """What changes nothing lets training go on getting better."""
    monkeypatch.setattr(IdentifierGenerator, "refine", lambda self: {"share_changed": 0.0})
    (record,) = run_tiny("SIIT", *ROUNDS)["refinements"]
    assert record["kept"] is True and record["valid_after"] > record["valid_before"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of five epochs with refinements before the third and the fifth, and its folder."""
    from recbole_contrec.quick_start import run

    place = tmp_path_factory.mktemp("whole")
    write_atomic_files(place / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return place, run("SIIT", "tiny", arguments=changed(TINY_SIIT, [f"--data_path={place / 'data'}", *TWO_ROUNDS]))


TWO_ROUNDS = ("--epochs=5", "--refine_every=2", "--learning_rate=0.03", "--run_name=run", "--train_batch_size=64")


def test_a_run_reports_its_refinements_and_keeps_their_identifiers(whole):
    place, result = whole
    assert [record["epoch"] for record in result["refinements"]] == [2, 4]
    first = result["refinements"][0]
    assert first["kept"] is True and 0 < first["share_changed"] <= 1 and first["collisions"] == 0
    start = checkpoint.load(next((place / "saved" / "stages").glob("identifiers-*"))).tensors["codes"]
    last = checkpoint.load(place / "saved" / "run" / "last.safetensors").tensors["model.item_codes.codes"]
    assert not torch.equal(start, last) and len(known(last).unique(dim=0)) == len(known(last)) == len(known(start))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        loaded = load_data_and_model(result["checkpoint"])
        assert loaded.trainer.evaluate(loaded.data.test, load_best_model=False) == result["test_result"]


@pytest.mark.parametrize("epoch", [1, 2], ids=["before a refinement", "behind a refinement"])
def test_a_run_killed_between_epochs_goes_on_as_if_it_had_not_been(run_tiny, whole, monkeypatch, epoch):
    save_last = RunTrainer._save_last

    def save_and_die(self, now, train_data):
        save_last(self, now, train_data)
        if now == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunTrainer, "_save_last", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        run_tiny("SIIT", *TWO_ROUNDS)
    monkeypatch.setattr(RunTrainer, "_save_last", save_last)
    resumed, result = run_tiny("SIIT", *TWO_ROUNDS, resume="saved/run"), whole[1]
    assert resumed["refinements"] == result["refinements"] and resumed["test_result"] == result["test_result"]
    assert [(point["epoch"], point["score"]) for point in resumed["curve"]] == [
        (point["epoch"], point["score"]) for point in result["curve"]]


def test_nothing_is_refined_where_it_is_not_wished(run_tiny, monkeypatch):
    monkeypatch.setattr(IdentifierGenerator, "refine", lambda self: pytest.fail("refined"))
    assert run_tiny("TIGER", "--epochs=3")["refinements"] == []


def test_other_models_that_generate_identifiers_improve_them(run_tiny):
    result = run_tiny("TokenRec-beam", "--self_improve=True", "--refine_every=1", "--refine_rounds=1", "--epochs=3",
                      "--run_name=other")
    (record,) = result["refinements"]
    assert record["epoch"] == 1 and "kept" in record and record["collisions"] == 0 and record["share_changed"] > 0
    codes = load_data_and_model(result["checkpoint"]).model.item_codes
    codes = codes.codes[codes.codes[:, 0] < codes.unknown_code]
    assert len(codes.unique(dim=0)) == len(codes)
