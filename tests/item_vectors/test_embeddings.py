"""recbole_contrec.item_vectors.embeddings: RecBole's models that start at vectors from a file."""

import numpy as np
import pytest
import torch
from recbole.utils import init_seed

from recbole_contrec.data.loading import load_data
from recbole_contrec.errors import UserError
from recbole_contrec.item_vectors.embeddings import start_item_embeddings
from recbole_contrec.loaded_run import assemble
from recbole_contrec.quick_start import load_data_and_model, run
from recbole_contrec.settings.config import Config
from recbole_contrec.tokenizer import save_vectors


@pytest.fixture
def vectors(tiny):
    """A file with vectors of width 16, for the items i0 to i39 of 60; their values by item."""
    tokens = [f"i{item}" for item in range(40)]
    values = torch.from_numpy(np.random.default_rng(0).normal(3.0, 7.0, (40, 16)).astype(np.float32))
    save_vectors("vectors.npy", tokens, values)
    return dict(zip(tokens, values))


def run_of(model, *options):
    arguments = ["--data_path=data", "--item_embeddings=vectors.npy", "--use_gpu=False", *options]
    config = Config(model, "tiny", arguments=arguments)
    init_seed(config["seed"], config["reproducibility"])
    return assemble(config, load_data(config))


@pytest.mark.parametrize(
    "model, options",
    [
        ("SASRec", ["--hidden_size=16"]),
        ("BERT4Rec", ["--hidden_size=16"]),
        ("GRU4Rec", ["--embedding_size=16"]),
        ("BPR", ["--embedding_size=16"]),
    ],
)
def test_tables_start_at_the_vectors(vectors, workplace, model, options):
    loaded = run_of(model, *options)
    before = loaded.model.item_embedding.weight.detach().clone()
    start_item_embeddings(loaded.config, loaded.model, loaded.data.dataset)
    after, tokens = loaded.model.item_embedding.weight.detach(), loaded.data.dataset.field2id_token["item_id"]
    scale = (
        before[1:].square().mean().sqrt()
        / torch.stack([vectors[t] for t in tokens[1:] if t in vectors]).square().mean().sqrt()
    )
    for row, token in enumerate(tokens):
        expected = vectors[token] * scale if token in vectors else before[row]
        torch.testing.assert_close(after[row], expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(after[len(tokens) :], before[len(tokens) :])  # BERT4Rec's mask


def test_a_run_trains_from_there_and_its_checkpoint_needs_no_file(vectors, run_tiny, workplace):
    plain = run_tiny("SASRec", "--hidden_size=16", "--epochs=0")
    started = run_tiny("SASRec", "--hidden_size=16", "--epochs=0", "--item_embeddings=vectors.npy")
    assert started["test_result"] != plain["test_result"]
    assert started["settings"]["item_embeddings"] == "vectors.npy"
    (workplace / "vectors.npy").unlink()
    loaded = load_data_and_model(started["checkpoint"])
    assert loaded.trainer.evaluate(loaded.data.test, load_best_model=False) == started["test_result"]


def test_a_run_that_starts_from_a_checkpoint_reads_no_other_file(vectors, run_tiny, workplace):
    first = run_tiny("SASRec", "--hidden_size=16", "--epochs=0", "--item_embeddings=vectors.npy")
    (workplace / "vectors.npy").unlink()
    again = run(init_from=first["checkpoint"], settings={"data_path": "data"})
    assert again["test_result"] == first["test_result"]  # that of the checkpoint is there already
    with pytest.raises(UserError, match="item_embeddings=others.npy: a run that starts from a checkpoint"):
        run(init_from=first["checkpoint"], settings={"data_path": "data", "item_embeddings": "others.npy"})


@pytest.mark.parametrize(
    "model, options, expected",
    [
        ("ContRec", [], "is for RecBole's models and your own, not for ContRec: set item_vectors to the file"),
        ("SASRec", ["--hidden_size=32"], "vectors of width 16, and the item embeddings of SASRec are 32 wide"),
        ("SASRec", ["--item_embeddings=none.npy"], "item_embeddings=none.npy"),
        ("Pop", [], "not for Pop: it has no vectors of items"),
        ("ItemKNN", [], "ItemKNN has no table of item embeddings"),
    ],
)
def test_what_cannot_be(vectors, run_tiny, workplace, model, options, expected):
    with pytest.raises(UserError, match=expected):
        run_tiny(model, "--item_embeddings=vectors.npy", *options)
    assert not (workplace / "saved").exists()
