"""Semantic ids of TIGER by every way: distinct, kept apart on disk, and where their codes start."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_contrec import load_data_and_model
from recbole_contrec.errors import UserError
from recbole_contrec.storage import checkpoint


@pytest.fixture
def ready(staged):
    """A function (*arguments) -> LoadedRun of a TIGER whose stages are done."""
    return partial(staged, "TIGER")


@pytest.mark.parametrize("way", ["rqvae", "rkmeans", "pq", "clusters", "random"])
def test_every_way_gives_distinct_identifiers(ready, way):
    loaded = ready(f"--semantic_ids={way}")
    codes, report = loaded.model.decoder.item_codes.codes, loaded.trainer.progress.stages["identifiers"].report
    known = codes[codes[:, 0] < 16]
    met = np.unique(loaded.data.train.dataset.histories.pairs()[1])
    assert (codes[met] < 16).all() and len(known) == len(met) == report["items"] and (codes[0] == 16).all()
    assert codes.shape[1] == 3 and len(known.unique(dim=0)) == len(known) and report["collisions"] == 0
    counts = known[:, :2].unique(dim=0, return_inverse=True, return_counts=True)
    assert report["collisions_before_last"] == pytest.approx(
        (counts[2][counts[1]] > 1).double().mean().item(), abs=1e-6
    )
    assert ("unexplained_held_out" in report) == (way == "rqvae")


def test_ways_are_kept_apart_on_disk_and_read_only_their_settings(ready):
    def found(*arguments):
        return ready(*arguments).trainer.progress.stages["identifiers"].found_on_disk

    assert not found("--semantic_ids=rkmeans") and not found("--semantic_ids=pq")
    assert found("--semantic_ids=rkmeans", "--tokenizer_epochs=3") and not found(
        "--semantic_ids=rkmeans", "--codebook_size=17"
    )


@pytest.mark.parametrize("width", [16, 12])
def test_codes_start_where_their_items_lie(ready, width):
    model = ready("--code_vectors_init=vectors", f"--vector_size={width}").model
    vectors = checkpoint.load(next(Path("saved/stages").glob("item-vectors-*"))).tensors["items"]
    if width == 16:  # that of the language model: the vectors are taken as they are
        first, none = model.decoder.item_codes.codes[:, 0], model.decoder.item_codes.unknown_code
        used = first[first != none].unique()
        means = torch.stack([vectors[first == code].mean(0) for code in used])
        words = model.decoder.item_codes.read_next(used, 0, None)
        torch.testing.assert_close(words, 0.1 * means / means.square().mean().sqrt())
        torch.testing.assert_close(model.code_heads[0].weight[used], words)
    read = model.decoder.item_codes(torch.arange(model.n_items)[vectors.any(1)])[:, 1]  # [n, D]
    near, own = (F.normalize(part) @ F.normalize(part).T for part in (read, vectors[vectors.any(1)]))
    assert torch.corrcoef(torch.stack([near.flatten(), own.flatten()]))[0, 1] > 0.5


def test_codes_that_start_at_random_know_nothing_of_the_vectors(ready):
    model = ready("--code_vectors_init=random").model
    assert model.decoder.item_codes.words.weight.std().item() == pytest.approx(0.1, rel=0.1)
    assert not torch.equal(
        model.code_heads[0].weight, model.decoder.item_codes.words.weight[: len(model.code_heads[0].weight)]
    )


@pytest.mark.parametrize("way", ["rkmeans", "random"])
def test_too_few_codes_say_what_to_raise(ready, way):
    with pytest.raises(
        UserError, match="items have the same codes.*raise codebook_size, which is .* here, or num_codebooks"
    ):
        ready("--codebook_size=3", "--num_codebooks=1", f"--semantic_ids={way}")


@pytest.mark.parametrize("model", ["TIGER", "TokenRec-beam"])
@pytest.mark.parametrize("n_items", [6, 10, 16])
def test_small_catalogues_have_codes_enough(run_tiny, tiny, model, n_items):
    path = tiny / "tiny" / "tiny.inter"
    head, *rows = path.read_text().splitlines()
    rows = [row.split("\t") for row in rows]
    path.write_text(
        "\n".join([head, *("\t".join([user, f"i{1 + int(item[1:]) % n_items}", *rest]) for user, item, *rest in rows)])
        + "\n"
    )
    result = run_tiny(model, "--codebook_size=~", "--epochs=1", "--topk=[3]", "--valid_metric=NDCG@3")
    assert result["card"]["items"] == n_items
    assert load_data_and_model(result["checkpoint"]).model.decoder.item_codes.unknown_code == (
        8 if model == "TIGER" else 4
    )
