"""Runs that were killed and go on, and checkpoints that are others than a run's own."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from recbole_contrec.errors import UserError
from recbole_contrec.quick_start import load_data_and_model
from recbole_contrec.storage import checkpoint
from tests.helpers.earlier import take_from_the_record
from tests.helpers.files import write_atomic_files
from tests.helpers.options import TINY_CONTREC, changed

# resume

TRAIN = """
import os, sys
sys.argv = ["x"]
import torch; torch.set_num_threads(1)
from recbole_contrec.quick_start import run
from recbole_contrec.training.window_trainer import WindowTrainer
if os.environ.get("SLOW"):  # time for a kill in the middle of an epoch
    import time
    base = WindowTrainer.set_learning_rate
    def slow(self, progress):
        time.sleep(0.05 if progress > 0.5 else 0)
        base(self, progress)
    WindowTrainer.set_learning_rate = slow
run("ContRec", "tiny", arguments={arguments!r}, resume=os.environ.get("RESUME"))
"""


ANSWERING = ("--answer_weight=0.3", "--prompt_text=bag", "--text_bonus=0.1", "--vocabulary_size=300")


@pytest.mark.parametrize(
    "model, arguments",
    [
        ("ContRec", ()),
        ("SASRec", ()),
        ("ContRec", ("--learning_rate=1e-12",)),
        ("ContRec", ANSWERING),
        ("ContRec", (*ANSWERING, "--condition_on=answer")),
    ],
    ids=["ContRec", "SASRec", "the first epoch stays the best", "answers", "behind answers"],
)
def test_a_resumed_run_equals_an_uninterrupted_one_in_process(run_tiny, workplace, model, arguments):
    """Stopped after two of four epochs, as a kill between epochs does."""
    whole = run_tiny(model, "--epochs=4", "--run_name=whole", *arguments)

    from recbole_contrec.training.trainer import RunTrainer

    save_last = RunTrainer.save_state

    def save_and_die(self, epoch, train_data):
        save_last(self, epoch, train_data)
        if epoch == 1:
            raise KeyboardInterrupt

    RunTrainer.save_state = save_and_die
    try:
        with pytest.raises(KeyboardInterrupt):
            run_tiny(model, "--epochs=4", "--run_name=cut", *arguments)
    finally:
        RunTrainer.save_state = save_last
    resumed = run_tiny(model, "--epochs=4", *arguments, resume="saved/cut")
    assert resumed["test_result"] == whole["test_result"] and resumed["settings"] == whole["settings"]
    assert resumed["best_valid_result"] == whole["best_valid_result"] and resumed["best_epoch"] == whole["best_epoch"]
    curves = [[(point["epoch"], point["score"]) for point in result["curve"]] for result in (whole, resumed)]
    best = whole["best_valid_score"]
    if chosen := whole["chosen_on_validation"].get("text_similarity"):
        best = chosen["valid_scores"]["0"]  # the epoch is chosen before what the texts add
        assert whole["best_valid_score"] == max(chosen["valid_scores"].values())
    assert resumed["chosen_on_validation"] == whole["chosen_on_validation"]
    assert curves[0] == curves[1] and curves[0][whole["best_epoch"]] == (whole["best_epoch"], best)
    for clock in ("seconds", "core_seconds"):
        seconds = [point[clock] for point in resumed["curve"]]
        assert len(seconds) == 4 and seconds == sorted(seconds) and seconds[0] > 0
    last = [checkpoint.load(workplace / "saved" / name / "last.safetensors") for name in ("whole", "cut")]
    for name, tensor in last[0].tensors.items():
        assert torch.equal(tensor, last[1].tensors[name]), name


def test_kill_9_in_an_epoch_then_resume(tiny, workplace):
    arguments = [*changed(TINY_CONTREC, ["--epochs=6", "--train_batch_size=30"]), f"--data_path={tiny}"]

    def start(name, **environment):
        code = TRAIN.format(arguments=[*arguments, f"--run_name={name}", f"--output={name}.json"])
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=workplace,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )

    def finish(process):
        error = process.communicate(timeout=120)[1]
        assert process.returncode == 0, error.decode()[-2000:]

    finish(start("whole"))
    killed = start("cut", SLOW="1")
    last = workplace / "saved" / "cut" / "last.safetensors"
    deadline = time.monotonic() + 90
    while not (last.exists() and checkpoint.load(last).record["epoch"] >= 3):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (workplace / "cut.json").exists()
    finish(start("cut", RESUME=str(last.parent)))
    whole, resumed = (json.loads((workplace / f"{name}.json").read_text()) for name in ("whole", "cut"))
    assert resumed["test_result"] == whole["test_result"] and resumed["best_valid_result"] == whole["best_valid_result"]
    assert resumed["epochs"] == whole["epochs"] == 6


# checkpoints of something else


def test_foreign_checkpoints_are_refused(run_tiny, workplace):
    result = run_tiny("ContRec", "--epochs=1")
    folder = os.path.dirname(result["checkpoint"])
    with pytest.raises(UserError, match="checkpoint of ContRec, not of SASRec"):
        run_tiny("SASRec", resume=folder)
    write_atomic_files(workplace / "elsewhere", n_users=30, seed=3)
    with pytest.raises(UserError, match="trained on 'tiny'.*use the same data"):
        run_tiny("ContRec", f"--data_path={workplace / 'elsewhere'}", resume=folder)
    with pytest.raises(UserError, match="was trained with hidden_size=16: resume with the same settings"):
        run_tiny("ContRec", "--hidden_size=32", resume=folder)
    with pytest.raises(UserError, match="holds a model only"):
        run_tiny("ContRec", resume=result["checkpoint"])
    with pytest.raises(UserError, match="there is no checkpoint"):
        run_tiny("ContRec", resume="nowhere")


def test_checkpoints_hold_no_pickle(run_tiny, workplace):
    run_tiny("SASRec", "--epochs=1")
    files = [path for path in (workplace / "saved").rglob("*") if path.is_file()]
    assert files and {path.suffix for path in files} <= {".safetensors", ".npz", ".json"}


def test_a_stage_is_no_checkpoint(run_tiny, workplace):
    run_tiny("ContRec", "--epochs=1")
    with pytest.raises(UserError, match="holds no model"):
        load_data_and_model(str(next((workplace / "saved" / "stages").glob("*.safetensors"))))


def test_a_resumed_run_keeps_the_settings_of_the_first(run_tiny, workplace):
    run_tiny("ContRec", "--epochs=1", "--seed=5", "--learning_rate=0.01", "--run_name=first")
    from recbole_contrec.quick_start import run as plain_run

    result = plain_run("ContRec", "tiny", arguments=["--epochs=2"], resume="saved/first")
    assert result["settings"]["seed"] == 5 and result["settings"]["learning_rate"] == 0.01
    assert result["epochs"] == 2 and result["seconds"]["training"] > 0
    with pytest.raises(UserError, match="seed=5"):
        plain_run("ContRec", "tiny", arguments=["--seed=6"], resume="saved/first")


def test_a_run_of_before_fast_dropout_goes_on_with_the_random_numbers_that_it_had(run_tiny, workplace):
    whole = run_tiny("SASRec", "--fast_dropout=False", "--epochs=3", "--run_name=whole")
    run_tiny("SASRec", "--fast_dropout=False", "--epochs=2", "--run_name=cut")
    take_from_the_record(workplace / "saved" / "cut", "fast_dropout")
    resumed = run_tiny("SASRec", "--epochs=3", "--run_name=cut", resume=str(workplace / "saved" / "cut"))
    assert resumed["test_result"] == whole["test_result"]
    assert run_tiny("SASRec", "--epochs=3")["test_result"] != whole["test_result"], "others, or this shows nothing"
