"""The same seed and settings give the same bits: in another process, with stages found, killed anywhere and resumed."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from conftest import TINY, TINY_OF, changed, write_atomic_files
from killing import DIED, Runner, counted
from recbole_contrec.errors import UserError
from recbole_contrec.quick_start import load_data_and_model, run
from recbole_contrec.training import checkpoint, lock
from recbole_contrec.training.stages import Stage, StageResult, run_stages

SMALL = ("--epochs=3", "--train_batch_size=300", "--run_name=run")
SMALL_SASREC = ("--hidden_size=16", "--inner_size=16", "--n_layers=1")
RUNS = {  # one for each trainer, and for what draws numbers of its own
    "SASRec": ("SASRec", SMALL_SASREC), "LightGCN": ("LightGCN", ("--embedding_size=8",)),
    "sampled evaluation": ("BPR", ("--embedding_size=8", "--eval_args={'mode':'uni20'}")),
    "answers": ("ContRec", ("--answer_weight=0.3", "--prompt_text=bag", "--text_bonus=0.1", "--vocabulary_size=300")),
    "SASRecAll": ("SASRecAll", SMALL_SASREC), "DeftRec": ("DeftRec", ()), "TokenRec": ("TokenRec", ()), "TIGER": ("TIGER", ()),
    "SIIT": ("SIIT", ("--beam_size=5",))}
CLOCKS = ("run", "run_name", "seconds", "core_seconds", "epoch_seconds", "training_seconds", "found_on_disk", "test_users_per_second",
          "peak_memory_mib", "checkpoint", "checkpoint_dir")


@pytest.fixture(scope="module")
def runner():
    started = Runner()
    yield started
    started.close()


def timeless(content):
    """JSON-like content without clocks and places."""
    if isinstance(content, dict):
        return {key: timeless(value) for key, value in content.items() if key not in CLOCKS}
    return [timeless(value) for value in content] if isinstance(content, (list, tuple)) else content


def assert_same_bits(one, other):
    """Two folders of runs hold the same: every tensor of the best model and of the state behind the last epoch, what was said,
    and the rank of every target."""
    for name in ("best.safetensors", "last.safetensors"):
        found = [checkpoint.load(folder / name) for folder in (one, other)]
        assert found[0].tensors.keys() == found[1].tensors.keys()
        for key, tensor in found[0].tensors.items():
            again = found[1].tensors[key]
            assert (tensor.dtype, tensor.shape) == (again.dtype, again.shape), key
            assert torch.equal(tensor.contiguous().flatten().view(torch.uint8), again.contiguous().flatten().view(torch.uint8)), key
        records = [{**timeless(checkpoint_of.record), "curve": [(point[0], point[3]) for point in checkpoint_of.record.get("curve", ())]}
                   for checkpoint_of in found]
        assert records[0] == records[1]
    results = [timeless(json.loads((folder / "result.json").read_text())) for folder in (one, other)]
    assert results[0] == results[1]
    ranks = [dict(np.load(path)) if (path := folder / "test_ranks.npz").is_file() else {} for folder in (one, other)]
    assert ranks[0].keys() == ranks[1].keys() and all(np.array_equal(ranks[0][key], ranks[1][key]) for key in ranks[0])


@pytest.mark.parametrize("name", RUNS)
def test_the_same_bits_whether_stages_are_found_or_a_run_is_killed(tiny, workplace, runner, name):
    model, own = RUNS[name]
    arguments = changed(TINY_OF.get(model, TINY), [*SMALL, *own, f"--data_path={tiny}"])
    with counted() as happened:
        whole = run(model, "tiny", arguments=arguments)
    saved = workplace / "saved"
    if whole["stages"]:
        assert runner(workplace, model, changed(arguments, ["--run_name=found"]))[0] == 0
        assert_same_bits(saved / "run", saved / "found")

    draw = random.Random(name)
    first = happened.index("after last.safetensors") + 1
    (workplace / "cut").mkdir()
    assert runner(workplace / "cut", model, arguments, die_at=draw.randint(first, len(happened) - 2))[0] == DIED
    code, said = runner(workplace / "cut", model, arguments, die_at=draw.randint(1, 8), resume="saved/run")
    if code == DIED:
        code, said = runner(workplace / "cut", model, arguments, resume="saved/run")
    assert code == 0, said
    assert_same_bits(saved / "run", workplace / "cut" / "saved" / "run")
    assert not list(workplace.rglob("*before*"))
