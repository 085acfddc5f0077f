"""Semantic ids from a file, in every model that generates them: how many codes they make, what contradicts them, who is
never generated, and the way back into a file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_contrec.errors import UserError

MODELS = ["TIGER", "SIIT", "TokenRec-beam"]
FREE = ("--num_codebooks", "--codebook_size")  # what follows from the file


@pytest.fixture
def with_ids(staged, workplace, monkeypatch):
    """A function (model, rows, *arguments) -> LoadedRun whose semantic ids are those of a file with these rows."""
    from tests.helpers import options

    for model, arguments in options.TINY_OF.items():
        monkeypatch.setitem(options.TINY_OF, model, [a for a in arguments if not a.startswith(FREE)])

    def build(model, rows, *arguments):
        (workplace / "ids.json").write_text(json.dumps(rows, indent=0))
        return staged(model, *arguments, "--semantic_ids=ids.json")

    return build


def distinct(n=60):
    """Three codes an item, all different, of at most 5 a level."""
    return {f"i{item}": [item // 16, item // 4 % 4, item % 4] for item in range(n)}


def codes_of(loaded):
    tokens = loaded.data.dataset.field2id_token["item_id"]
    codes, none = loaded.model.decoder.item_codes.codes, loaded.model.decoder.item_codes.unknown_code
    return {str(token): row for token, row in zip(tokens[1:], codes[1:].tolist()) if row[0] != none}


@pytest.mark.parametrize("model", MODELS)
def test_codes_are_those_of_the_file(with_ids, model):
    loaded = with_ids(model, distinct())
    table = loaded.model.decoder.item_codes
    assert codes_of(loaded) == distinct() and table.num_codebooks == 3 and table.codebook_size == 4
    assert loaded.config["num_codebooks"] == (3 if model == "TokenRec-beam" else 2)  # there, without the last one
    assert loaded.config["codebook_size"] == 4
    rows = next(iter(loaded.data.test))[0]
    found = loaded.model.eval().generate(rows, width=5).items
    assert (found > 0).all() and torch.equal(found, loaded.model.generate(rows, width=5).items)


@pytest.mark.parametrize("model", MODELS)
def test_a_last_code_tells_apart_what_the_file_does_not(with_ids, model):
    loaded = with_ids(model, {item: row[:2] for item, row in distinct().items()})
    table = loaded.model.decoder.item_codes
    assert table.num_codebooks == 3 and table.codebook_size == 4
    found = codes_of(loaded)
    assert {item: row[:2] for item, row in found.items()} == {item: row[:2] for item, row in distinct().items()}
    assert len(set(map(tuple, found.values()))) == len(found)
    loaded.model.eval()
    assert len(loaded.model.decoder.trie.items) == len(found)


@pytest.mark.parametrize("model", MODELS)
def test_items_without_codes_are_never_generated_and_named(with_ids, model, caplog):
    caplog.set_level("INFO", "recbole_contrec")
    loaded = with_ids(model, {**distinct(50), "elsewhere": [0, 0, 9]})
    assert "has no codes for 10 of 60 items" in caplog.text and "never generated" in caplog.text
    assert "1 of its items are not in the data set" in caplog.text
    assert loaded.model.decoder.item_codes.codebook_size == 10
    model, tokens = loaded.model.eval(), loaded.data.dataset.field2id_token["item_id"]
    rows = next(iter(loaded.data.test))[0]
    beams = model.generate(rows, width=60).items
    names = {str(tokens[item]) for item in beams.unique().tolist() if item}
    assert names == set(distinct(50))
    assert torch.isfinite(sum(model.train().calculate_loss(next(iter(loaded.data.train)))))


def test_the_stage_reports_the_file(with_ids, workplace, caplog):
    from recbole_contrec.storage.checkpoint import load

    loaded = with_ids("TIGER", {**distinct(58), "i57": [0, 0, 0], "x": [1, 1, 1]})
    (stage,) = (workplace / "saved" / "stages").glob("identifiers-*")
    report = load(stage).record["report"]
    assert report["items"] == 58 and report["items_not_in_file"] == 2 and report["items_of_file_unknown"] == 1
    assert report["collisions_in_file"] == pytest.approx(2 / 58, abs=1e-4) and report["collisions"] == 0
    assert loaded.config["num_codebooks"] == 3


def test_another_file_is_another_stage(with_ids, caplog):
    caplog.set_level("INFO", "recbole_contrec")
    first = codes_of(with_ids("TIGER", distinct()))
    again = codes_of(with_ids("TIGER", distinct()))
    assert again == first and "identifiers: found in" in caplog.text
    turned = {item: row[::-1] for item, row in distinct().items()}
    assert codes_of(with_ids("TIGER", turned)) == turned


def test_arrays_are_read_as_well(staged, with_ids, workplace):
    rows = distinct()
    np.save(workplace / "ids.npy", np.array(list(rows.values())))
    (workplace / "ids.tokens.txt").write_text("".join(f"{item}\n" for item in rows))
    assert codes_of(staged("TIGER", "--semantic_ids=ids.npy")) == rows


@pytest.mark.parametrize(
    "model, arguments, message",
    [
        ("TIGER", ("--num_codebooks=3",), "num_codebooks=3: .* makes 3 codes an item, the last one included.*set 2"),
        ("TokenRec-beam", ("--num_codebooks=2",), "num_codebooks=2: .* makes 3 codes an item: .*set 3"),
        ("TIGER", ("--codebook_size=3",), "codebook_size=3: .* needs 4 codes"),
        ("TIGER", ("--num_codebooks=2", "--codebook_size=9"), None),
        ("TIGER", ("--num_codebooks=3", "--codebook_size=9"), "num_codebooks=3: .* makes 3 codes an item"),
        ("TokenRec-beam", ("--num_codebooks=3", "--codebook_size=3"), "codebook_size=3: .* needs 4 codes"),
    ],
)
def test_settings_that_contradict_the_file(with_ids, model, arguments, message):
    if message is None:  # room for codes that a refinement may use
        assert with_ids(model, distinct(), *arguments).model.decoder.item_codes.codebook_size == 9
        return
    with pytest.raises(UserError, match=message):
        with_ids(model, distinct(), *arguments)


def test_places_that_pass_for_ids_are_doubted(assembled, tiny, workplace, monkeypatch, caplog):
    from tests.helpers import options

    monkeypatch.setitem(options.TINY_OF, "TIGER", [a for a in options.TINY_OF["TIGER"] if not a.startswith(FREE)])
    data = tiny / "tiny" / "tiny.inter"
    header, *lines = data.read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    ids = "".join(f"{user}\t{int(item[1:]) + 1}\t{rating}\t{time}\n" for user, item, rating, time in rows)
    data.write_text(f"{header}\n{ids}")
    (tiny / "tiny" / "tiny.item").unlink()
    for first, doubted in ((0, True), (1, False)):
        codes = {str(item + first): row for item, row in enumerate(distinct().values())}
        (workplace / "ids.json").write_text(json.dumps(codes))
        caplog.clear()
        assembled("TIGER", "--semantic_ids=ids.json")
        assert ("no item 0: if these are places and no" in caplog.text) == doubted


@pytest.mark.parametrize("model", MODELS)
def test_a_file_that_cannot_be_used_is_said_before_anything_is_written(with_ids, workplace, model):
    with pytest.raises(UserError, match="semantic_ids: ids.json, line 8: item 'i1' has 2 codes"):
        with_ids(model, {"i0": [1, 2, 3, 4], "i1": [1, 2], "i2": [1, 2, 3, 3]})
    with pytest.raises(UserError, match="no file nowhere.json"):
        _run(model, "--semantic_ids=nowhere.json")
    assert not (workplace / "saved").exists() and not (workplace / "log").exists()


def _run(model, *arguments):
    from recbole_contrec.quick_start import run
    from tests.helpers.options import TINY_OF, changed

    return run(model, "tiny", arguments=changed([*TINY_OF[model], "--data_path=data"], arguments))


def test_what_is_neither_a_method_nor_a_file(staged):
    with pytest.raises(UserError, match="semantic_ids=rkmeens: neither one of rqvae, .*did you mean rkmeans"):
        staged("TIGER", "--semantic_ids=rkmeens")
    with pytest.raises(UserError, match="name a .json or .npy file"):
        staged("TokenRec-beam", "--semantic_ids=rkmeans")


@pytest.mark.parametrize("model", MODELS)
def test_a_run_ends_resumes_and_loads_without_its_file(with_ids, workplace, model, capsys):
    """The checkpoint has the codes; refinements of SIIT begin at those of the file."""
    from recbole_contrec.cli import main
    from recbole_contrec.quick_start import load_data_and_model, run

    (workplace / "ids.json").write_text(json.dumps(distinct()))
    arguments = ("--semantic_ids=ids.json", "--run_name=given", "--beam_size=20")
    first = _run(model, *arguments, "--epochs=2")
    if model == "SIIT":
        assert first["refinements"]
    (workplace / "ids.json").write_text("whatever lies there by then")
    load_data_and_model(first["checkpoint"])
    (workplace / "ids.json").unlink()
    loaded = load_data_and_model(first["checkpoint"])
    if model != "SIIT":
        assert codes_of(loaded) == distinct()
    again = loaded.trainer.evaluate(loaded.data.test, load_best_model=False)["ndcg@10"]
    assert again == pytest.approx(first["test_result"]["ndcg@10"])
    resumed = run(resume="saved/given", arguments=["--epochs=3"])
    assert resumed["epochs"] == 3
    with pytest.raises(UserError, match="ids.json"):
        _run(model, "--semantic_ids=ids.json", "--num_codebooks=2", "--codebook_size=4")
    # and back into a file
    assert main(["semantic_ids", "--checkpoint=saved/given", "--output=out/ids.json"]) == 0
    assert "60 items" in capsys.readouterr().out
    written = json.loads(Path("out/ids.json").read_text())
    assert written == codes_of(load_data_and_model("saved/given"))


def test_the_semantic_ids_of_a_run_start_another(with_ids, staged, workplace):
    from recbole_contrec.cli import main
    from recbole_contrec.quick_start import load_data_and_model

    result = _run("TIGER", "--run_name=own", "--epochs=1")
    own = codes_of(load_data_and_model(result["checkpoint"]))
    assert main(["semantic_ids", "--checkpoint=saved/own", "--output=ids.json"]) == 0
    for model in MODELS:
        assert codes_of(staged(model, "--semantic_ids=ids.json")) == own


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--output=ids.json"], "--checkpoint"),
        (["--checkpoint=saved/x"], "--output"),
        (["--checkpoint=saved/x", "--output=ids.csv"], "must end in .json"),
        (["--checkpoint=saved/x", "--output=ids.json", "--seed=3"], "no option"),
    ],
)
def test_the_command_says_what_it_lacks(workplace, arguments, message, capsys):
    from recbole_contrec.cli import main

    assert main(["semantic_ids", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_model_without_semantic_ids_has_none_to_write(run_tiny, workplace, capsys):
    from recbole_contrec.cli import main

    run_tiny("SASRec", "--run_name=other", "--epochs=1")
    assert main(["semantic_ids", "--checkpoint=saved/other", "--output=ids.json"]) == 2
    assert "SASRec has no semantic ids" in capsys.readouterr().err
