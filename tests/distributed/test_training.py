"""Several processes give the gradients, the losses and the model that one process gives."""

import json

import pytest

from recbole_contrec.storage import checkpoint
from tests.helpers.options import STILL_OF, TINY, TINY_OF, changed

STILL_RECBOLE = {
    "SASRec": ("--hidden_dropout_prob=0", "--attn_dropout_prob=0"),
    "GRU4Rec": ("--dropout_prob=0", "--hidden_size=16", "--embedding_size=16"),
    "SASRecAll": ("--hidden_dropout_prob=0", "--attn_dropout_prob=0", "--window_context=0"),
}
MODELS = ("ContRec", "DeftRec", "TokenRec", "TIGER", "SIIT-states", *STILL_RECBOLE)
SAMPLED = ("--ranking_negatives=20",)
PAIRS = ("--loss_type=BPR", "--train_neg_sample_args={'distribution':'uniform','sample_num':1}")
LAZY = (*SAMPLED, "--lazy_adam=True")
NO_REPULSION = {"ContRec": ("--dispersive_weight=0",), "DeftRec": ("--dispersive_weight=0",)}
ON_SAMPLES = (("SASRecAll", SAMPLED), ("SASRecAll", LAZY), ("ContRec", LAZY), ("TokenRec", LAZY))


def still(model, tiny, *more):
    """Arguments of a run in which nothing is drawn but windows."""
    given = STILL_RECBOLE.get(model) or STILL_OF[model]
    defaults = [*TINY_OF.get(model, TINY), f"--data_path={tiny}", *given, *NO_REPULSION.get(model, ())]
    return changed(defaults, ("--train_batch_size=100", *more))


def both(found):
    """What a job gave in the first process, once both have ended well."""
    assert [code for code, *_ in found] == [0, 0], found
    return found[0][2]


@pytest.mark.parametrize(
    "model, more, steps",
    [
        *((model, (), 1) for model in MODELS),
        ("SASRec", PAIRS, 1),
        ("ContRec", (), 3),
        ("SASRecAll", (), 3),
        *((model, more, 1) for model, more in ON_SAMPLES),
    ],
)
def test_gradients_are_those_of_one_process(together, tiny, workplace, model, more, steps):
    """Means over all targets, however the rows are dealt out, to processes and to parts: batches of uneven shares, and
    one of a single row."""
    found = both(together("gradients", workplace, model, still(model, tiny, *more), steps))
    for name, (difference, size) in found.items():
        assert size > 0 and difference < 1e-6 * size, (name, difference, size)


@pytest.mark.parametrize("model", ("SASRec", "SASRecAll", "TokenRec"))
def test_a_run_trains_as_in_one_process(together, tiny, workplace, run_tiny, model):
    """Stages, windows of every epoch, losses, clipping and the average of the weights."""
    average = () if model in ("SASRec", "GRU4Rec") else ("--ema_decay=0.9",)
    arguments = still(model, tiny, "--clip_grad_norm={'max_norm':0.1}", *average)
    with_two = both(together("run", workplace, model, [*arguments, "--run_name=two"]))
    alone = run_tiny(model, *arguments, "--run_name=one")
    for one, two in zip(alone["curve"], with_two["curve"]):
        assert two["score"] == pytest.approx(one["score"], abs=1e-3)
    losses = [checkpoint.load(workplace / "saved" / name / "last.safetensors") for name in ("one", "two")]
    assert [*losses[0].record["train_loss"].values()] == pytest.approx(
        [*losses[1].record["train_loss"].values()], rel=1e-5
    )
    for name, tensor in losses[0].tensors.items():
        if name in dict.fromkeys(losses[1].tensors) and tensor.is_floating_point() and tensor.numel():
            assert (tensor - losses[1].tensors[name]).abs().max() < 1e-3, name
    assert with_two["card"]["processes"] == 2 and "processes" not in alone["card"]


def test_processes_share_histories_on_disk_and_train_the_same_model(together, tiny, workplace):
    """To the last bit; the first process alone writes."""
    arguments = still("SASRecAll", tiny)
    in_memory = both(together("run", workplace, "SASRecAll", [*arguments, "--run_name=memory"]))
    found = together("run", workplace, "SASRecAll", [*arguments, "--run_name=disk", "--histories_on_disk=True"])
    assert both(found)["test_result"] == in_memory["test_result"]
    folder = workplace / "saved" / "stages" / "histories"
    assert len([*folder.glob("*.npy")]) == len([*folder.iterdir()]) == 5
    assert "stays in memory" not in found[0][1] + found[1][1]
    states = [checkpoint.load(workplace / "saved" / name / "last.safetensors") for name in ("memory", "disk")]
    assert states[0].record["train_loss"] == states[1].record["train_loss"]
    for name, tensor in states[0].tensors.items():
        assert tensor.equal(states[1].tensors[name]), name


@pytest.mark.parametrize("model", ("SIIT-states", "SIIT"))
def test_all_processes_take_over_the_semantic_ids_of_a_refinement(together, tiny, workplace, model):
    """Each evaluates its users by its own model: half of the ranks would differ from those of the saved one."""
    from recbole_contrec.quick_start import load_data_and_model

    result = both(together("run", workplace, model, [*TINY_OF[model], f"--data_path={tiny}"]))
    assert [record["epoch"] for record in result["refinements"]] == [1]
    loaded = load_data_and_model(result["checkpoint"])
    alone = loaded.trainer.evaluate(loaded.data.test, load_best_model=False)
    assert result["test_result"] == pytest.approx(dict(alone), abs=1e-4)


def test_the_first_process_alone_speaks_and_writes(together, tiny, workplace):
    """One folder, one log, one file of TensorBoard; result, checkpoints and stages as ever."""
    found = together("run", workplace, "ContRec", [*still("ContRec", tiny), "--output=result.json"])
    result = both(found)
    assert "epoch 1 training" in found[0][1] and found[1][1] == ""
    (folder,) = (path for path in (workplace / "saved").iterdir() if path.name != "stages")
    assert {path.name for path in folder.iterdir()} == {
        "best.safetensors",
        "last.safetensors",
        "result.json",
        "test_ranks.npz",
    }
    assert json.loads((workplace / "result.json").read_text()) == json.loads(json.dumps(result))
    assert len([*(workplace / "log").rglob("*.log")]) == 1
    assert len([*(workplace / "log_tensorboard").rglob("events.*")]) in (1, 2)  # the second holds the settings
    assert len([*(workplace / "saved" / "stages").iterdir()]) == 4


@pytest.mark.parametrize(
    "model, more, message",
    [
        ("BERT4Rec", (), "BERT4Rec trains in one process only"),
        ("BPR", (), "BPR trains in one process only"),
        ("Pop", (), "Pop trains in one process only"),
    ],
)
def test_what_is_not_known_to_be_the_same_is_refused(together, tiny, workplace, model, more, message):
    for code, said, _ in together("run", workplace, model, [*TINY, f"--data_path={tiny}", *more]):
        assert code == 2 and message in said
    assert not (workplace / "saved").exists() and not (workplace / "log").exists()
