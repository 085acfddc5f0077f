"""Texts as vectors of their words: likeness is kept, rare words count, and no words are an error of the setting."""

import numpy as np
import pytest
import torch

from recbole_contrec.data.text import tfidf
from recbole_contrec.errors import UserError
from recbole_contrec.item_vectors.words import text_vectors, words_of


@pytest.fixture(scope="module")
def texts():
    """An empty text, and 200 of eight words out of a thousand, every second one like the one before it."""
    random = np.random.default_rng(0)
    found = [""]
    for _ in range(100):
        words = [f"word{number}" for number in random.integers(1000, size=12)]
        found += [" ".join(words[:8]), " ".join(words[4:])]
    return found


def test_a_projection_keeps_the_likeness_of_texts(texts):
    projected = words_of(texts, 384, seed=0)
    assert projected.shape == (201, 384) and not projected[0].any()
    torch.testing.assert_close(projected[1:].norm(dim=1), torch.ones(200))
    exact = torch.from_numpy(tfidf().fit_transform(texts).toarray()).float()  # of unit length
    error = (projected @ projected.T - exact @ exact.T).fill_diagonal_(0).abs()
    assert error.mean() < 0.06 and error.max() < 0.3
    pairs = (projected[1::2] * projected[2::2]).sum(1)
    others = (projected[1:-2:2] * projected[4::2]).sum(1)
    assert pairs.min() > others.max() + 0.1
    assert torch.equal(projected, words_of(texts, 384, seed=0))
    assert not torch.equal(projected, words_of(texts, 384, seed=1))


def test_a_rare_word_counts_which_a_truncated_svd_forgets(texts):
    alike = [*texts, "zanzibar " + texts[1], "zanzibar " + texts[3]]
    of_words, of_svd = words_of(alike, 384, seed=0), text_vectors(alike, 8, seed=0)
    assert of_words[-1] @ of_words[-2] > 0.05
    told_apart = [(vectors[-2] - vectors[1]).norm() for vectors in (of_words, of_svd)]
    assert told_apart[0] > 2 * told_apart[1]


def test_few_words_stay_as_they_are():
    texts = ["a red ball", "", "the red car"]
    found = words_of(texts, 384, seed=0)
    assert torch.equal(found, torch.from_numpy(tfidf().fit_transform(texts).toarray().astype(np.float32)))
    assert found[0] @ found[2] > 0 == found[1].abs().sum()


@pytest.mark.parametrize("vectors", [words_of, text_vectors])
def test_texts_without_words_are_an_error_of_the_setting_that_asks(vectors):
    with pytest.raises(UserError, match="^item_descriptions asks for texts, and the item texts hold no words"):
        vectors(["a", "!"], 8, 0, "item_descriptions")
