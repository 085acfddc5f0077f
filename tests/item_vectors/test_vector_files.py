"""Item vectors from a file: what a run makes of them, and which are refused."""

import numpy as np
import pandas as pd
import pytest

from recbole_contrec.errors import UserError
from recbole_contrec.fold_in import fold_in_interactions
from recbole_contrec.quick_start import load_data_and_model
from recbole_contrec.recommendation import recommend

NO_USERS = ("--num_user_codebooks=0",)


def write_vectors(folder, seed, width=16):
    (folder / "v.tokens.txt").write_text("\n".join(f"i{number}" for number in range(60)) + "\n")
    np.save(folder / "v.npy", np.random.default_rng(seed).normal(size=(60, width)).astype(np.float32))


@pytest.mark.parametrize(
    "model, arguments", [("ContRec", ()), ("ContRec", ("--user_tokens=0",)), ("TokenRec", NO_USERS)]
)
def test_the_vector_file_of_a_run_is_not_needed_afterwards(run_tiny, workplace, model, arguments):
    write_vectors(workplace, 0)
    checkpoint = run_tiny(model, "--item_vectors=v.npy", "--epochs=1", *arguments)["checkpoint"]
    known = recommend(checkpoint, ["u1"], k=3)
    write_vectors(workplace, 1)
    with pytest.raises(UserError, match="trained with other vectors than item_vectors=v.npy gives now"):
        fold_in_interactions(load_data_and_model(checkpoint), {"new": ["u1", "u2"]})
    (workplace / "v.npy").unlink()
    pd.testing.assert_frame_equal(recommend(checkpoint, ["u1"], k=3), known)
    with pytest.raises(UserError, match="item_vectors=v.npy: neither a file"):
        fold_in_interactions(load_data_and_model(checkpoint), {"new": ["u1", "u2"]})


@pytest.mark.parametrize(
    "model, argument, told",
    [
        ("ContRec", "--item_vectors=svdd", r"item_vectors=svdd: .*did you mean svd\?"),
        ("TokenRec", "--item_vectors=svd+txet", r"item_vectors=svd.txet: .*did you mean text\?"),
        ("SASRecAll-svd", "--item_vectors=v.npy", "item_vectors=v.npy: neither a file"),
        ("SIIT", "--item_descriptions=wrods", r"item_descriptions=wrods: .*did you mean words\?"),
    ],
)
def test_a_misspelt_source_is_found_before_data_are_read(run_tiny, workplace, monkeypatch, model, argument, told):
    from recbole_contrec import quick_start

    for read in ("load_data", "prepare"):
        monkeypatch.setattr(quick_start, read, lambda *_: pytest.fail("data were read"))
    with pytest.raises(UserError, match=told):
        run_tiny(model, argument)
    with pytest.raises(UserError, match=told):
        quick_start.fetch_missing_data(model, "ml-1m", arguments=[argument])  # nor fetched


@pytest.mark.parametrize("model", ["ContRec", "TokenRec", "TIGER"])
def test_vectors_that_do_not_fit_are_refused_before_anything_is_written(run_tiny, workplace, model):
    write_vectors(workplace, 0, width=7)
    with pytest.raises(UserError, match="item_vectors=v.npy has vectors of width 7: set --vector_size=7"):
        run_tiny(model, "--item_vectors=v.npy")
    assert {path.name for path in workplace.iterdir()} == {"data", "v.npy", "v.tokens.txt"}


def test_vectors_that_tell_no_items_apart_are_refused(run_tiny, workplace):
    write_vectors(workplace, 0)
    np.save(workplace / "v.npy", np.ones((60, 16), dtype=np.float32))
    with pytest.raises(UserError, match="item_vectors=v.npy gives all items of 'tiny' the same vector"):
        run_tiny("ContRec", "--item_vectors=v.npy")
    with pytest.raises(UserError, match="item_descriptions=v.npy gives all items of 'tiny' the same vector"):
        run_tiny("SIIT-states", "--item_descriptions=v.npy")


def test_changed_vector_files_are_read_again(run_tiny, workplace):
    found = []
    for seed in (0, 1, 1):
        write_vectors(workplace, seed)
        stages = run_tiny("ContRec", "--item_vectors=v.npy", "--epochs=1")["stages"]
        found.append(stages["item vectors"]["found_on_disk"])
    assert found == [False, False, True]
