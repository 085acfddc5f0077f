"""A run whose histories lie on disk is the run that has them in memory, to the last bit."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_contrec.data.interactions import Interactions
from recbole_contrec.data.loading import load_data
from recbole_contrec.quick_start import load_data_and_model
from recbole_contrec.storage import checkpoint
from recbole_contrec.training.trainer import RunTrainer

ON_DISK = "--histories_on_disk=True"
SPLIT = "--eval_args={'split': {'RS': [0.8, 0.1, 0.1]}}"


def in_a_file(array):
    """Whether the numbers of an array, which may be those of a tensor, lie in a mapped file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= array.ctypes.data < last:
            return line.endswith(".npy")
    return False


def files(workplace):
    return {path.name for path in (workplace / "saved" / "stages" / "histories").glob("*")}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is mapped")
@pytest.mark.parametrize("more", [(), (SPLIT,)], ids=["leave one out", "shares"])
def test_all_that_has_a_number_for_each_interaction_is_read_from_files(config_of, workplace, more):
    data, plain = (load_data(config_of("ContRec", *more, *on_disk)) for on_disk in ((ON_DISK,), ()))
    trained = data.train_dataset
    tables = [data.dataset.inter_feat, trained.inter_feat]
    held = [column.numpy() for table in tables for column in table.interaction.values()]
    held += [trained.histories.items, *data.dataset.all_interactions, *trained.histories.pairs()[1:]]
    held += [column.numpy() for part in (data.valid, data.test) for column in part.dataset.inter_feat._events.values()]
    assert all(map(in_a_file, held))
    for ours, theirs in zip(trained.histories, plain.train_dataset.histories):
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    for name in ("train", "valid", "test"):
        for ours, theirs in zip(getattr(data, name), getattr(plain, name), strict=True):
            for one, other in zip(*(row if isinstance(row, tuple) else (row,) for row in (ours, theirs))):
                pairs = [(one, other)] if torch.is_tensor(one) else []
                pairs += [(one[field], other[field]) for field in getattr(one, "interaction", ())]
                assert all(torch.equal(*pair) for pair in pairs)


def test_another_file_filter_or_split_has_files_of_its_own(config_of, workplace, tiny):
    known = set()
    for change in ((), ("--user_inter_num_interval=[9,inf)",), (SPLIT,), "file"):
        if change == "file":
            change, path = (), tiny / "tiny" / "tiny.inter"
            head, *rows = path.read_text().splitlines(keepends=True)
            path.write_text("".join([head, *rows[::-1]]))
            changed = [row.split("\t") for row in rows]
            changed[0][1], changed[1][1] = changed[1][1], changed[0][1]
            path.write_text("".join([head, *("\t".join(row) for row in changed)]))
        before = files(workplace)
        load_data(config_of("ContRec", ON_DISK, *change))
        assert files(workplace) - before, change
        known = files(workplace)
        load_data(config_of("ContRec", ON_DISK, *change))
        assert files(workplace) == known


def test_a_run_is_the_same_to_the_last_bit_and_goes_on_either_way(run_tiny, workplace, monkeypatch, caplog):
    """Stopped after two of four epochs in one way, it goes on in the other."""
    plain = run_tiny("ContRec", "--epochs=4", "--run_name=plain")
    whole = run_tiny("ContRec", "--epochs=4", "--run_name=whole", ON_DISK)
    save = RunTrainer.save_state

    def save_and_die(self, epoch, train_data):
        save(self, epoch, train_data)
        if epoch == 1:
            raise KeyboardInterrupt

    results, names = [plain, whole], ["plain", "whole"]
    for name, first, later in (("to disk", "False", "True"), ("from disk", "True", "False")):
        with monkeypatch.context() as patch:
            patch.setattr(RunTrainer, "save_state", save_and_die)
            with pytest.raises(KeyboardInterrupt):
                run_tiny("ContRec", "--epochs=4", f"--run_name={name}", f"--histories_on_disk={first}")
        given = f"--histories_on_disk={later}"
        with caplog.at_level(logging.WARNING):
            results.append(run_tiny("ContRec", "--epochs=4", given, resume=f"saved/{name}"))
        assert results[-1]["settings"]["histories_on_disk"] is (later == "True")
        names.append(name)
    assert "may not be those of an uninterrupted run" not in caplog.text
    stored = [checkpoint.load(workplace / "saved" / name / "last.safetensors") for name in names]
    for result, other in zip(results, stored):
        for key in ("best_valid_result", "best_valid_score", "best_epoch", "test_result"):
            assert result[key] == plain[key]
        assert other.record["train_loss"] == stored[0].record["train_loss"]
        assert other.record["data"] == stored[0].record["data"]
        for name, tensor in stored[0].tensors.items():
            assert torch.equal(tensor, other.tensors[name]), name
    before = files(workplace)
    assert before and load_data_and_model("saved/whole").config["histories_on_disk"] and files(workplace) == before


def test_a_model_that_is_loaded_from_elsewhere_reads_the_files_of_its_run(run_tiny, workplace, monkeypatch):
    run_tiny("SASRecAll", "--epochs=1", "--run_name=a", ON_DISK)
    before, elsewhere = files(workplace), workplace / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    load_data_and_model("../saved/a")
    assert not [*elsewhere.iterdir()] and files(workplace) == before
    monkeypatch.chdir(workplace / "saved" / "a")
    load_data_and_model("best.safetensors")
    assert not (workplace / "saved" / "a" / "saved").exists() and files(workplace) == before
    load_data_and_model("best.safetensors", {"checkpoint_dir": str(elsewhere)})
    assert files(workplace) == before == {path.name for path in (elsewhere / "stages" / "histories").iterdir()}


def test_a_run_without_the_files_it_cannot_write_goes_on_in_memory(run_tiny, workplace, caplog):
    plain = run_tiny("SASRecAll", "--run_name=plain")
    place = workplace / "saved" / "stages" / "histories"
    place.parent.mkdir(exist_ok=True)
    place.touch()
    assert run_tiny("SASRecAll", ON_DISK, "--run_name=full")["test_result"] == plain["test_result"]
    assert "item_id stays in memory: cannot write" in caplog.text


@pytest.mark.parametrize("model, more", [("SASRecAll", ()), ("TIGER", ("--first_n=5",))])
def test_interactions_in_order_are_those_of_the_table_that_was_read(config_of, tiny, model, more):
    """Also where times are the same, in which the order of the file counts."""
    path = tiny / "tiny" / "tiny.inter"
    head, *rows = path.read_text().splitlines()
    place = head.split("\t").index("timestamp:float")
    cells = [row.split("\t") for row in rows]
    for number, row in enumerate(cells):
        row[place] = str(number % 3)
    path.write_text("\n".join([head, *("\t".join(row) for row in cells[::-1])]) + "\n")
    config = config_of(model, *more)
    wanted, build = [], config.entry.dataset_class.build

    def watched(dataset):
        wanted.append(Interactions.of(dataset))
        return build(dataset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config.entry.dataset_class, "build", watched)
        found = load_data(config).dataset.all_interactions
    for column, expected in zip(found, wanted[0]):
        assert column.dtype == expected.dtype and np.array_equal(column, expected)
