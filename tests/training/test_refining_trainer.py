"""Training in rounds: a refinement is judged at once and later, taken back where ranking gets worse, and a killed run
goes on."""

import pytest
import torch

from recbole_contrec import load_data_and_model
from recbole_contrec.interface import Refined
from recbole_contrec.model.semantic_ids import SelfImprovement
from recbole_contrec.storage import checkpoint
from recbole_contrec.storage.progress import CurvePoint
from recbole_contrec.training.trainer import RunTrainer
from recbole_contrec.training.window_trainer import WindowTrainer
from tests.helpers.files import write_atomic_files
from tests.helpers.options import TINY_SIIT, changed
from tests.model.test_self_improvement import NONE, known


@pytest.mark.parametrize(
    "bigger, scores, kept",
    [
        (True, [0.1, 0.3, 0.2, 0.25], False),
        (True, [0.1, 0.3, 0.2, 0.3], True),
        (True, [0.1, 0.3, 0.4, 0.2], True),
        (False, [0.3, 0.1, 0.2, 0.4], False),
        (False, [0.3, 0.2, 0.1, 0.1], True),
        (True, [0.1, 0.3], None),
    ],
)
def test_a_refinement_is_judged_by_the_best_validation_before_and_after(assembled, monkeypatch, bigger, scores, kept):
    trainer, done = assembled("SIIT").trainer, []
    monkeypatch.setattr(trainer, "refine", lambda *_: done.append("refine"))
    monkeypatch.setattr(trainer, "take_back", lambda: done.append("take back"))
    trainer.valid_metric_bigger, trainer.best_is_saved = bigger, True
    trainer.progress.curve = [CurvePoint(epoch, 0.0, 0.0, score) for epoch, score in enumerate(scores)]
    trainer.progress.refinements = [{"epoch": 2}]
    trainer.between_rounds(4, None)
    assert trainer.progress.refinements[0].get("kept") == kept
    assert done == (["take back"] if kept is False else ["refine"])
    if kept is False:
        trainer.between_rounds(6, None)  # judged once
        assert done == ["take back", "refine"]


ROUNDS = (
    "--epochs=9",
    "--refine_every=4",
    "--refine_rounds=1",
    "--learning_rate=0.03",
    "--train_batch_size=64",
    "--dropout=0",
    "--ema_decay=0.9",
    "--final_learning_rate_ratio=1",
    "--beam_size=60",
    "--valid_metric=MRR@10",
)


def permuted(improvement, model, batches):
    """Identifiers of others for everybody: a planted refinement that is none."""
    codes = model.decoder.item_codes.codes.clone()
    has = (codes[:, 0] < NONE).nonzero().squeeze(1)
    codes[has] = codes[has[torch.randperm(len(has))]]
    return Refined(codes, {"share_changed": 1.0})


def test_a_bad_refinement_is_taken_back(run_tiny, workplace, monkeypatch):
    set_learning_rate = WindowTrainer.set_learning_rate

    def learn_half_of_the_time(self, progress):  # so that what is spoiled is not learned again
        set_learning_rate(self, progress)
        for group in self.optimizer.param_groups:
            group["lr"] *= progress < 4 / 9

    monkeypatch.setattr(WindowTrainer, "set_learning_rate", learn_half_of_the_time)
    monkeypatch.setattr(SelfImprovement, "refine", permuted)
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
    trainer, codes, scores = loaded.trainer, loaded.model.decoder.item_codes.codes, iter([0.3, 0.2, 0.1])
    trainer.folder.mkdir(parents=True)
    (trainer.folder / "best.safetensors").write_bytes(b"of another run")
    trainer.claimed = True  # as no run finds it today
    at_first = codes.clone()
    monkeypatch.setattr(SelfImprovement, "refine", permuted)
    monkeypatch.setattr(trainer, "_valid_epoch", lambda *_, **__: (next(scores, 0.1), {"ndcg@10": 0.0}))
    monkeypatch.setattr(trainer, "between_rounds", between := Recorded(trainer.between_rounds))
    trainer.config["refine_tolerance"] = None
    trainer.fit(loaded.data.train, loaded.data.valid, verbose=False, saved=saved)
    (record,) = trainer.progress.refinements
    assert between.calls == 2 and not record["kept"] and record["valid_before"] == 0.3 and torch.equal(codes, at_first)


class Recorded:
    """A function that counts its calls."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *arguments):
        self.calls += 1
        return self.function(*arguments)


@pytest.mark.parametrize(
    "tolerance, bigger, at_once, kept",
    [
        ("0.1", True, 0.26, False),
        ("0.1", True, 0.28, None),
        ("0.5", True, 0.16, None),
        ("~", True, 0.0, None),
        ("0.1", False, 0.34, False),
        ("0.1", False, 0.32, None),
        ("0", True, 0.29, False),
        ("0", True, 0.3, None),
    ],
)
def test_what_costs_too_much_at_once_is_not_done(staged, monkeypatch, tolerance, bigger, at_once, kept):
    loaded = staged("SIIT", f"--refine_tolerance={tolerance}")
    trainer, codes = loaded.trainer, loaded.model.decoder.item_codes.codes
    trainer.valid_metric_bigger, trainer.progress.curve, trainer.cur_step = bigger, [CurvePoint(0, 0.0, 0.0, 0.3)], 2
    before = codes.clone()
    monkeypatch.setattr(SelfImprovement, "refine", permuted)
    monkeypatch.setattr(trainer, "_valid_epoch", lambda data: (at_once if data is loaded.data.valid else None, {}))
    trainer.refine(1, loaded.data.train)
    (record,) = trainer.progress.refinements
    assert record["valid_at_once"] == at_once and record.get("kept") == kept
    assert trainer.cur_step == (2 if kept is False else 0)  # nothing to wait for where it is undone
    assert torch.equal(codes, before) == (kept is False)


def test_identifiers_are_written_and_judged_by_the_weights_that_count(staged, monkeypatch):
    loaded = staged("SIIT")
    trainer = loaded.trainer
    for average in trainer.average.average.values():
        average.fill_(0.5)
    trainer.progress.curve, seen = [CurvePoint(0, 0.0, 0.0, 0.3)], []

    def look(*_):
        seen.append(all((p == 0.5).all() for p in trainer.average.parameters.values()))
        return Refined(loaded.model.decoder.item_codes.codes, {}) if len(seen) == 1 else (0.3, {})

    monkeypatch.setattr(SelfImprovement, "refine", look)
    monkeypatch.setattr(trainer, "_valid_epoch", look)
    trainer.refine(1, loaded.data.train)
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
    trainer.take_back()
    assert torch.equal(weights, best)


def test_only_models_that_improve_themselves_keep_their_best_in_memory(staged):
    loaded = staged("TIGER", "--epochs=1")
    loaded.trainer.fit(loaded.data.train, loaded.data.valid, verbose=False, saved=False)
    assert loaded.trainer.best_in_memory is None


def test_patience_starts_anew_where_a_refinement_is_taken_back(staged):
    trainer = staged("SIIT").trainer
    trainer._save_checkpoint(0)
    trainer.cur_step = 3
    trainer.take_back()
    assert trainer.cur_step == 0 and trainer.best_is_saved


def test_a_good_refinement_is_kept(run_tiny, workplace, monkeypatch):
    """What changes nothing lets training go on getting better."""
    monkeypatch.setattr(
        SelfImprovement, "refine", lambda _, model, __: Refined(model.decoder.item_codes.codes, {"share_changed": 0.0})
    )
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
    save_last = RunTrainer.save_state

    def save_and_die(self, now, train_data):
        save_last(self, now, train_data)
        if now == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunTrainer, "save_state", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        run_tiny("SIIT", *TWO_ROUNDS)
    monkeypatch.setattr(RunTrainer, "save_state", save_last)
    resumed, result = run_tiny("SIIT", *TWO_ROUNDS, resume="saved/run"), whole[1]
    assert resumed["refinements"] == result["refinements"] and resumed["test_result"] == result["test_result"]
    assert [(point["epoch"], point["score"]) for point in resumed["curve"]] == [
        (point["epoch"], point["score"]) for point in result["curve"]
    ]


@pytest.mark.parametrize("killed_in", ["_save_checkpoint", "save_state"])
def test_a_run_killed_between_two_saves_of_an_epoch_goes_back_to_its_own_best(
    run_tiny, workplace, monkeypatch, killed_in
):
    """Epoch 2 begins by taking a refinement back, and is the best so far."""
    scores, validate, save = (
        {0: 0.3, 1: 0.2, 2: 0.4, 3: 0.35},
        RunTrainer._validate_and_log,
        getattr(RunTrainer, killed_in),
    )
    arguments = ("--epochs=4", "--refine_every=1", "--refine_rounds=1", "--learning_rate=0.03", "--refine_tolerance=~")

    def planted(self, data, epoch, *rest, **more):
        self._valid_epoch = lambda *_, **__: (scores[epoch], {"ndcg@10": scores[epoch]})
        try:
            return validate(self, data, epoch, *rest, **more)
        finally:
            del self._valid_epoch

    def die(self, epoch, *rest, **more):
        if killed_in == "_save_checkpoint":
            save(self, epoch, *rest, **more)
        if epoch == 2:
            raise KeyboardInterrupt
        if killed_in == "save_state":
            save(self, epoch, *rest, **more)

    monkeypatch.setattr(RunTrainer, "_validate_and_log", planted)
    run_tiny("SIIT", *arguments, "--run_name=whole")
    monkeypatch.setattr(RunTrainer, killed_in, die)
    with pytest.raises(KeyboardInterrupt):
        run_tiny("SIIT", *arguments, "--run_name=cut")
    monkeypatch.setattr(RunTrainer, killed_in, save)
    run_tiny("SIIT", *arguments, "--run_name=cut", resume="saved/cut")
    for name in ("best", "last"):
        one, other = (checkpoint.load(workplace / "saved" / run / f"{name}.safetensors") for run in ("whole", "cut"))
        models = [
            {key: tensor for key, tensor in found.tensors.items() if key.startswith(("model.", "average."))}
            for found in (one, other)
        ]
        assert models[0].keys() == models[1].keys() and all(
            torch.equal(models[0][key], models[1][key]) for key in models[0]
        )
        assert one.record["epoch"] == other.record["epoch"]
    assert one.record["refinements"] == other.record["refinements"] and one.record["refinements"][0]["kept"] is False
    assert not list((workplace / "saved").rglob("*before*"))


def test_nothing_is_refined_where_it_is_not_wished(run_tiny, monkeypatch):
    monkeypatch.setattr(SelfImprovement, "refine", lambda *_: pytest.fail("refined"))
    assert run_tiny("TIGER", "--epochs=3")["refinements"] == []


def test_other_models_that_generate_identifiers_improve_them(run_tiny):
    result = run_tiny(
        "TokenRec-beam",
        "--self_improve=True",
        "--refine_every=1",
        "--refine_rounds=1",
        "--epochs=3",
        "--run_name=other",
    )
    (record,) = result["refinements"]
    assert record["epoch"] == 1 and "kept" in record and record["collisions"] == 0 and record["share_changed"] > 0
    codes = load_data_and_model(result["checkpoint"]).model.decoder.item_codes
    codes = codes.codes[codes.codes[:, 0] < codes.unknown_code]
    assert len(codes.unique(dim=0)) == len(codes)
