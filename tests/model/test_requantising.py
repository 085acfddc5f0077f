"""Identifiers quantised anew from the states in front of items: what is averaged, who gets which codes, what training
keeps."""

import numpy as np
import pytest
import torch

from recbole_contrec.errors import UserError
from recbole_contrec.model.semantic_ids.requantising import PRIOR_STATES, Expected, states_before_items, whitened
from recbole_contrec.storage import checkpoint
from recbole_contrec.storage.progress import CurvePoint
from recbole_contrec.tokenizer import residual_kmeans
from recbole_contrec.training.trainer import RunTrainer
from tests.model.test_self_improvement import NONE, improving, item_at, known, refine  # noqa: F401
from tests.training.test_refining_trainer import Recorded


@pytest.fixture
def model_and_batches(staged):
    """A function (*arguments) -> model in eval mode whose stages are done, with weights far from equal, and its
    training data."""

    def build(*arguments, model="SIIT-states"):
        loaded = staged(model, *arguments)
        torch.manual_seed(0)
        for head in loaded.model.code_heads:
            torch.nn.init.normal_(head.weight)
        return loaded.model.eval(), loaded.data.train

    return build


# what is averaged


@pytest.mark.parametrize("arguments", [(), ("--backbone=t5", "--sampled_prefixes=0"), ("--user_buckets=3",)])
def test_an_item_is_expected_where_the_histories_in_front_of_it_lead(model_and_batches, arguments):
    model, batches = model_and_batches("--MAX_ITEM_LIST_LENGTH=30", *arguments)
    model, found = model.double(), {}
    with torch.no_grad():
        for user, history in histories(batches):
            for place in range(1, len(history)):
                prompt = model.history.layout(history[None, :place], user[None])
                found.setdefault(int(history[place]), []).append(model.decoder.state_behind(prompt.vectors)[0])
        states, counts = expected(model, batches)
    everything = torch.cat([torch.stack(rows) for rows in found.values()]).mean(0)
    assert set(states.any(1).nonzero().squeeze(1).tolist()) == set(found) and len(found) > 30
    assert counts.tolist() == [len(found.get(item, ())) for item in range(model.n_items)]
    for item, rows in found.items():
        wanted = (torch.stack(rows) - everything).sum(0) / (len(rows) + PRIOR_STATES)
        torch.testing.assert_close(states[item].double(), wanted, rtol=1e-4, atol=1e-6)


def expected(model, batches):
    """Where a model expects the items, by all targets of the batches."""
    return states_before_items(model.decoder, map(model.whole_windows, batches))


def histories(batches):
    """Number and whole training history of every user."""
    dataset = batches.dataset.histories
    for user, start, end in zip(dataset.users, dataset.offsets[:-1], dataset.offsets[1:]):
        yield torch.tensor(user), torch.from_numpy(np.asarray(dataset.items[start:end])).long()


# who gets which codes


@pytest.mark.parametrize(
    "model, arguments",
    [
        ("SIIT-states", ()),
        ("SIIT-states", ("--backbone=t5",)),
        ("SIIT-states", ("--semantic_ids=rkmeans",)),
        ("SIIT-states", ("--semantic_ids=pq",)),
        ("SIIT-states", ("--semantic_ids=clusters",)),
        ("SIIT-states", ("--semantic_ids=random", "--refinement=random")),
        ("SIIT-states", ("--num_codebooks=1",)),
        ("TokenRec-beam", ("--self_improve=True", "--refine_from=histories", "--refine_every=1", "--codebook_size=40")),
    ],
)
def test_identifiers_are_distinct_and_lead_back_to_their_items(model_and_batches, model, arguments):
    model, batches = model_and_batches(*arguments, model=model)
    none = model.decoder.item_codes.unknown_code
    for _ in range(2):
        before, old_trie = model.decoder.item_codes.codes.clone(), model.decoder.trie
        report = refine(model, batches)
        after = model.decoder.item_codes.codes
        has = after[:, 0] < none
        assert torch.equal(has, before[:, 0] < none)  # who has none stays without
        assert len(after[has].unique(dim=0)) == has.sum() == report["items"] and after[has].max() < none
        assert report["share_changed"] == pytest.approx((after != before)[has].any(1).double().mean().item(), abs=1e-4)
        assert model.decoder.trie is not old_trie
        items = has.nonzero().squeeze(1).tolist()
        assert [item_at(model.decoder.trie, codes) for codes in after[items].tolist()] == items


def test_items_that_are_expected_in_one_place_share_codes(model_and_batches, monkeypatch):
    model, batches = model_and_batches("--semantic_ids=rkmeans")
    place = torch.arange(model.n_items) % 4
    vectors = 5 * torch.eye(4, 16)[place] + 0.01 * torch.randn(model.n_items, 16)
    monkeypatch.setattr(
        "recbole_contrec.model.semantic_ids.self_improvement.states_before_items",
        lambda *_: Expected(vectors, torch.ones(model.n_items)),
    )
    monkeypatch.setattr(model, "quantise", few_codes)
    refine(model, batches)
    codes = model.decoder.item_codes.codes
    has = codes[:, 0] < NONE
    groups = {number: set(codes[has & (place == number), 0].tolist()) for number in range(4)}
    assert all(len(group) == 1 for group in groups.values()) and len(set.union(*groups.values())) == 4


def few_codes(vectors):
    """Residual k-means of vectors with four codes at the first level; any at the others."""
    first, rest = residual_kmeans(vectors, 1, 4), residual_kmeans(vectors, 2, NONE, 2020)
    return torch.cat([first.where(first < 4, NONE), rest[:, 1:]], dim=1)


def test_an_item_that_nothing_leads_to_takes_the_codes_of_what_is_read_alike(model_and_batches, monkeypatch):
    model, batches = model_and_batches()
    has = (model.decoder.item_codes.codes[:, 0] < NONE).nonzero().squeeze(1)
    alone, like = int(has[3]), int(has[8])
    vectors = torch.randn(model.n_items, 16).index_fill(0, torch.tensor([0, alone]), 0.0)
    monkeypatch.setattr(
        "recbole_contrec.model.semantic_ids.self_improvement.states_before_items",
        lambda *_: Expected(vectors, torch.ones(model.n_items)),
    )
    sums = torch.randn(model.n_items, 16)
    sums[alone] = sums[like] + 0.01
    monkeypatch.setattr(type(model.decoder.item_codes), "sums", lambda self: sums)
    codes, _, placed, _ = model.refine(batches)
    assert (
        torch.equal(placed[alone], placed[like]) and placed[like].any()
    )  # its place is no zero in the means of the codes
    assert torch.equal(codes[alone, :-1], codes[like, :-1]) and codes[alone, -1] != codes[like, -1]


@pytest.mark.parametrize("reading", ["sum", "own"])
def test_the_vectors_of_new_codes_lie_where_their_items_lay(model_and_batches, reading):
    model, batches = model_and_batches(f"--code_reading={reading}")
    batches, table = list(batches), model.decoder.item_codes  # cut into windows once
    read = table.read(table.codes).detach()  # [N, K, D]
    refined = model.refine(batches)
    expected = refined.vectors
    refine(model, batches)
    levels = table.codes.T
    left, scored = read[:, -1].clone(), expected.clone()
    for level, (codes, head) in enumerate(zip(levels, model.code_heads)):
        words = table.words.weight[table.first[level] :][:NONE]
        taken = torch.bincount(codes, weights=refined.counts.double(), minlength=NONE + 1)[:NONE]
        torch.testing.assert_close(
            head.bias.softmax(0).double(), (taken + 0.5) / (taken + 0.5).sum(), rtol=1e-4, atol=1e-6
        )
        assert not head.weight[[code for code in range(NONE) if code not in codes]].any()
        for code in set(codes[codes < NONE].tolist()):
            whose = codes == code
            wanted = (left if reading == "sum" else read[:, level])[whose].mean(0)
            torch.testing.assert_close(words[code], wanted, rtol=1e-4, atol=1e-5)
            mean = scored[whose].mean(0)
            assert mean.abs().max() < 1e-4 or torch.cosine_similarity(head.weight[code], mean, dim=0) > 0.999
            left[whose], scored[whose] = left[whose] - wanted, scored[whose] - mean


def test_a_state_scores_the_first_code_of_an_item_expected_there_high(model_and_batches):
    """In the space of the states, wherever its axes lie."""
    model, batches = model_and_batches()
    batches = list(batches)
    states = expected(model, batches).means
    refine(model, batches)
    items = states.any(1).nonzero().squeeze(1)
    ranks = (
        (
            (states[items] @ model.code_heads[0].weight.T).argsort(1, descending=True)
            == model.decoder.item_codes.codes[items, :1]
        )
        .double()
        .argmax(1)
    )  # 0 for the highest of up to 16
    assert ranks.double().mean() < 2


def test_identifiers_stay_where_a_last_code_cannot_tell_all_apart(model_and_batches, monkeypatch):
    model, batches = model_and_batches()
    before, words = model.decoder.item_codes.codes.clone(), model.decoder.item_codes.words.weight.clone()
    monkeypatch.setattr(model, "quantise", lambda vectors: torch.zeros(len(vectors), 2).long())
    report = refine(model, batches)
    assert "a last code tells only 16 apart" in report["failed"] and report["share_changed"] == 0
    assert torch.equal(model.decoder.item_codes.codes, before) and torch.equal(
        model.decoder.item_codes.words.weight, words
    )


def test_the_control_deals_the_same_identifiers_out_at_random(model_and_batches):
    (model, batches), (control, same) = model_and_batches(), model_and_batches("--refinement=random")
    wanted, report, *_ = model.refine(batches)
    drawn, drawn_report, *_ = control.refine(same)
    assert torch.equal(wanted.unique(dim=0), drawn.unique(dim=0)) and not torch.equal(wanted, drawn)
    assert report["share_changed"] == drawn_report["share_changed"] > 0.5


# what training keeps


def test_training_goes_on_from_the_average_with_no_memory_of_its_steps(staged):
    loaded = staged("SIIT-states", "--epochs=1", "--refine_rounds=0", "--ema_decay=0.9")
    trainer, model = loaded.trainer, loaded.model
    trainer.fit(loaded.data.train, loaded.data.valid, verbose=False, saved=False)
    trainer._train_epoch(loaded.data.train, 1)
    average = {name: tensor.clone() for name, tensor in trainer.average.average.items()}
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer.refine(2, loaded.data.train)
    now = dict(model.named_parameters())
    placed = {
        "item_codes.words.weight",
        *(f"code_heads.{level}.{part}" for level in range(3) for part in ("weight", "bias")),
    }
    assert all(torch.equal(now[name], average[name]) != (name in placed) for name in average)
    assert not all(torch.equal(own[name], average[name]) for name in average)
    assert not trainer.optimizer.state and trainer.average.steps == 0
    assert all(torch.equal(trainer.average.average[name], now[name]) for name in average)


@pytest.mark.parametrize("average", ["0", "0.9"])
def test_everything_is_as_before_where_new_identifiers_cost_too_much(staged, monkeypatch, average):
    loaded = staged("SIIT-states", "--refine_tolerance=0.1", "--refine_rounds=0", f"--ema_decay={average}")
    trainer, model = loaded.trainer, loaded.model
    trainer.fit(loaded.data.train, loaded.data.valid, verbose=False, saved=False)
    trainer._train_epoch(loaded.data.train, 3)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps, trainer.cur_step, trainer.progress.curve = len(trainer.optimizer.state), 2, [CurvePoint(3, 0.0, 0.0, 0.3)]
    monkeypatch.setattr(trainer, "_valid_epoch", lambda data: (0.1, {}))
    trainer.refine(4, loaded.data.train)
    (record,) = trainer.progress.refinements
    assert record["kept"] is False and record["valid_at_once"] == 0.1 and record["share_changed"] > 0
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert len(trainer.optimizer.state) == steps > 0 and trainer.cur_step == 2
    trainer.config["refine_tolerance"] = None
    trainer.refine(4, loaded.data.train)
    assert "kept" not in trainer.progress.refinements[1] and not trainer.optimizer.state and trainer.cur_step == 0


def test_a_refinement_that_fails_leaves_training_alone(staged, monkeypatch, caplog):
    loaded = staged("SIIT-states", "--refine_rounds=0")
    trainer, model = loaded.trainer, loaded.model
    trainer.fit(loaded.data.train, loaded.data.valid, verbose=False, saved=False)
    trainer._train_epoch(loaded.data.train, 3)
    weights, steps = {name: tensor.clone() for name, tensor in model.state_dict().items()}, len(trainer.optimizer.state)
    monkeypatch.setattr(model, "quantise", lambda vectors: torch.zeros(len(vectors), 2).long())
    trainer.refine(4, loaded.data.train)
    assert trainer.progress.refinements[0]["kept"] is False and "semantic ids stay as they are" in caplog.text
    trainer.config["refine_rounds"] = 1
    monkeypatch.setattr(trainer, "adopt", Recorded(trainer.adopt))
    trainer.between_rounds(5, loaded.data.train)  # tried again
    assert trainer.adopt.calls == 0 and len(trainer.progress.refinements) == 2
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert len(trainer.optimizer.state) == steps > 0


ROUNDS = ("--epochs=4", "--refine_every=2", "--refine_rounds=1", "--learning_rate=0.03", "--train_batch_size=64")


def test_a_killed_run_makes_the_same_identifiers(run_tiny, workplace, monkeypatch):
    whole = run_tiny("SIIT-states", *ROUNDS, "--run_name=whole")
    save_last = RunTrainer.save_state

    def save_and_die(self, now, train_data):
        save_last(self, now, train_data)
        if now == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunTrainer, "save_state", save_and_die)
        run_tiny("SIIT-states", *ROUNDS, "--run_name=killed")
    resumed = run_tiny("SIIT-states", *ROUNDS, "--run_name=killed", resume="saved/killed")
    (record,) = resumed["refinements"]
    assert record == whole["refinements"][0] and record["share_changed"] > 0.5 and record["epoch"] == 2
    assert resumed["test_result"] == whole["test_result"]
    one, other = (
        checkpoint.load(workplace / "saved" / name / "last.safetensors").tensors for name in ("whole", "killed")
    )
    assert torch.equal(one["model.item_codes.codes"], other["model.item_codes.codes"])


# settings


@pytest.mark.parametrize(
    "model, arguments, message",
    [
        (
            "SIIT-states",
            ("--refine_candidates=8", "--refine_margin=1"),
            "refine_candidates, refine_margin: not for refine_from=histories",
        ),
        (
            "TokenRec-beam",
            ("--self_improve=True", "--refine_from=histories", "--num_codebooks=1", "--codebook_size=40"),
            "refine_from=histories: .* needs a code",
        ),
        ("SIIT-states", ("--alignment_weight=0", "--item_descriptions=text"), "item_descriptions: nothing reads them"),
        ("TIGER", ("--refine_from=histories",), "refine_from: set self_improve=True as well"),
    ],
)
def test_settings_that_nothing_reads_are_refused(assembled, model, arguments, message):
    with pytest.raises(UserError, match=message):
        assembled(model, *arguments)


def test_without_alignment_nothing_of_it_is_trained(model_and_batches):
    model, batches = model_and_batches("--alignment_weight=0")
    assert model.calculate_loss(next(iter(batches)))._fields == ("codes",)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_axes_are_brought_to_one_scale(share):
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
    vectors = torch.randn(5000, 3, generator=generator) * torch.tensor([9.0, 4.0, 1.0]) @ rotation + 7
    vectors[:1000] = 0
    found = whitened(vectors, share)
    assert not found[:1000].any() and found[1000:].mean(0).abs().max() < 1e-3
    sizes = torch.linalg.svdvals(found[1000:]) / 4000**0.5
    torch.testing.assert_close(sizes, torch.tensor([9.0, 4.0, 1.0]) ** (1 - share), rtol=0.05, atol=0)
    along = found[1000:] @ rotation.T  # the axes stay where they are
    torch.testing.assert_close(along.std(0), torch.tensor([9.0, 4.0, 1.0]) ** (1 - share), rtol=0.05, atol=0)
    if not share:
        torch.testing.assert_close(found[1000:], vectors[1000:] - vectors[1000:].mean(0), rtol=1e-4, atol=1e-4)
