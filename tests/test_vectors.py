"""Vectors of users and items from texts, alone and beside collaborative ones."""

import pytest
import torch

from recbole_contrec.data.loading import load_data
from recbole_contrec.data.vectors import text_vectors, user_and_item_vectors
from recbole_contrec.errors import UserError

TEXTS = ["", "red nail polish", "blue nail polish", "shampoo for dry hair", "shampoo for oily hair", "", "red nail polish"]


def test_texts_that_share_words_have_near_vectors():
    vectors = text_vectors(TEXTS, 4, seed=0)
    assert vectors.shape == (7, 4) and not vectors[[0, 5]].any()
    torch.testing.assert_close(vectors[[1, 2, 3, 4]].norm(dim=1), torch.ones(4))
    torch.testing.assert_close(vectors[1], vectors[6])
    similar = vectors @ vectors.T
    assert similar[1, 2] > 0.3 > similar[1, 3] and similar[3, 4] > 0.3
    assert torch.equal(vectors, text_vectors(TEXTS, 4, seed=0))


def test_columns_beyond_the_rank_are_zero():
    vectors = text_vectors(TEXTS, 12, seed=0)
    assert vectors.shape == (7, 12) and not vectors[:, 6:].any()


@pytest.fixture
def vectors_of(config_of):
    def build(source):
        config = config_of("ContRec", f"--item_vectors={source}")
        return user_and_item_vectors(config, load_data(config).train.dataset, lambda *_: None)
    return build


def test_two_sources_share_the_width(vectors_of, config_of):
    both, svd, text = (vectors_of(source) for source in ("svd+text", "svd", "text"))
    half = user_and_item_vectors(config_of("ContRec", "--vector_size=8"), load_data(config_of()).train.dataset, lambda *_: None)
    assert both.items.shape == svd.items.shape == text.items.shape
    for ours, theirs in zip(both, half):
        torch.testing.assert_close(ours[:, :8], theirs)
    assert (both.items[1:, 8:] != 0).any(1).all()  # every item has a text
    users = both.users[1:, 8:]
    assert (users != 0).any(1).all() and users.std() == pytest.approx(1, abs=0.1)


def test_other_texts_are_another_stage(run_tiny, tiny):
    first = run_tiny("ContRec", "--item_vectors=text", "--epochs=1")
    again = run_tiny("ContRec", "--item_vectors=text", "--epochs=1")
    assert all(stage["found_on_disk"] for stage in again["stages"].values())
    path = tiny / "tiny" / "tiny.item"
    path.write_text(path.read_text().replace("odd kind", "strange kind"))
    other = run_tiny("ContRec", "--item_vectors=text", "--epochs=1")
    assert not any(stage["found_on_disk"] for stage in (*first["stages"].values(), *other["stages"].values()))


def test_data_without_texts_say_so(config_of, tiny, run_tiny):
    (tiny / "tiny" / "tiny.item").unlink()
    with pytest.raises(UserError, match="has no item texts"):
        run_tiny("ContRec", "--item_vectors=text")


@pytest.mark.parametrize("texts", [["", "", ""], ["", "a b", "c"]])
def test_texts_without_words_are_refused(texts):
    with pytest.raises(UserError, match="hold no words"):
        text_vectors(texts, 4, seed=0)


def test_one_word_alone_tells_nothing_apart():
    assert not text_vectors(["", "soap", "soap"], 4, seed=0).any()
