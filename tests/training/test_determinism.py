"""The same seed and settings give the same bits: in another process, with stages found, killed anywhere and resumed."""

import json
import random

import numpy as np
import pytest
import torch

from recbole_contrec.errors import UserError
from recbole_contrec.quick_start import load_data_and_model, run
from recbole_contrec.storage import checkpoint, lock
from recbole_contrec.storage.stages import Stage, StageResult, run_stages
from tests.helpers.killing import DIED, Runner, counted
from tests.helpers.options import TINY, TINY_OF, changed

SMALL = ("--epochs=3", "--train_batch_size=300", "--run_name=run")
SMALL_SASREC = ("--hidden_size=16", "--inner_size=16", "--n_layers=1")
RUNS = {  # one for each trainer, and for what draws numbers of its own
    "SASRec": ("SASRec", SMALL_SASREC),
    "sampled evaluation": ("BPR", ("--embedding_size=8", "--eval_args={'mode':'uni20'}")),
    "answers": ("ContRec", ("--answer_weight=0.3", "--prompt_text=bag", "--text_bonus=0.1", "--vocabulary_size=300")),
    "SASRecAll": ("SASRecAll", SMALL_SASREC),
    "DeftRec": ("DeftRec", ()),
    "TokenRec": ("TokenRec", ()),
    "SIIT-states": ("SIIT-states", ("--beam_size=5",)),
}
FOUND = (
    "answers",
    "DeftRec",
    "SIIT-states",
)  # the run that is killed finds the stages of the other; those of the rest make their own
CLOCKS = (
    "run",
    "run_name",
    "commit",
    "seconds",
    "core_seconds",
    "epoch_seconds",
    "training_seconds",
    "found_on_disk",
    "test_users_per_second",
    "peak_memory_mib",
    "checkpoint",
    "checkpoint_dir",
)


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
    """Two folders of runs hold the same: every tensor of the best model and of the state behind the last epoch, what
    was said, and the rank of every target."""
    for name in ("best.safetensors", "last.safetensors"):
        found = [checkpoint.load(folder / name) for folder in (one, other)]
        assert found[0].tensors.keys() == found[1].tensors.keys()
        for key, tensor in found[0].tensors.items():
            again = found[1].tensors[key]
            assert (tensor.dtype, tensor.shape) == (again.dtype, again.shape), key
            assert torch.equal(
                tensor.contiguous().flatten().view(torch.uint8), again.contiguous().flatten().view(torch.uint8)
            ), key
        records = [
            {
                **timeless(checkpoint_of.record),
                "curve": [(point[0], point[3]) for point in checkpoint_of.record.get("curve", ())],
            }
            for checkpoint_of in found
        ]
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
        run(model, "tiny", arguments=arguments)
    place, cut = workplace if name in FOUND else workplace / "other", changed(arguments, ["--run_name=cut"])
    place.mkdir(exist_ok=True)

    draw = random.Random(name)
    assert runner(place, model, cut, die_at=draw.randint(1, len(happened)))[0] == DIED
    code, said = runner(place, model, cut, die_at=draw.randint(1, 8), resume="saved/cut")
    if code == DIED:
        code, said = runner(place, model, cut, resume="saved/cut")
    assert code == 0, said
    stages = json.loads((place / "saved" / "cut" / "result.json").read_text())["stages"].values()
    assert all(stage["found_on_disk"] == (name in FOUND) for stage in stages)
    assert_same_bits(workplace / "saved" / "run", place / "saved" / "cut")
    assert not list(workplace.rglob("*before*"))


# each cause by itself


def drawing_stage(draws, tensors):
    def build(report):
        for _ in range(draws):
            torch.rand(3), np.random.rand(3), random.random()
        return StageResult(tensors, {})

    return build


@pytest.mark.parametrize("found", [False, True])
def test_a_stage_leaves_random_generators_as_it_found_them(tmp_path, found):
    stage = Stage("something", {}, drawing_stage(5, {"x": torch.ones(2)}), lambda tensors: None)
    if found:
        run_stages([stage], "data", tmp_path)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    wanted = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    run_stages([stage], "data", tmp_path)
    assert (torch.rand(1), np.random.rand(), random.random()) == wanted


def test_a_stage_gives_tensors_that_lie_in_memory_alike_whether_it_is_done_or_found(tmp_path):
    given = []
    stage = Stage(
        "something",
        {},
        drawing_stage(0, {"x": torch.arange(12.0).reshape(3, 4).T, "y": torch.arange(9.0)[1:]}),
        lambda tensors: given.append(tensors),
    )
    for _ in range(2):
        run_stages([stage], "data", tmp_path)
    for tensors in given:
        assert all(tensor.is_contiguous() and tensor.data_ptr() % 64 == 0 for tensor in tensors.values())
    assert all(torch.equal(given[0][name], given[1][name]) for name in given[0])


def test_python_trains_as_the_command_line(tiny, workplace):
    """Configuration, data and model by hand, and a second training of the same model that was loaded."""
    from recbole_contrec.data.loading import load_data
    from recbole_contrec.quick_start import assemble
    from recbole_contrec.settings.config import Config

    arguments = changed(TINY_OF["ContRec"], ["--epochs=1", f"--data_path={tiny}"])
    result = run("ContRec", "tiny", arguments=arguments)
    config = Config("ContRec", "tiny", arguments=arguments)
    by_hand = assemble(config, load_data(config))
    by_hand.trainer.fit(by_hand.data.train, by_hand.data.valid, saved=False, verbose=False)
    whole = load_data_and_model(result["checkpoint"])
    assert same_weights(by_hand.model, whole.model)
    again = []
    for _ in range(2):
        loaded = load_data_and_model(result["checkpoint"])
        loaded.trainer.fit(loaded.data.train, loaded.data.valid, saved=False, verbose=False)
        again.append(loaded.model)
    assert same_weights(*again) and not same_weights(again[0], whole.model)


def same_weights(one, other):
    other = other.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in one.state_dict().items())


# what is found when a run is resumed, not at its end


@pytest.fixture
def cut(tiny, workplace, runner):
    """The folder of a run of SASRecAll that was killed in the first step of its third epoch, and its arguments."""
    arguments = changed(TINY, ["--epochs=3", *SMALL_SASREC, f"--data_path={tiny}", "--run_name=run"])
    with counted() as happened:
        run("SASRecAll", "tiny", arguments=changed(arguments, ["--run_name=whole"]))
    second = happened.index("after last.safetensors") + 1
    assert runner(workplace, "SASRecAll", arguments, die_at=second + 1)[0] == DIED
    return workplace / "saved" / "run", arguments


def test_what_cannot_be_resumed_is_refused_at_once(cut, tiny, runner, workplace, capsys, caplog):
    folder, arguments = cut
    best, whole = folder / "best.safetensors", (folder / "best.safetensors").read_bytes()

    def refused(*more):
        with pytest.raises(UserError) as error:
            run("SASRecAll", "tiny", arguments=changed(arguments, more), resume=str(folder))
        assert not (folder / "result.json").exists()
        return str(error.value)

    best.unlink()
    assert "there is no checkpoint" in (said := refused()) and "train it anew" in said
    best.write_bytes(whole[:-8])
    assert "damaged" in (said := refused()) and "train it anew" in said
    best.write_bytes((folder.parent / "whole" / "best.safetensors").read_bytes())
    assert "not the best model of this run" in refused()
    best.write_bytes(whole)
    stored, weight = checkpoint.load(best), "model.item_embedding.weight"
    for change, words in (
        (lambda tensor: tensor * torch.nan, "not finite"),
        (lambda tensor: tensor[:1], "size mismatch"),
    ):
        checkpoint.save(best, {**stored.tensors, weight: change(stored.tensors[weight])}, stored.record)
        assert words in (said := refused()) and "train it anew" in said
    best.write_bytes(whole)
    for name in ("result.json", "best.before.safetensors"):
        (folder / name).mkdir()
        with pytest.raises(UserError, match=f"cannot write .*{name}: it is a folder"):
            run("SASRecAll", "tiny", arguments=arguments, resume=str(folder))
        (folder / name).rmdir()
    with pytest.raises(UserError, match="--resume= names no folder"):
        run("SASRecAll", "tiny", arguments=arguments, resume="")
    assert "was trained with hidden_size=16" in refused("--hidden_size=8")

    inter = tiny / "tiny" / "tiny.inter"
    text = inter.read_text()
    lines = text.splitlines()
    lines[1:3] = [lines[1].rsplit("\t", 1)[0] + "\t1", lines[2].rsplit("\t", 1)[0] + "\t0"]  # two items change places
    inter.write_text("\n".join(lines) + "\n")
    assert "other interactions or texts of the same users and items" in refused()
    inter.write_text(text)

    lock.acquire(folder)
    try:
        code, said = runner(workplace, "SASRecAll", arguments, resume=folder)
    finally:
        lock.release(folder)
    assert code == 2 and "another process is training this run" in said

    with caplog.at_level("WARNING"):
        result = run("SASRecAll", "tiny", arguments=changed(arguments, ["--epochs=4"]), resume=str(folder))
    assert result["epochs"] == 4 and "goes on with epochs=4 (it was 3): its numbers may not be" in caplog.text
