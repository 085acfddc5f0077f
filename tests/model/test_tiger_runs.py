"""Whole runs of TIGER: it learns, and its checkpoints give the same numbers and lists."""

from pathlib import Path

import pytest

from recbole_contrec import load_data_and_model, recommend
from recbole_contrec.storage import checkpoint
from tests.helpers.files import write_atomic_files
from tests.helpers.options import TINY_TIGER, changed

BACKBONES = ["causal", "t5"]


@pytest.fixture(scope="module", params=BACKBONES)
def trained(request, tmp_path_factory):
    """The result of a run that has learned."""
    from recbole_contrec.quick_start import run

    place = tmp_path_factory.mktemp(request.param)
    write_atomic_files(place / "data")
    arguments = [
        "--epochs=20",
        "--eval_step=20",
        "--learning_rate=0.01",
        "--train_batch_size=64",
        "--dropout=0",
        f"--backbone={request.param}",
        "--sampled_prefixes=4",
        f"--data_path={place / 'data'}",
        f"--checkpoint_dir={place / 'saved'}",
        "--ema_decay=0.9",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return run("TIGER", "tiny", arguments=changed(TINY_TIGER, arguments))


def test_it_learns(trained):
    assert trained["test_result"]["hit@5"] > 0.5  # 60 items; popularity reaches a fifth of that


def test_a_checkpoint_from_before_a_setting_says_how_it_is_read(trained, workplace, caplog):
    load_data_and_model(trained["checkpoint"])
    assert "version without" not in caplog.text
    tensors, record = checkpoint.load(trained["checkpoint"])
    del record["settings"]["code_reading"], record["format"]
    checkpoint.save(Path("old.safetensors"), tensors, record)
    assert load_data_and_model("old.safetensors").model.decoder.item_codes.cumulative
    assert "old.safetensors was written by a version without code_reading='sum': give other values" in caplog.text
    assert not load_data_and_model("old.safetensors", {"code_reading": "own"}).model.decoder.item_codes.cumulative


def test_a_checkpoint_gives_the_same_numbers_and_lists(trained, workplace):
    loaded = load_data_and_model(trained["checkpoint"])
    assert loaded.trainer.evaluate(loaded.data.test, load_best_model=False) == trained["test_result"]
    assert trained["refinements"] == []
    table = recommend(loaded, users=["u3", "u5"], histories=[["i1", "i2"]], k=25)
    assert len(table) == 75 and table["item_id"].notna().all()
    assert not set(table["item_id"][50:]) & {"i1", "i2"}
    assert {"i3", "i4"} & set(table["item_id"][50:53])  # everybody walks in steps of one or two
    everything = recommend(loaded, histories=[["i1", "i2"]], k=60, exclude_seen=False)
    assert {"i1", "i2"} <= set(everything["item_id"])
